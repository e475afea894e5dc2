"""The stage that fits the sea's noise to what encoder, detector and tracker say of rendered pictures (sights.py): of
the maps in noise_of_maps.py, of the tracks in noise_of_tracks.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import msgspec
import torch

from models.policy.noise_of_maps import fit_range
from models.policy.noise_of_tracks import fit_tracks
from models.policy.recipe import NoiseRecipe, claim
from models.policy.sights import Watched, watch
from models.policy.workers import quiet
from rov.resources import find_resource
from sim.tasks.noise import FILE, Noise, load
from sim.tasks.scenes import look

Progress = Callable[[str, int, int], None]


def run(recipe: NoiseRecipe, folder: Path, encoder: Path, workers: int, progress: Progress) -> Path:
    """Watch and fit; returns the noise file."""
    claim(folder, recipe)
    worlds = [str(find_resource(each, Path.cwd())) if each.endswith(".toml") else each for each in recipe.worlds]
    tracked = [task for task in recipe.tasks if task in ("follow", "transit")]
    by_day = [world for world in worlds if not look(world, 0).night]  # as both are learned
    jobs = [(task, world, seed, False) for seed in range(recipe.seeds) for world in worlds for task in recipe.tasks]
    more = range(recipe.seeds, recipe.follow_seeds) if "follow" in tracked else ()
    jobs += [("follow", world, seed, False) for seed in more for world in by_day]
    jobs += [(task, world, seed, True) for seed in range(recipe.seeds) for world in by_day for task in tracked]
    seen_by: dict[str, list[Watched]] = {}
    usual: list[Watched] = []
    with ProcessPoolExecutor(max(1, workers), mp_context=get_context("spawn"), initializer=quiet) as pool:
        futures = [pool.submit(watch, recipe, encoder, *job) for job in jobs]
        for number, (job, future) in enumerate(zip(jobs, futures, strict=True)):
            task, _, seed, turbid = job
            seen_by.setdefault(task, []).append(future.result())
            usual += [] if turbid or seed >= recipe.seeds else [future.result()]
            progress("watching", number + 1, len(jobs))
    every = [each for some in seen_by.values() for each in some]
    pipes = [each.cells for each in seen_by.get("inspect", [])]
    posts, followed = ([each for each in seen_by.get(task, []) if not each.night] for task in ("transit", "follow"))
    before = load()
    made = Noise(
        f"fitted to {sum(each.dt.numel() * recipe.vehicles for each in every)} rendered pictures of "
        f"{', '.join(Path(world).stem for world in worlds)}; target_shown, size_swing, score_error, stones and "
        "displacement by hand",
        fit_range([each.cells for each in usual], pipes, torch.cat([each.dt for each in usual]), before.range),
        fit_tracks(followed, before.tracks),
        fit_tracks(posts, before.posts),
        before.displacement,
    )
    path = folder / "noise.toml"
    path.write_text(written(made))
    return path


def written(noise: Noise) -> str:
    """The numbers in the words of the shipped file, which says what they mean."""
    lines, table = [], {"source": json.dumps(noise.source)}
    for line in FILE.read_text().splitlines():
        if line.startswith("["):
            numbers = msgspec.to_builtins(getattr(noise, line[1:].partition("]")[0]))
            table = {name: f"{value:.3g}" for name, value in numbers.items()}
        name, is_number, rest = line.partition(" = ")
        _, is_remark, remark = rest.partition("#")
        if is_number:
            line = f"{name} = {table.pop(name)}" + (f"  # {remark.strip()}" if is_remark and name != "source" else "")
        lines.append(line)
    return "\n".join(lines) + "\n"
