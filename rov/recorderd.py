"""The recorder's process: everything that is said, and every picture it can keep up with, into a dive."""

from __future__ import annotations

import shutil
import time
from datetime import datetime
from pathlib import Path

import cv2

from rov import __version__
from rov.bus import Pub, Sub, inbox
from rov.dives.dive import DiveWriter
from rov.errors import UserError
from rov.messages import Event, Frame, Health, Tracks
from rov.process import Meter, start
from rov.ring import RingReader

IDLE_MS = 20


def main() -> int:
    process = start()
    config = process.config
    pub = Pub("recorderd", process.root)
    mail = inbox("recorder", process.root)
    frames, ring = Sub(Frame, process.root), RingReader(process.ring)
    folder = Path(config.recording.folder)
    folder.mkdir(parents=True, exist_ok=True)
    quality = [cv2.IMWRITE_JPEG_QUALITY, config.recording.jpeg_quality]
    dive: DiveWriter | None = None
    free_t, meter = 0.0, Meter(time.monotonic_ns())
    while True:
        mail.wait(IDLE_MS)
        stopping = process.stopped.is_set()
        now = time.monotonic_ns()
        try:
            if time.monotonic() - free_t > 1.0:
                free_t = time.monotonic()
                usage = shutil.disk_usage(folder)
                room = usage.free / usage.total > config.recording.disk_free
                if room and dive is None and not stopping:
                    dive = DiveWriter(
                        folder / f"{datetime.now():%Y-%m-%d_%H-%M-%S}.mcap",
                        {"source": config.camera.source, "config_sha256": config.sha256(), "rov": __version__},
                    )
                elif not room and dive is not None:
                    dive.close()
                    dive = None
                    pub.send(
                        _event(now, "disk_full", f"less than {config.recording.disk_free:.0%} of the disk is free")
                    )
            for entry in mail.read():
                if dive is not None:
                    dive.write(entry.topic, entry.message)
                    if isinstance(entry.message, Tracks):
                        dive.annotations(entry.message)
            if dive is not None and frames.update(now) and frames.msg is not None:
                image = ring.read(frames.msg)
                if image is not None:
                    dive.picture(frames.msg.frame_t, cv2.imencode(".jpg", image, quality)[1].tobytes())
                    meter.add((time.monotonic_ns() - frames.msg.frame_t) / 1e6)
            if dive is not None:
                dive.tick()
        except UserError as error:  # the disk refuses; what is written so far can be recovered, and control goes on
            dive = None
            pub.send(_event(now, "recording_failed", str(error)))
        if meter.due(now):
            hz, ms = meter.read(now)
            pub.send(
                Health(t=now, process="recorderd", rate_hz=hz, latency_ms=ms, dropped=ring.missed + mail.malformed)
            )
        if stopping:
            break
    if dive is not None:
        dive.close()
    mail.close()
    pub.close()
    return 0


def _event(now: int, code: str, text: str) -> Event:
    return Event(t=now, level="alarm", source="recorderd", code=code, text=f"not recording: {text}")


if __name__ == "__main__":
    raise SystemExit(main())
