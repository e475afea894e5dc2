"""How well the policy lets go: pictures that must end it, drifting about, and what it does on real video.

`python -m sim disengagement`. The daemon's own policy sees rendered pictures from a vehicle that drifts about; in clips
they then turn black, blinded, covered, frozen, or to the world above the water.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from rov.config.schema import Config
from rov.media.films import Video
from rov.messages import Frame, Tracks, VehicleState
from rov.steering.policy import Policy
from rov.steering.policy_model import PolicyModel
from rov.types import Image
from sim.scene.render import Renderer
from sim.world import RealisedWorld, load, realise

HZ, WIDTH, HEIGHT = 10, 160, 120
AGE_NS = 60_000_000
CLIP_S, WITHIN_S = 2.0, 1.0
"""Good pictures before a clip is spoiled, and the time in which the policy must let go."""
RUN_S = 60.0
"""Length of a run of drifting about; each has a world and a seed of its own."""
FIRST_SEED = 1_000_000
"""No seed from here on was trained on."""
CLEARANCE_M = 0.5
Spoiler = Callable[[Image, int, np.random.Generator], Image]


class Verdict(NamedTuple):
    """What was measured."""

    clips: dict[str, int]
    caught: dict[str, int]
    """Clips that ended the policy within WITHIN_S, by kind."""
    drifted_s: float
    """Without a spoiled picture, and without steering: harder than a course, for the heading leaves its goal, and
    nothing happens as the policy says. How often it lets go where it steers is counted by `python -m sim evaluate`."""
    ended: int
    """How often that ended the policy."""
    reasons: dict[str, int]
    """Why it did."""


class Watcher:
    """The policy on a stream of pictures, engaged from the first one on."""

    def __init__(self, model: PolicyModel, config: Config, hfov_deg: float):
        camera = config.camera.model_copy(update={"hfov_deg": hfov_deg})
        task = config.task.model_copy(update={"name": "transit", "heading_deg": 0.0, "depth": 2.0})
        self.config = config.model_copy(update={"camera": camera, "task": task})
        self.policy, self.number = Policy(model), 0
        self.policy.engage(True)

    def see(self, image: Image, state: VehicleState, t: int) -> str:
        """Why the policy must not steer now, or ""."""
        self.number += 1
        height, width = image.shape[:2]
        frame = Frame(t=t, frame_id=self.number, frame_t=t - AGE_NS, width=width, height=height)
        tracks = Tracks(t=t, frame_id=self.number, frame_t=t - AGE_NS, width=width, height=height)
        self.policy.receive_state(state)
        steered = self.policy.step(frame, image, tracks, None, self.config, None, t)
        assert steered is not None, "the state is always there"
        return steered[1].unfit


# ---- pictures --------------------------------------------------------------------------------------------------------


def drifting(place: RealisedWorld, seconds: float, random: np.random.Generator) -> Iterator[tuple[Image, VehicleState]]:
    """Pictures and states, HZ a second, from a vehicle that drifts about smoothly in a world."""
    renderer = Renderer([place.scene], place.lens(WIDTH, HEIGHT))
    position, heading = np.array(place.start), place.heading
    speed, turning, tilt = np.zeros(3), 0.0, np.zeros(2)
    low = np.array([place.walls[0], place.walls[2], 0.0]) + CLEARANCE_M
    high = np.array([place.walls[1], place.walls[3], place.bottom]) - CLEARANCE_M
    keep = math.exp(-1 / HZ / 3.0)  # speeds change over 3 s
    for i in range(round(seconds * HZ)):
        speed = keep * speed + math.sqrt(1 - keep**2) * random.normal(0, (0.25, 0.15, 0.1))
        turning = keep * turning + math.sqrt(1 - keep**2) * random.normal(0, 0.25)
        tilt = keep * tilt + math.sqrt(1 - keep**2) * random.normal(0, 0.04, 2)
        heading += turning / HZ
        ahead = np.array([math.cos(heading), math.sin(heading), 0.0])
        across = np.array([-ahead[1], ahead[0], 0.0])
        position = np.clip(position + (ahead * speed[0] + across * speed[1] + [0, 0, speed[2]]) / HZ, low, high)
        t = round((100 + i / HZ) * 1e9)
        attitude, rates = quaternion(tilt[0], tilt[1], heading), torch.tensor([[0.0, 0.0, turning]])
        shots = renderer.render(torch.from_numpy(position)[None], attitude[None], i / HZ, rates)
        state = VehicleState(
            t=t,
            attitude_t=t - AGE_NS,
            roll=float(tilt[0]),
            pitch=float(tilt[1]),
            yaw=heading,
            rates=(0.0, 0.0, turning),
            depth_t=t - AGE_NS,
            depth=float(position[2]),
            battery_v=15.4,
        )
        yield np.ascontiguousarray(shots.image[0].numpy()), state


def quaternion(roll: float, pitch: float, yaw: float) -> torch.Tensor:
    """(4,) w x y z, body to world."""
    (sr, sp, sy), (cr, cp, cy) = np.sin(np.array((roll, pitch, yaw)) / 2), np.cos(np.array((roll, pitch, yaw)) / 2)
    w, x = cr * cp * cy + sr * sp * sy, sr * cp * cy - cr * sp * sy
    y, z = cr * sp * cy + sr * cp * sy, cr * cp * sy - sr * sp * cy
    return torch.tensor([w, x, y, z])


def noisy(grey: np.ndarray, random: np.random.Generator, deviation: float = 1.5) -> Image:
    """Brightness (H, W, 3) 0..255 with a sensor's noise."""
    return np.asarray((grey + random.normal(0, deviation, grey.shape)).clip(0, 255).astype(np.uint8))


def black(image: Image, i: int, random: np.random.Generator) -> Image:
    """No light: what the sensor itself makes."""
    return noisy(np.full(image.shape, 2.0), random)


def blinded(image: Image, i: int, random: np.random.Generator) -> Image:
    """A lamp or the sun in the lens: all but the edge is at the upper end, the picture shines through."""
    y, x = np.mgrid[-1 : 1 : image.shape[0] * 1j, -1 : 1 : image.shape[1] * 1j]
    glare = 420 * np.exp(-(((x - 0.2) ** 2 + (y + 0.1) ** 2) / 2))
    return noisy(0.4 * image + glare[:, :, None], random)


def covered(image: Image, i: int, random: np.random.Generator) -> Image:
    """A hand or a bag before the lens: one dull colour, out of focus, shaded to one side."""
    shade = np.linspace(0.9, 1.1, image.shape[1])[None, :, None]
    return noisy(np.array([55.0, 70.0, 95.0]) * shade * np.ones((image.shape[0], 1, 1)), random)


def frozen(image: Image, i: int, random: np.random.Generator) -> Image:
    """The last picture again and again."""
    return image


def out_of_water(image: Image, i: int, random: np.random.Generator) -> Image:
    """On deck: a bright sky, a swaying horizon, planks in perspective."""
    height, width = image.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(float)
    horizon = height * (0.45 + 0.1 * math.sin(i / 5)) + (x - width / 2) * 0.15 * math.sin(i / 7)
    below = (y - horizon).clip(1, None)
    planks = 0.5 + 0.5 * np.sign(np.sin(14 * (x - width / 2) / below)) * (below > 4)
    sky = np.array([245.0, 225.0, 205.0]) * (0.75 + 0.25 * (y / height))[:, :, None]
    deck = np.array([90.0, 130.0, 170.0]) * (0.6 + 0.4 * planks)[:, :, None]
    return noisy(np.where((y > horizon)[:, :, None], deck, sky), random)


SPOILERS: dict[str, Spoiler] = {
    "black": black,
    "blinded": blinded,
    "covered": covered,
    "frozen": frozen,
    "out_of_water": out_of_water,
}


# ---- measuring -------------------------------------------------------------------------------------------------------


def measure(
    model: PolicyModel,
    config: Config,
    worlds: list[str],
    clips: int,
    minutes: float,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Verdict:
    """Show `clips` spoiled clips of each kind and `minutes` of drifting about, in turn in each of the worlds."""
    caught, shown, reasons, ended, seed = Counter[str](), Counter[str](), Counter[str](), 0, FIRST_SEED
    for kind, spoil in SPOILERS.items():
        for i in range(clips):
            progress(kind)
            seed += 1
            place = realise(load(worlds[i % len(worlds)]), seed)
            caught[kind] += lets_go(model, config, place, spoil, np.random.default_rng(seed))
            shown[kind] += 1
    runs = round(minutes * 60 / RUN_S)
    for i in range(runs):
        progress("drifting")
        seed += 1
        place = realise(load(worlds[i % len(worlds)]), seed)
        for why in ends(model, config, place, np.random.default_rng(seed)):
            ended += 1
            reasons[f"{place.name}: {why.partition(' (')[0]}"] += 1
    return Verdict(dict(shown), dict(caught), runs * RUN_S, ended, dict(reasons))


def lets_go(
    model: PolicyModel, config: Config, place: RealisedWorld, spoil: Spoiler, random: np.random.Generator
) -> bool:
    """Whether the policy ends within WITHIN_S of the first spoiled picture."""
    watcher, last = Watcher(model, config, place.hfov_deg), None
    normal = round(CLIP_S * HZ)
    for i, (image, state) in enumerate(drifting(place, CLIP_S + WITHIN_S, random)):
        last = image if i < normal or last is None else last
        seen = image if i < normal else spoil(last if spoil is frozen else image, i, random)
        if watcher.see(seen, state, state.t) and i >= normal:
            return True
    return False


def ends(model: PolicyModel, config: Config, place: RealisedWorld, random: np.random.Generator) -> Iterator[str]:
    """Why the policy ended while the vehicle drifted about, each time; it is engaged again once it may steer."""
    watcher, before = Watcher(model, config, place.hfov_deg), ""
    for image, state in drifting(place, RUN_S, random):
        unfit = watcher.see(image, state, state.t)
        if unfit and not before:
            yield unfit
        before = unfit


def on_video(model: PolicyModel, config: Config, path: Path, frames: int = 600) -> dict[str, float]:
    """Share of a real video's pictures in which the policy must not steer, by reason; the vehicle seems to rest."""
    watcher, found, last, count = Watcher(model, config, config.camera.hfov_deg), Counter[str](), -1.0, 0
    for shot in Video(path).shots():
        if shot.t / 1e9 - last < 1 / HZ - 0.01:
            continue
        last, t = shot.t / 1e9, shot.t + 100_000_000_000
        state = VehicleState(t=t, attitude_t=t - AGE_NS, depth_t=t - AGE_NS, depth=3.0)
        found[watcher.see(shot.image, state, t).partition(" (")[0]] += 1
        if (count := count + 1) >= frames:
            break
    return {why or "steers": round(n / count, 4) for why, n in found.items()}


def write(verdict: Verdict, videos: dict[str, dict[str, float]], out: Path) -> None:
    """Write the result as JSON."""
    out.write_text(json.dumps(verdict._asdict() | {"videos": videos}, indent=1) + "\n")
