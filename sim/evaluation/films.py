"""Films of the best, the median and the worst episode of a row, made from where the vehicle was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import torch

from rov.media.overlay import OverlayWriter
from rov.types import Image
from sim.evaluation.episodes import Episode
from sim.evaluation.plan import Chunk, Plan
from sim.evaluation.results import score
from sim.evaluation.run import Models, sea
from sim.scene.lens import Lens
from sim.scene.render import Renderer
from sim.tasks.scenes import carried, look, scene

SIZE, FPS = (320, 240), 5.0
HFOV_DEG = 80.0
LOOK = "reef"
"""World of the films of episodes that were run without pictures and without a world."""


def chosen(episodes: Sequence[Episode]) -> dict[str, Episode]:
    """Best, median and worst by score; the first of equals."""
    order = sorted(episodes, key=lambda each: (score(each), each.episode))
    return {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]} if order else {}


def films(plan: Plan, row: str, episodes: Sequence[Episode], out: Path, notify: Callable[[], None]) -> dict[str, str]:
    """Write the films that are missing into `out`/films; returns their paths in `out` by name."""
    made = {}
    for name, episode in chosen([each for each in episodes if each.row == row]).items():
        chunk = next(each for each in plan.chunks() if episode.episode in each.episodes)
        poses = out / "poses" / f"{row}-{chunk.number}.npz"
        path = out / "films" / f"{row}-{episode.episode}.mp4"
        if not path.exists() and poses.exists():
            path.parent.mkdir(exist_ok=True)
            part = path.with_suffix(".part.mp4")
            film(plan, chunk, episode, np.load(poses), part, notify)
            part.replace(path)
        if path.exists():
            made[name] = f"films/{path.name}"
    return made


def film(plan: Plan, chunk: Chunk, episode: Episode, poses: Any, path: Path, notify: Callable[[], None]) -> None:
    """Write one film; raises UserError where it cannot be written."""
    i = chunk.row(episode.episode)
    water = sea(msgspec.structs.replace(plan, tier=1), chunk, "zero", Models(None, None, None))
    water.reset()
    seen = look(chunk.world or LOOK, chunk.looks_seeds()[i])
    renderer = Renderer([scene(plan.task, water.course, i, seen)], Lens.wide(*SIZE, HFOV_DEG))
    position, attitude = (torch.from_numpy(poses[name][:, i]) for name in ("position", "attitude"))
    elapsed = poses["elapsed"][:, i]
    with OverlayWriter(path, *SIZE, FPS) as writer:
        for t in np.arange(0.0, episode.seconds, 1 / FPS).tolist():
            step = min(int(np.searchsorted(elapsed, t)), len(elapsed) - 1)
            if "target" in poses:
                at = torch.from_numpy(poses["target"][step : step + 1, i])
                renderer.things = carried(renderer.things, at[:, :3], torch.atan2(at[:, 4], at[:, 3]))
            shots = renderer.render(position[step : step + 1], attitude[step : step + 1], t)
            image = np.ascontiguousarray(shots.image[0].numpy())
            writer.write(captioned(image, f"{t:.0f} s  {float(position[step, 2]):.1f} m"), round(t * 1e9))
            notify()


def captioned(image: Image, text: str) -> Image:
    cv2.putText(image, text, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return image
