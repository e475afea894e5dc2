"""Labels as a person would draw them: boxes around the visible part of things that are large and clear enough."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sim.scene.render import Renderer, Shots
from sim.scene.things import LABELS


class Rules(NamedTuple):
    """Limits for a label; stated in the data card."""

    visible: float = 0.25
    """Least unoccluded share of the thing's pixels in the picture."""
    long: int = 8
    """Least longer side of the box, px."""
    short: int = 3
    """Least shorter side, px."""
    clear: float = 8.0
    """Least contrast with its surroundings, levels of 255: the difference of the means in some channel, or half of how
    much more its pixels vary. A judgement by pictures with their boxes."""
    rose: float = 5.0
    """Least contrast times the root of its pixels, over the noise around it: below that nobody finds a disc in noise
    (Rose 1948)."""
    light: float = 0.02
    """Least share of its light that the water lets through, in the clearest channel."""


class Label(NamedTuple):
    thing: int
    name: str
    box: tuple[int, int, int, int]
    """x1 y1 x2 y2 in pixels; the last ones exclusive."""
    pixels: int
    visible: float
    contrast: float


def labels(renderer: Renderer, shots: Shots, rules: Rules | None = None) -> list[list[Label]]:
    """The labels of each row of `shots`, which must be rendered with `alone=True`."""
    rules = rules or Rules()
    images, segments = shots.image.cpu().numpy(), shots.segmentation.cpu().numpy()
    depths, alone = shots.depth.cpu().numpy(), shots.alone.cpu().numpy()
    ahead = renderer.rays[2].cpu().numpy().reshape(depths.shape[1:])
    found = []
    for row, (image, segment) in enumerate(zip(images, segments, strict=True)):
        scene = 0 if len(renderer.scenes) == 1 else row
        kinds = renderer.things.label[scene].cpu().numpy()
        lets_through = float(renderer.air.blurred[:, scene].min())
        here = []
        for one in np.unique(segment[segment > 0]):
            thing = int(one) - 1
            mask = segment == one
            pixels, kind = int(mask.sum()), int(kinds[thing])
            ys, xs = np.nonzero(mask)
            box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
            sides = sorted((box[2] - box[0], box[3] - box[1]))
            visible = pixels / max(1, int(alone[row, thing]))
            if kind < 0 or visible < rules.visible or sides[0] < rules.short or sides[1] < rules.long:
                continue
            distance = float(np.median(depths[row][mask] / ahead[mask]))
            contrast, noise = stands_out(image, mask, box)
            found_in_noise = contrast * np.sqrt(pixels) >= rules.rose * noise
            if contrast >= rules.clear and found_in_noise and np.exp(-lets_through * distance) >= rules.light:
                here.append(Label(thing, LABELS[kind], box, pixels, visible, contrast))
        found.append(here)
    return found


def stands_out(image: np.ndarray, mask: np.ndarray, box: tuple[int, int, int, int]) -> tuple[float, float]:
    """Contrast of the masked pixels with those around them, and the noise there, in levels.

    Both come from the finished picture, after water, light, exposure and noise, because that is all a labeller sees.
    The noise is measured between neighbours, so that a gradient does not count.
    """
    edge = max(3, (box[2] - box[0] + box[3] - box[1]) // 12)
    y1, x1 = max(0, box[1] - edge), max(0, box[0] - edge)
    part = image[y1 : box[3] + edge, x1 : box[2] + edge].astype(np.float64)
    inside = mask[y1 : box[3] + edge, x1 : box[2] + edge]
    own, around = part[inside], part[~inside]
    if not len(around):
        return float("inf"), 0.0
    both = ~(inside[:, 1:] | inside[:, :-1])
    steps = (part[:, 1:] - part[:, :-1])[both]
    noise = float(np.median(np.abs(steps)) / 0.954) if len(steps) else 0.0  # of a difference of two: 0.6745 √2 σ
    varied = (own.std(0) - around.std(0)).max() / 2
    return float(max(np.abs(own.mean(0) - around.mean(0)).max(), varied)), noise
