"""A labelled data set from worlds: COCO JSON, pictures and a data card. Each picture depends on the world, the seed and
its number alone, so that an interrupted run can be continued, with any number of workers.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import signal
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import msgspec
import numpy as np
import tomli_w
import torch

from rov.errors import UserError
from rov.version import __version__
from sim.scene.labels import Label, Rules, labels
from sim.scene.render import Renderer
from sim.scene.things import LABELS
from sim.viewpoints import view
from sim.world import World, load, realise, through


class Task(NamedTuple):
    """One picture to make."""

    world: World
    seed: int
    number: int
    width: int
    height: int
    out: Path

    @property
    def stem(self) -> str:
        return f"{self.world.name}_{self.number:05d}"


class LabelledPicture(NamedTuple):
    image: np.ndarray
    labels: list[Label]
    seed: int
    """Of its world."""
    jpeg: int


def picture(task: Task) -> LabelledPicture:
    """Realise the world, choose a view, render and label it."""
    sequence = np.random.SeedSequence([task.seed, zlib.crc32(task.world.name.encode()), task.number])
    seed = int(sequence.generate_state(1)[0])
    place = realise(task.world, seed)
    at = view(place, np.random.Generator(np.random.PCG64([seed, 200])))
    renderer = Renderer([place.scene], place.lens(task.width, task.height))
    shots = renderer.render(
        torch.tensor([at.position]), torch.tensor([at.attitude]), at.t, torch.tensor([at.turning]), alone=True
    )
    return LabelledPicture(shots.image[0].numpy(), labels(renderer, shots)[0], seed, place.jpeg)


def make(task: Task) -> str:
    """Write one picture and then its labels; returns its stem. Where the labels exist, the picture is complete."""
    done = picture(task)
    name = f"images/{task.stem}.jpg"
    cv2.imwrite(str(task.out / name), done.image, [cv2.IMWRITE_JPEG_QUALITY, done.jpeg])
    record = {
        "file_name": name,
        "world": task.world.name,
        "seed": done.seed,
        "labels": [label._asdict() for label in done.labels],
    }
    path = task.out / "labels" / f"{task.stem}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record))
    part.replace(path)
    return task.stem


def _quiet() -> None:
    """Set up a worker: one thread; only the parent handles Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def dataset(
    worlds: list[str],
    images: int,
    seed: int,
    out: Path,
    size: tuple[int, int],
    workers: int,
    step: Callable[[], None],
    camera: Path | None = None,
) -> dict[str, Any]:
    """Make `images` pictures of each world in `out`; calls `step` for each. Returns the COCO dictionary."""
    opened = [through(load(name), camera) for name in worlds]
    realise(opened[0], seed).lens(*size)  # a lens of another aspect ratio raises before the work begins
    recipe: dict[str, Any] = {
        "seed": seed, "size": list(size), "version": __version__,
        "worlds": {w.name: _hash(w) for w in opened},
    }  # fmt: skip
    if len(recipe["worlds"]) < len(opened):
        raise UserError("two worlds have the same name; name each once")
    _prepare(out, recipe)
    tasks = [Task(world, seed, i, *size, out) for world in opened for i in range(images)]
    missing = []
    for task in tasks:
        if (out / "labels" / f"{task.stem}.json").exists():
            step()
        else:
            missing.append(task)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_quiet) as pool:
        try:
            for future in as_completed([pool.submit(make, task) for task in missing]):
                future.result()
                step()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    coco = _coco(out, tasks)
    (out / "annotations.json").write_text(json.dumps(coco))
    (out / "dataset.toml").write_text(_card(out, recipe, coco), encoding="utf-8")
    return coco


def _hash(world: World) -> str:
    """sha256 of a world and of its lens' file."""
    lens = Path(world.camera.calibration).read_bytes() if world.camera.calibration else b""
    plain = msgspec.structs.replace(world, camera=msgspec.structs.replace(world.camera, calibration=""))
    return hashlib.sha256(msgspec.json.encode(plain) + lens).hexdigest()


def _prepare(out: Path, recipe: dict[str, Any]) -> None:
    """Make the folders. Raises UserError where they hold pictures of another recipe."""
    path = out / "recipe.json"
    try:
        for name in ("images", "labels"):
            (out / name).mkdir(parents=True, exist_ok=True)
        if path.exists() and json.loads(path.read_text()) != recipe:
            raise UserError(f"{out}: holds a data set of other worlds, seed, size or version; name another folder")
        path.write_text(json.dumps(recipe))
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from None


def _coco(out: Path, tasks: list[Task]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for task in tasks:
        record = json.loads((out / "labels" / f"{task.stem}.json").read_text())
        images.append(
            {"id": len(images) + 1, "file_name": record["file_name"], "width": task.width, "height": task.height,
             "world": record["world"], "seed": record["seed"]}
        )  # fmt: skip
        for label in record["labels"]:
            x1, y1, x2, y2 = label["box"]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": len(images), "category_id": LABELS.index(label["name"]) + 1,
                 "bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": [], "area": label["pixels"], "iscrowd": 0,
                 "visible": round(label["visible"], 3), "contrast": round(min(label["contrast"], 255.0), 1)}
            )  # fmt: skip
    categories = [{"id": i, "name": name} for i, name in enumerate(LABELS, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _card(out: Path, recipe: dict[str, Any], coco: dict[str, Any]) -> str:
    rules = Rules()
    count = Counter(LABELS[each["category_id"] - 1] for each in coco["annotations"])
    return "# Data card, written by `python -m sim dataset`.\n" + tomli_w.dumps(
        {
            "name": out.resolve().name,
            "layout": "coco",
            "groups": "world",
            "source": "the simulator of this repository, sim/",
            "version": recipe["version"],
            "licence": "that of this repository",
            "about": f"{len(coco['images'])} rendered pictures, {recipe['size'][0]}×{recipe['size'][1]}, each of its"
            " own world: things, water, light and lens are drawn.",
            "bias": "Rendered: shapes are simple, the same few kinds recur, there is no clutter outside the catalogue."
            " Views aim at labelled things, each class as often as another.",
            "seed": recipe["seed"],
            "worlds": recipe["worlds"],
            "classes": {name: count[name] for name in LABELS},
            "labels": {
                "rule": "Boxes surround the visible part of a thing. A thing is left out when less is visible,"
                " or when it is smaller, fainter or less lit than this. Contrast: levels of 255 in the finished picture"
                " against the surroundings; contrast × root of pixels over the noise is at least rose_min.",
                "visible_min": rules.visible,
                "longer_side_min_px": rules.long,
                "shorter_side_min_px": rules.short,
                "contrast_min_levels": rules.clear,
                "rose_min": rules.rose,
                "light_min": rules.light,
            },
        }
    )
