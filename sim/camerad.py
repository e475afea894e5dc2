"""The simulated camera, in camerad's place: `camera.source = "process:python -m sim.camerad …"`.

It draws the view from the vehicle of `python -m sim run`, as fast as it can, but not faster than `perception.rate_hz`.
It takes camerad's arguments and publishes camerad's messages, so that perception needs no change.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import torch
import zmq

from rov.bus import Publisher
from rov.media.ring import RingWriter
from rov.messages import Event, Frame, Health
from rov.service.process import RateMeter, run_main, start
from sim.scene.render import Renderer
from sim.world import load, realise, through


class Pose(msgspec.Struct, frozen=True):
    """Pose of the vehicle at `t` ns (monotonic), as sent by `sim.live`."""

    t: int
    position: tuple[float, float, float]
    attitude: tuple[float, float, float, float]
    rates: tuple[float, float, float]
    seconds: float
    """Time of the world, s."""


def main() -> int:
    endpoint, world, seed, width, height, lens = sys.argv[1:7]
    del sys.argv[1:7]  # camerad's own arguments follow
    process = start(expendable=200)
    torch.set_num_threads(1)
    place = realise(through(load(world), Path(lens) if lens else None), int(seed))
    camera = Renderer([place.scene], place.lens(int(width), int(height)))
    pub, meter = Publisher("camerad", process.root), RateMeter(time.monotonic_ns())
    ring = RingWriter(process.ring, int(width), int(height))
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
                Frame(t=now, frame_id=frame_id, frame_t=pose.t, width=int(width), height=int(height), slot=slot)
            )
            meter.add((now - pose.t) / 1e6)
            if not opened:
                opened = True
                text = f"{world}, seed {seed}: {width}×{height}"
                pub.publish(Event(t=now, level="info", source="camera", code="camera_open", text=text))
        if meter.due(now):
            hz, ms = meter.read(now)
            pub.publish(Health(t=now, process="camerad", rate_hz=hz, latency_ms=ms, dropped=pub.dropped.total()))
    ring.close()
    pub.close()
    return 0


if __name__ == "__main__":
    run_main(main)
