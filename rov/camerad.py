"""The camera's process: the newest frame goes into the ring, and its announcement to whoever looks."""

from __future__ import annotations

import time

from rov.bus import Pub
from rov.machine.placement import pin
from rov.messages import Frame, Health
from rov.process import Meter, enter, start
from rov.ring import RingWriter
from rov.vision.camera import Camera
from rov.vision.sources import Settings, parse_source


def main() -> int:
    process = start(expendable=200)
    wanted = process.config.camera
    pin(process.config.compute, "camera", wanted.source)
    pub = Pub("camerad", process.root)
    settings = Settings(wanted.width, wanted.height, wanted.fps, wanted.fourcc)
    camera = Camera(parse_source(wanted.source), settings, latency_ms=wanted.latency_ms)
    ring: RingWriter | None = None
    last, meter = -1, Meter(time.monotonic_ns())
    while not process.stopped.is_set() and not camera.hopeless:
        shot = camera.latest(last, timeout_s=0.1)
        now = time.monotonic_ns()
        if shot is not None:
            last, (height, width) = shot.frame_id, shot.image.shape[:2]
            ring = ring or RingWriter(process.ring, width, height)
            slot = ring.write(shot.image, shot.frame_id, shot.t)
            now = time.monotonic_ns()
            pub.send(Frame(t=now, frame_id=shot.frame_id, frame_t=shot.t, width=width, height=height, slot=slot))
            meter.add((now - shot.t) / 1e6)
        for event in camera.events():
            pub.send(event)
        if meter.due(now):
            hz, ms = meter.read(now)
            dropped = camera.counts["overwritten"] + camera.counts["damaged"] + pub.dropped.total()
            pub.send(Health(t=now, process="camerad", rate_hz=hz, latency_ms=ms, dropped=dropped))
    camera.close()
    if ring:
        ring.close()
    pub.close()
    return 0 if process.stopped.is_set() else 1  # hopeless: a new process gets new threads


if __name__ == "__main__":
    enter(main)
