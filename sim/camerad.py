"""The simulated camera, in camerad's place: `camera.source = "process:python -m sim.camerad …"`.

It draws the view from the vehicle of `sim.live`, as fast as it can, but not faster than `perception.rate_hz`. Where
that takes longer than a camera does, it draws ahead: what the vehicle will see by then, stamped with that moment.
It takes camerad's arguments and publishes camerad's messages, so that perception needs no change.
"""

from __future__ import annotations

import math
import pickle
import statistics
import sys
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
import zmq

from rov.bus import Publisher
from rov.media.ring import RingWriter
from rov.messages import Event, Frame, Health
from rov.service.process import RateMeter, run_main, start
from sim.scene.lens import Lens
from sim.scene.render import Renderer
from sim.scene.scene import Scene
from sim.tasks.scenes import carried

Vector = tuple[float, float, float]
LATENCY_NS = 50_000_000
"""From the moment that a picture shows to its arrival: no longer than this, if drawing ahead can help. A judgement, of
a camera on USB or CSI."""
AHEAD_MAX_NS = 150_000_000
"""Farther ahead than this nothing is drawn: a vehicle that starts at 0.5 m/s² is 6 mm away from the guess by then."""


class View(NamedTuple):
    """What the camera looks at, and through which lens; it takes this from a file that `sim.live` writes."""

    title: str
    scene: Scene
    lens: Lens


class Pose(msgspec.Struct, frozen=True):
    """Pose of the vehicle at `t` ns (monotonic), as sent by `sim.live`."""

    t: int
    position: Vector
    attitude: tuple[float, float, float, float]
    velocity: Vector
    """NED, m/s."""
    rates: Vector
    seconds: float
    """Time of the world, s."""
    target: tuple[Vector, Vector] | None = None
    """Where the scene's first thing is, NED in m, and how it moves, m/s: it points there. None: where the scene has it.
    """

    def at(self, t: int) -> Pose:
        """The pose at `t` ns, moving and turning on as it does."""
        dt = (t - self.t) / 1e9
        target = self.target and (_moved(*self.target, dt), self.target[1])
        return Pose(
            t, _moved(self.position, self.velocity, dt), self._turned(dt), self.velocity, self.rates,
            self.seconds + dt, target,
        )  # fmt: skip

    def _turned(self, dt: float) -> tuple[float, float, float, float]:
        """The attitude after `dt` s of the same rates: times the quaternion of that turn."""
        rate = math.hypot(*self.rates)
        half = rate * dt / 2
        scale = math.sin(half) / rate if rate else 0.0
        (w, x, y, z), c, (p, q, r) = self.attitude, math.cos(half), (each * scale for each in self.rates)
        return (
            w * c - x * p - y * q - z * r,
            w * p + x * c + y * r - z * q,
            w * q - x * r + y * c + z * p,
            w * r + x * q - y * p + z * c,
        )


def _moved(position: Vector, velocity: Vector, dt: float) -> Vector:
    (n, e, d), (vn, ve, vd) = position, velocity
    return n + vn * dt, e + ve * dt, d + vd * dt


def main() -> int:
    endpoint, file = sys.argv[1:3]
    del sys.argv[1:3]  # camerad's own arguments follow
    process = start(expendable=200)
    torch.set_num_threads(1)
    view: View = pickle.loads(Path(file).read_bytes())  # our own process wrote it, into a folder of its own
    camera, lens = Renderer([view.scene], view.lens), view.lens
    pub, meter = Publisher("camerad", process.root), RateMeter(time.monotonic_ns())
    ring = RingWriter(process.ring, lens.width, lens.height)
    poses: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
    poses.setsockopt(zmq.CONFLATE, 1)
    poses.setsockopt(zmq.SUBSCRIBE, b"")
    poses.connect(endpoint)
    decode = msgspec.msgpack.Decoder(Pose).decode
    period = int(1e9 / process.config.perception.rate_hz)
    frame_id, due, opened = -1, time.monotonic_ns(), False
    drawn: deque[int] = deque([0], maxlen=5)
    """How long the last pictures took, ns."""
    while not process.stopped.is_set():
        wait_ms = max(0, due - time.monotonic_ns()) // 1_000_000
        if process.stopped.wait(wait_ms / 1000) or not poses.poll(100):
            now = time.monotonic_ns()
        else:
            began, pose = time.monotonic_ns(), decode(poses.recv())
            ahead = began - pose.t + round(statistics.median(drawn)) - LATENCY_NS
            pose = pose.at(pose.t + min(max(ahead, 0), AHEAD_MAX_NS))
            due = max(due + period, time.monotonic_ns() - period)
            if pose.target is not None:
                place, velocity = pose.target
                heading = math.atan2(velocity[1], velocity[0])
                camera.things = carried(camera.things, torch.tensor([place]), torch.tensor([heading]))
            shots = camera.render(
                torch.tensor([pose.position]),
                torch.tensor([pose.attitude]),
                pose.seconds,
                torch.tensor([pose.rates]),
            )
            drawn.append(time.monotonic_ns() - began)
            process.stopped.wait((pose.t - time.monotonic_ns()) / 1e9)  # no picture comes before its moment
            frame_id += 1
            slot = ring.write(np.ascontiguousarray(shots.image[0].numpy()), frame_id, pose.t)
            now = time.monotonic_ns()
            pub.publish(
                Frame(t=now, frame_id=frame_id, frame_t=pose.t, width=lens.width, height=lens.height, slot=slot)
            )
            meter.add((now - pose.t) / 1e6)
            if not opened:
                opened = True
                text = f"{view.title}: {lens.width}×{lens.height}"
                pub.publish(Event(t=now, level="info", source="camera", code="camera_open", text=text))
        if meter.due(now):
            hz, ms = meter.read(now)
            pub.publish(Health(t=now, process="camerad", rate_hz=hz, latency_ms=ms, dropped=pub.dropped.total()))
    ring.close()
    pub.close()
    return 0


if __name__ == "__main__":
    run_main(main)
