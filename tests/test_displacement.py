"""Displacement of the picture: what moves sideways, ahead and by turning is told apart, on the simulator's pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rov.steering.displacement import (
    Displacement,
    FieldOfView,
    Reference,
    displacement,
    grey_picture,
    reference,
    rotation,
)
from rov.types import Image
from sim import world
from sim.scene.render import Renderer

HOME = (0.0, 0.0, 0.0)


class Camera:
    """A camera that looks along surge, near the bottom of a world."""

    def __init__(self, name: str, height: float, seed: int = 1):
        place = world.realise(world.load(name), seed)
        lens = place.lens(160, 120)
        self.view = FieldOfView(lens.width / 2 / lens.fx, lens.height / 2 / lens.fy)
        self.renderer, self.heading = Renderer([place.scene], lens), place.heading
        self.base = np.array([*place.start[:2], place.bottom - height])

    def shot(self, ahead: float = 0.0, side: float = 0.0, yaw: float = 0.0) -> Image:
        """The picture from a place `ahead` and `side` of the first one (m), turned by `yaw` (rad)."""
        n, e = math.cos(self.heading), math.sin(self.heading)
        position = self.base + [ahead * n - side * e, ahead * e + side * n, 0.0]
        half = (self.heading + yaw) / 2
        attitude = torch.tensor([[math.cos(half), 0.0, 0.0, math.sin(half)]])
        shots = self.renderer.render(torch.from_numpy(position)[None], attitude, ahead + side, torch.zeros(1, 3))
        return np.asarray(shots.image[0].numpy())

    def moved(self, **pose: float) -> Displacement:
        before = reference(grey_picture(self.shot()), HOME)
        return displacement(before, grey_picture(self.shot(**pose)), (0.0, 0.0, pose.get("yaw", 0.0)), self.view)


@pytest.mark.parametrize(("name", "height"), [("reef", 1.5), ("harbour", 1.0)])
def test_sideways_and_ahead_are_told_apart(name: str, height: float) -> None:
    camera = Camera(name, height)
    side, far = camera.moved(side=0.05), camera.moved(side=0.10)
    assert side.confidence > 0.4 and far.confidence > 0.4
    assert side.dx < -0.003 and far.dx == pytest.approx(2 * side.dx, rel=0.2)  # to starboard: what is seen goes left
    ahead, back = camera.moved(ahead=0.10), camera.moved(ahead=-0.10)
    assert ahead.scale > 0.01 and back.scale < -0.01
    assert abs(ahead.dx) < abs(far.dx) / 4


def test_turning_alone_is_no_displacement() -> None:
    camera = Camera("reef", 1.5)
    turned, moved = camera.moved(yaw=math.radians(5)), camera.moved(side=0.10)
    assert turned.confidence > 0.4
    # Five degrees are 5 % of the width: less than a tenth of it may remain.
    assert abs(turned.dx) < 0.005 < abs(moved.dx)


def test_nothing_to_see_gives_no_answer() -> None:
    random = np.random.default_rng(1)
    dark = random.normal(3, 1, (240, 320, 3)).clip(0, 255).astype(np.uint8)
    other = random.normal(3, 1, (240, 320, 3)).clip(0, 255).astype(np.uint8)
    plain = np.full((240, 320, 3), 90, np.uint8)
    for before, now in ((dark, other), (plain, plain)):
        found = displacement(reference(grey_picture(before), HOME), grey_picture(now), HOME, FieldOfView(0.8, 0.6))
        assert found.confidence < 0.1, found


def test_another_place_gives_no_answer() -> None:
    here, there = Camera("reef", 1.5, seed=1), Camera("reef", 1.5, seed=2)
    before = reference(grey_picture(here.shot()), HOME)
    assert displacement(before, grey_picture(there.shot()), HOME, here.view).confidence < 0.2


def test_the_glow_of_the_lamps_is_not_a_bottom_that_stands_still() -> None:
    """Over a bottom that moved by 8 px lies a glow twelve times as strong, which does not move."""
    random = np.random.default_rng(1)
    bottom = np.repeat(np.repeat(random.uniform(0, 20, (60, 100)), 4, 0), 4, 1)
    y, x = np.mgrid[0:240, 0:320]
    glow = 220 * np.exp(-((x - 160) ** 2 + (y - 90) ** 2) / 80**2)

    def picture(shift: int) -> Image:
        grey = (bottom[:, shift : shift + 320] + glow).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, 2)

    found = displacement(
        reference(grey_picture(picture(0)), HOME), grey_picture(picture(8)), HOME, FieldOfView(0.8, 0.6)
    )
    assert found.confidence > 0.3 and found.dx == pytest.approx(-8 / 320, abs=0.003)


def test_a_guess_finds_what_is_far_away() -> None:
    """A key frame's displacement grows beyond what can be searched for; the last answer leads there."""
    random = np.random.default_rng(2)
    wide = random.integers(0, 255, (30, 80), dtype=np.uint8).repeat(8, 0).repeat(8, 1)

    def picture(shift: int) -> Reference:
        return reference(grey_picture(np.repeat(wide[:, shift : shift + 320, None], 3, 2)), HOME)

    first, view, guess = picture(0), FieldOfView(0.8, 0.6), Displacement()
    for shift in range(0, 101, 10):
        guess = displacement(first, picture(shift).grey, HOME, view, guess)
    assert guess.dx == pytest.approx(-100 / 320, abs=0.02) and guess.confidence > 0.2
    assert displacement(first, picture(100).grey, HOME, view).confidence < guess.confidence


def test_rotation_has_the_axes_of_the_camera() -> None:
    north_east_down = rotation((0.0, 0.0, math.pi / 2))  # facing east
    np.testing.assert_allclose(north_east_down @ [0, 0, 1], [0, 1, 0], atol=1e-12)  # ahead is east
    np.testing.assert_allclose(north_east_down @ [1, 0, 0], [-1, 0, 0], atol=1e-12)  # right is south
    np.testing.assert_allclose(rotation((0.0, 0.3, 0.0)) @ [0, 0, 1], [math.cos(0.3), 0, -math.sin(0.3)], atol=1e-12)
