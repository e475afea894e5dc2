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
from collections.abc import Callable, Iterator
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

VAL_EVERY = 8
"""One in so many realised worlds is for validation."""


class Task(NamedTuple):
    """The pictures of one realised world."""

    world: World
    seed: int
    number: int
    width: int
    height: int
    out: Path
    views: int = 1
    device: str = "cpu"

    @property
    def stems(self) -> list[str]:
        """Names of its pictures."""
        return [f"{self.world.name}_{self.number * self.views + i:05d}" for i in range(self.views)]


class LabelledPicture(NamedTuple):
    image: np.ndarray
    labels: list[Label]
    seed: int
    """Of its world."""
    jpeg: int


def pictures(task: Task) -> list[LabelledPicture]:
    """Realise the world, choose views, render and label them."""
    sequence = np.random.SeedSequence([task.seed, zlib.crc32(task.world.name.encode()), task.number])
    seed = int(sequence.generate_state(1)[0])
    place = realise(task.world, seed)
    views = [view(place, np.random.Generator(np.random.PCG64([seed, 200 + i]))) for i in range(task.views)]
    renderer = Renderer([place.scene], place.lens(task.width, task.height), task.device)
    position, attitude, t, turning = (torch.tensor(each) for each in zip(*views, strict=True))
    shots = renderer.render(position, attitude, t, turning, alone=True)
    found = labels(renderer, shots)
    return [LabelledPicture(shots.image[i].cpu().numpy(), found[i], seed, place.jpeg) for i in range(task.views)]


def make(task: Task) -> int:
    """Write pictures and then their labels; returns how many. Where the labels exist, a picture is complete."""
    for stem, done in zip(task.stems, pictures(task), strict=True):
        name = f"images/{stem}.jpg"
        cv2.imwrite(str(task.out / name), done.image, [cv2.IMWRITE_JPEG_QUALITY, done.jpeg])
        record = {
            "file_name": name,
            "world": task.world.name,
            "seed": done.seed,
            "labels": [label._asdict() for label in done.labels],
        }
        path = task.out / "labels" / f"{stem}.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(record))
        part.replace(path)
    return task.views


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
    views: int = 1,
    device: str = "cpu",
) -> dict[str, Any]:
    """Make `images` pictures of each world in `out`, `views` of each time it is realised; calls `step` for each of
    them. `workers`: processes, 0 for this one alone. Returns the COCO dictionary."""
    opened = [through(load(name), camera) for name in worlds]
    realise(opened[0], seed).lens(*size)  # a lens of another aspect ratio raises before the work begins
    recipe: dict[str, Any] = {
        "seed": seed, "size": list(size), "version": __version__,
        "worlds": {w.name: _hash(w) for w in opened},
    } | ({"views": views} if views > 1 else {})  # fmt: skip
    if len(recipe["worlds"]) < len(opened):
        raise UserError("two worlds have the same name; name each once")
    _prepare(out, recipe)
    tasks = [Task(w, seed, i, *size, out, views, device) for w in opened for i in range(-(-images // views))]
    missing = []
    for task in tasks:
        if all((out / "labels" / f"{stem}.json").exists() for stem in task.stems):
            for _ in task.stems:
                step()
        else:
            missing.append(task)
    for made in _make_all(missing, workers):
        for _ in range(made):
            step()
    coco = _coco(out, tasks)
    (out / "annotations.json").write_text(json.dumps(coco))
    (out / "dataset.toml").write_text(_card(out, recipe, coco), encoding="utf-8")
    return coco


def _make_all(tasks: list[Task], workers: int) -> Iterator[int]:
    """The number of pictures of each task when it is done, by so many processes; 0: by this one."""
    if not workers:
        yield from map(make, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_quiet) as pool:
        try:
            for future in as_completed([pool.submit(make, task) for task in tasks]):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


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
    for task, stem in ((each, stem) for each in tasks for stem in each.stems):
        record = json.loads((out / "labels" / f"{stem}.json").read_text())
        images.append(
            {"id": len(images) + 1, "file_name": record["file_name"], "width": task.width, "height": task.height,
             "scene": record["world"], "split": "val" if task.number % VAL_EVERY == VAL_EVERY - 1 else "train",
             "seed": record["seed"]}
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
    """The card, with the entries that every data set's has (see `models/data/card.py`)."""
    count = Counter(LABELS[each["category_id"] - 1] for each in coco["annotations"])
    views = f" --views {recipe['views']}" if "views" in recipe else ""
    size = f"{recipe['size'][0]}x{recipe['size'][1]}"
    each = len(coco["images"]) // len(recipe["worlds"])
    command = (
        f"python -m sim dataset {' '.join(recipe['worlds'])} --images {each} --seed {recipe['seed']} --size {size}"
        f"{views} --out {out.resolve().name}"
    )
    return "# Data card, written by `python -m sim dataset`.\n" + tomli_w.dumps(
        {
            "name": out.resolve().name,
            "about": f"{len(coco['images'])} rendered pictures, {size}; things, water, light and lens are drawn anew"
            " for each realised world.",
            "creator": "The simulator of this repository, sim/; nobody drew or looked at the labels.",
            "source": f"sim/ of this repository: {command}",
            "version": recipe["version"],
            "licence": "that of this repository (Apache-2.0)",
            "collected": "Rendered: worlds are realised from a seed, and views aim at labelled things, each class as"
            " often as another, from distances at which it can be seen.",
            "transformations": [{"what": "Stored as JPEG of the quality that the world drew.", "command": command}],
            "intent": "To train detectors for things, waters and views of which there are no real pictures.",
            "labelling": _rule(Rules()),
            "bias": "Rendered: shapes are simple, the same few kinds recur, there is no clutter outside the catalogue."
            " Aimed views: the sea shows far fewer things.",
            "people": "None: divers are rendered figures.",
            "use": "Beside real pictures, in training; alone, to test the whole vehicle in the simulator.",
            "misuse": "Figures measured on it say nothing of the sea, and a class known from it alone (diver, pipeline)"
            " was never shown to be found there.",
            "classes": {name: name for name in LABELS},
            "split": {"train": [], "val": []},  # annotations.json has the split of each picture, by realised worlds
            "hashes": _hashes(out, coco),
            "rendered": recipe | {"boxes": {name: count[name] for name in LABELS}},
        },
        multiline_strings=True,
    )


def _rule(rules: Rules) -> str:
    return (
        "By the renderer, exact: boxes surround the visible part of a thing. Left out are things of which less than"
        f" {rules.visible:.0%} is visible, that are shorter than {rules.long:g} px in their longer or"
        f" {rules.short:g} px in their shorter side, that differ by less than {rules.clear:g} of 255 levels from their"
        " surroundings, whose"
        f" contrast × root of pixels over the noise is below {rules.rose:g}, or that get less than {rules.light:g} of"
        " their light through the water."
    )


def _hashes(out: Path, coco: dict[str, Any]) -> dict[str, str]:
    """sha256 of annotations.json, and over a line for each picture: its name, a tab and its own sha256."""
    digest = hashlib.sha256()
    for name in sorted(each["file_name"] for each in coco["images"]):
        digest.update(f"{name}\t{hashlib.sha256((out / name).read_bytes()).hexdigest()}\n".encode())
    labels = hashlib.sha256((out / "annotations.json").read_bytes()).hexdigest()
    return {"labels": labels, "pictures": digest.hexdigest()}
