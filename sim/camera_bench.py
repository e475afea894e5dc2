"""Speed of the simulated camera: pictures per second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from sim.scene.render import Renderer
from sim.world import load, realise

SIZES = ((64, 48), (160, 120), (640, 480))
NUMBERS = (1, 64, 1024)
PIXELS_MAX = 25_000_000
"""Larger batches are not measured on a CPU, which renders row by row: no faster than smaller batches."""


class CameraSpeed(NamedTuple):
    size: tuple[int, int]
    cameras: int
    fps: float | None
    """Frames per second of all cameras together; None where it was not measured."""


def camera_bench(world: str, device: str, seconds: float, step: Callable[[], None]) -> list[CameraSpeed]:
    """Measure all sizes and numbers of cameras in one world of seed 1, each for at least `seconds`."""
    place = realise(load(world), 1)
    measured = []
    for size in SIZES:
        renderer = Renderer([place.scene], place.lens(*size), device)
        for number in NUMBERS:
            if device == "cpu" and number * size[0] * size[1] > PIXELS_MAX:
                measured.append(CameraSpeed(size, number, None))
                step()
                continue
            heading = torch.linspace(-0.3, 0.3, number)
            position = torch.tensor(place.start).repeat(number, 1)
            position[:, 0] += torch.linspace(0, 2, number)
            attitude = torch.stack((torch.cos(heading / 2), *torch.zeros(2, number), torch.sin(heading / 2)), 1)

            def shoot(
                t: float, renderer: Renderer = renderer, pose: tuple[torch.Tensor, ...] = (position, attitude)
            ) -> None:
                renderer.render(pose[0], pose[1], t)
                if device != "cpu":
                    torch.cuda.synchronize()

            shoot(0.0)
            start, count = time.perf_counter(), 0
            while count == 0 or time.perf_counter() - start < seconds:
                shoot(0.05 * count)
                count += 1
            measured.append(CameraSpeed(size, number, count * number / (time.perf_counter() - start)))
            step()
    return measured
