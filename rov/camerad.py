"""The camera's process: the newest frame goes into the ring, and its announcement to whoever looks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from rov.bus import Publisher
from rov.dives.playback import open_film
from rov.errors import UserError
from rov.host.placement import pin
from rov.media.camera import Camera
from rov.media.files import TimedFrame
from rov.media.ring import RingWriter
from rov.media.sources import CaptureSettings, parse_camera_source
from rov.messages import Event, Frame, Health
from rov.service.process import RateMeter, run_main, start

RING_PAUSE_NS = 1_000_000_000
"""Before memory is asked for again."""


class RingOutput:
    """The frame ring, made with the first frame; where there is no memory for it, that is said once and tried again."""

    def __init__(self, path: Path, pub: Publisher):
        self.path, self.pub = path, pub
        self.writer: RingWriter | None = None
        self.refused_t: int | None = None
        """When memory was refused last; None: it was not."""

    def write(self, shot: TimedFrame, now: int) -> int | None:
        """The slot of the picture; None where there is no room for it."""
        if self.refused_t is not None and now - self.refused_t < RING_PAUSE_NS:
            return None
        height, width = shot.image.shape[:2]
        try:
            self.writer = self.writer or RingWriter(self.path, width, height)
            slot = self.writer.write(shot.image, shot.frame_id, shot.t)
        except UserError as error:
            if self.refused_t is None:
                self._say(now, "alarm", "no_ring", f"{error}. Until there is room, nothing is seen")
            self.refused_t = now
            return None
        if self.refused_t is not None:
            self.refused_t = None
            self._say(now, "info", "no_ring_over", "there is room for frames again")
        return slot

    def close(self) -> None:
        if self.writer:
            self.writer.close()

    def _say(self, t: int, level: Literal["info", "alarm"], code: str, text: str) -> None:
        self.pub.publish(Event(t=t, level=level, source="camerad", code=code, text=text))


def main() -> int:
    process = start(expendable=200)
    wanted = process.config.camera
    pin(process.config.compute, "camera", wanted.source)
    pub = Publisher("camerad", process.root)
    settings = CaptureSettings(wanted.width, wanted.height, wanted.fps, wanted.fourcc, open_film=open_film)
    camera = Camera(parse_camera_source(wanted.source), settings, latency_ms=wanted.latency_ms)
    ring = RingOutput(process.ring, pub)
    last, meter = -1, RateMeter(time.monotonic_ns())
    while not process.stopped.is_set() and not camera.hopeless:
        shot = camera.latest(last, timeout_s=0.1)
        now = time.monotonic_ns()
        if shot is not None:
            last, (height, width) = shot.frame_id, shot.image.shape[:2]
            slot = ring.write(shot, now)
            now = time.monotonic_ns()
            if slot is not None:
                pub.publish(Frame(t=now, frame_id=shot.frame_id, frame_t=shot.t, width=width, height=height, slot=slot))
                meter.add((now - shot.t) / 1e6)
        for event in camera.events():
            pub.publish(event)
        if meter.due(now):
            hz, ms = meter.read(now)
            dropped = camera.counts["overwritten"] + camera.counts["damaged"] + pub.dropped.total()
            pub.publish(Health(t=now, process="camerad", rate_hz=hz, latency_ms=ms, dropped=dropped))
    camera.close()
    ring.close()
    pub.close()
    return 0 if process.stopped.is_set() else 1  # hopeless: a new process gets new threads


if __name__ == "__main__":
    run_main(main)
