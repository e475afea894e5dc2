"""The camera's process: writes the newest frame into the ring and announces it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from rov.bus import Publisher
from rov.errors import UserError
from rov.host.placement import pin
from rov.media.camera import Camera
from rov.media.files import TimedFrame
from rov.media.films import Video
from rov.media.ring import RingWriter
from rov.media.sources import CaptureSettings, Film, parse_camera_source
from rov.messages import Event, Frame, Health
from rov.service.process import RateMeter, run_main, start

RING_PAUSE_NS = 1_000_000_000
"""Pause before memory for the ring is requested again."""


class RingOutput:
    """The frame ring, made with the first frame; without memory for it, reports that once and tries again."""

    def __init__(self, path: Path, pub: Publisher):
        self.path, self.pub = path, pub
        self.writer: RingWriter | None = None
        self.refused_t: int | None = None
        """When memory was last refused; None: it was granted."""

    def write(self, frame: TimedFrame, now: int) -> int | None:
        """Write a frame at `now` (monotonic ns); returns its slot, None when there is no memory."""
        if self.refused_t is not None and now - self.refused_t < RING_PAUSE_NS:
            return None
        height, width = frame.image.shape[:2]
        try:
            self.writer = self.writer or RingWriter(self.path, width, height)
            slot = self.writer.write(frame.image, frame.frame_id, frame.t)
        except UserError as error:
            if self.refused_t is None:
                self._publish_event(now, "alarm", "no_ring", f"{error}. No frames until there is memory")
            self.refused_t = now
            return None
        if self.refused_t is not None:
            self.refused_t = None
            self._publish_event(now, "info", "no_ring_over", "there is memory for frames again")
        return slot

    def close(self) -> None:
        if self.writer:
            self.writer.close()

    def _publish_event(self, t: int, level: Literal["info", "alarm"], code: str, text: str) -> None:
        self.pub.publish(Event(t=t, level=level, source="camerad", code=code, text=text))


def open_film(path: Path) -> Film:
    """A recorded dive, or a plain video. Raises UserError."""
    if path.suffix.lower() != ".mcap":
        return Video(path)
    from rov.dives.playback import DivePictures  # takes half of our start, and other cameras do without it

    return DivePictures(path)


def main() -> int:
    process = start(expendable=200)
    config = process.config.camera
    pin(process.config.compute, "camera", config.source)
    pub = Publisher("camerad", process.root)
    settings = CaptureSettings(config.width, config.height, config.fps, config.fourcc, open_film=open_film)
    camera = Camera(parse_camera_source(config.source), settings, latency_ms=config.latency_ms)
    ring = RingOutput(process.ring, pub)
    last, meter = -1, RateMeter(time.monotonic_ns())
    while not process.stopped.is_set() and not camera.hopeless:
        new = camera.latest(last, timeout_s=0.1)
        now = time.monotonic_ns()
        if new is not None:
            last, (height, width) = new.frame_id, new.image.shape[:2]
            slot = ring.write(new, now)
            now = time.monotonic_ns()
            if slot is not None:
                pub.publish(Frame(t=now, frame_id=new.frame_id, frame_t=new.t, width=width, height=height, slot=slot))
                meter.add((now - new.t) / 1e6)
        for event in camera.events():
            pub.publish(event)
        if meter.due(now):
            hz, ms = meter.read(now)
            dropped = camera.counts["overwritten"] + camera.counts["damaged"] + pub.dropped.total()
            pub.publish(Health(t=now, process="camerad", rate_hz=hz, latency_ms=ms, dropped=dropped))
    camera.close()
    ring.close()
    pub.close()
    return 0 if process.stopped.is_set() else 1  # hopeless: the supervisor starts a process with new threads


if __name__ == "__main__":
    run_main(main)
