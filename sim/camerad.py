"""The simulated camera, in camerad's place: `camera.source = "process:python -m sim.camerad …"`.

It draws the view from the vehicle of `sim.live`, as fast as it can, but not faster than `perception.rate_hz`.
It takes camerad's arguments and publishes camerad's messages, so that perception needs no change.
"""

from __future__ import annotations

import pickle
import sys
import time
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


class View(NamedTuple):
    """What the camera looks at, and through which lens; it takes this from a file that `sim.live` writes."""

    title: str
    scene: Scene
    lens: Lens


class Pose(msgspec.Struct, frozen=True):
    """Pose of the vehicle at `t` ns (monotonic), as sent by `sim.live`."""

    t: int
    position: tuple[float, float, float]
    attitude: tuple[float, float, float, float]
    rates: tuple[float, float, float]
    seconds: float
    """Time of the world, s."""
    target: tuple[float, float, float, float] | None = None
    """Where the scene's first thing is, NED in m, and where it points to, rad; None: where the scene has it."""


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
    while not process.stopped.is_set():
        wait_ms = max(0, due - time.monotonic_ns()) // 1_000_000
        if process.stopped.wait(wait_ms / 1000) or not poses.poll(100):
            now = time.monotonic_ns()
        else:
            pose = decode(poses.recv())
            due = max(due + period, time.monotonic_ns() - period)
            if pose.target is not None:
                *place, ahead = pose.target
                camera.things = carried(camera.things, torch.tensor([place]), torch.tensor([ahead]))
            shots = camera.render(
                torch.tensor([pose.position]),
                torch.tensor([pose.attitude]),
                pose.seconds,
                torch.tensor([pose.rates]),
            )
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
