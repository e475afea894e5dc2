"""The batched sea with real pictures: the renderer's frames through encoder, displacement, detector and tracker, as the
daemon does it, instead of their noise models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rov.config.schema import Config
from rov.messages import Detection, Detections
from rov.perception import least_score
from rov.steering.displacement import Displacement, FieldOfView, Reference, displacement, grey_picture, reference
from rov.steering.encoder import Encoder, small_picture
from rov.steering.observation import choose
from rov.steering.policy import GOAL_CLASS, track_rows
from rov.steering.policy_input import Sources
from rov.types import Image
from rov.vision.detector import Detector
from rov.vision.tracker import Tracker
from sim.scene.lens import Lens
from sim.scene.render import Renderer
from sim.tasks import delays, picture_maps
from sim.tasks.scenes import Look, carried, label, scene
from sim.tasks.sea import Sea, Sight
from sim.vehicle import DT

WITH_DETECTOR, WITHOUT = (480, 360), (160, 120)
"""Size of the pictures: what the detector sees, or what the displacement needs."""


class Camera(NamedTuple):
    """Rows whose pictures are made together."""

    rows: Tensor
    renderer: Renderer


class Witness:
    """What perception remembers of one vehicle's pictures."""

    def __init__(self, config: Config, goal: str):
        self.tracker, self.goal = Tracker(config.tracking), goal
        self.followed: int | None = None
        self.last: Reference | None = None
        self.key: Reference | None = None
        self.keyed = Displacement()

    def moved(
        self, grey: Any, attitude: tuple[float, float, float], view: FieldOfView, key: bool
    ) -> tuple[Displacement, Displacement]:
        """Displacements since the last picture and since the key frame, as `rov.steering.policy_model` asks for."""
        now = reference(grey, attitude)
        moved = displacement(self.last, grey, attitude, view) if self.last else Displacement()
        if key:
            self.key, self.keyed = now, Displacement()
        keyed = displacement(self.key, grey, attitude, view, self.keyed) if self.key else Displacement()
        if keyed.confidence > 0:
            self.keyed = keyed
        self.last = now
        return moved, keyed


class RenderedSea(Sea):
    """As `Sea`, with a look for each vehicle. `images` holds the last pictures (N, H, W, 3) BGR."""

    def __init__(
        self, task: str, encoder: Encoder, detector: Detector | None, looks: Sequence[Look], **options: Any
    ) -> None:
        """The detector looks where a task has a goal class that it knows."""
        super().__init__(task, n=len(looks), looks=looks, auto_reset=False, **options)
        self.encoder, self.config = encoder.to(self.device).eval(), delays.config()
        self.detector = detector if detector and _goals(task) & {*detector.card.classes} else None
        self.images: Image = np.zeros((0, 0, 0, 3), np.uint8)
        self.found: list[tuple[Detection, ...]] = []
        """Of the last pictures, the weak ones, too."""
        self.idle: set[int] = set()
        """Vehicles whose episode is over: their last picture stays, which saves most of the time."""

    def reset(self) -> tuple[Sources, Tensor]:
        self.cameras: list[Camera] = []
        self.witnesses: list[Witness] = []
        return super().reset()

    def _prepare(self) -> None:
        """Build the scenes of the courses that have been drawn."""
        assert self.looks is not None
        size = WITH_DETECTOR if self.detector else WITHOUT
        for rows in self._groups():
            hfov = 2 * math.degrees(math.atan(float(self.conditions.view[rows[0], 0])))
            scenes = [scene(self.name, self.course, i, self.looks[i]) for i in rows]
            renderer = Renderer(scenes, Lens.wide(*size, hfov), self.device)
            self.cameras.append(Camera(torch.tensor(rows, device=self.device), renderer))
        for i in range(self.n):
            goal = label(float(self.course.targets.height[i, 0])) if self.name == "follow" else GOAL_CLASS[self.name]
            self.witnesses.append(Witness(self.config, goal))

    def _groups(self) -> list[list[int]]:
        """Rows whose pictures are made together: one by one on a CPU, which gains nothing by more, else by world."""
        assert self.looks is not None
        if self.device.type == "cpu":
            return [[i] for i in range(self.n)]
        worlds = dict.fromkeys(each.world for each in self.looks)
        return [[i for i, each in enumerate(self.looks) if each.world == world] for world in worlds]

    def render(self) -> Image:
        """Pictures (N, H, W, 3) BGR of where the vehicles are now."""
        images: list[Any] = list(self.images) if len(self.images) else [None] * self.n
        for camera in self.cameras:
            rows, state = camera.rows, self.state
            if self.idle.issuperset(rows.tolist()) and images[int(rows[0])] is not None:
                continue
            if self.course.target_ball:
                self._carry_target(camera)
            shots = camera.renderer.render(
                state.position[rows], state.attitude[rows], self.elapsed[rows], state.rates[rows]
            )
            for row, image in zip(rows.tolist(), shots.image.cpu().numpy(), strict=True):
                images[row] = np.ascontiguousarray(image)
        return np.stack(images)

    def _carry_target(self, camera: Camera) -> None:
        """Put the target where it swims: the first thing of each scene."""
        targets = self.course.targets
        ahead = torch.atan2(targets.velocity[camera.rows, 0, 1], targets.velocity[camera.rows, 0, 0])
        camera.renderer.things = carried(camera.renderer.things, targets.position[camera.rows, 0], ahead)

    def _look(self, turn: Tensor, dt: float) -> Sight:
        if not self.cameras:
            self._prepare()
        self.images = self.render()
        with torch.inference_mode():
            self.pictures = torch.cat([small_picture(each) for each in self.images]).to(self.device)
            encoded = self.encoder(self.pictures)
            self.unlike = self.encoder.unlike(encoded.looks)
        key = self.take_key().tolist()
        attitudes, views = self.readings.attitude.tolist(), self.conditions.view.tolist()
        pairs = [
            witness.moved(grey_picture(image), (a[0], a[1], a[2]), FieldOfView(*view), now)
            for witness, image, a, view, now in zip(self.witnesses, self.images, attitudes, views, key, strict=True)
        ]
        moved, keyed = (torch.tensor([pair[i] for pair in pairs], device=self.device) for i in (0, 1))
        depth = picture_maps.optical_depth(self.conditions, self.cast.range)
        self._remember(self._targets(turn), picture_maps.seen(self.noise.range, depth), turn, dt)
        return Sight(
            encoded.inverse_range[:, 0].clone(),
            encoded.log_variance[:, 0].clone(),
            torch.sigmoid(encoded.pipeline[:, 0]),
            self._tracks(),
            moved,
            keyed,
        )

    def _tracks(self) -> Tensor:
        """(N, TRACKS, TRACK) of the goal class, from the detector and the tracker."""
        t, (height, width) = round(self.tick * DT * 1e9), self.images.shape[1:3]
        self.found = self._detect()
        rows = []
        for items, witness, view in zip(self.found, self.witnesses, self.conditions.view.tolist(), strict=True):
            sure, weak = witness.tracker.split(items, self.config.perception.score_min)
            frame = Detections(t=t, frame_id=self.tick, frame_t=t, width=width, height=height, items=sure, weak=weak)
            tracks = witness.tracker.step(frame, t)
            target = choose(tracks, witness.goal, witness.followed)
            witness.followed = None if target is None else target.track_id
            hfov = 2 * math.degrees(math.atan(view[0]))
            rows.append(track_rows(tracks, witness.goal, witness.followed, hfov, None))
        return torch.tensor(rows, device=self.device)

    def _detect(self) -> list[tuple[Detection, ...]]:
        """Detections of each picture."""
        found: list[tuple[Detection, ...]] = [()] * self.n
        if self.detector:
            rows = sorted(set(range(self.n)) - self.idle)
            items = self.detector.detect([self.images[i] for i in rows], least_score(self.config))
            for i, some in zip(rows, items, strict=True):
                found[i] = some
        return found


def _goals(task: str) -> set[str]:
    """The classes that a task's tracks may have."""
    return {"diver", "fish"} if task == "follow" else {GOAL_CLASS[task]}
