"""The recorder's process: writes every message, and as many pictures as it can keep up with, into dives."""

from __future__ import annotations

import contextlib
import os
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2

from rov.bus import Publisher, Subscriber, inbox
from rov.config.live import values_of, with_values
from rov.config.schema import Config
from rov.dives import origin
from rov.dives.dive import DiveWriter
from rov.dives.retention import DiskRetention, Notice, RepairThread, free_name, ready, size_of
from rov.errors import UserError
from rov.media.h264_encoder import H264Encoder
from rov.media.ring import RingReader
from rov.messages import ActiveSettings, Clock, Event, Frame, Health, Tracks
from rov.printing import hide_passwords
from rov.resources import find_resource
from rov.service.process import Process, RateMeter, run_main, start
from rov.types import Image
from rov.vision.model_card import load_card
from rov.vision.rectify import open_lens

IDLE_MS = 20
OTHERS = 0o027
"""umask of dives, which show who did what and where: their owner writes them, its group reads them, nobody else."""
DISK_POLL_S = 1.0
"""How often the disk is checked."""
LAST_WORDS_S = 0.3
"""On shutdown, keep recording until no message has arrived for this long."""
LAST_WORDS_MAX_S = 2.0


class DiveRecording:
    """Records one dive after the other while there is room. A disk error ends the dive, never the recorder."""

    def __init__(self, folder: Path, config: Config):
        self.folder, self.config, self.settings = folder, config, config.recording
        self.dive: DiveWriter | None = None
        self.path: Path | None = None
        self.began = 0.0
        self.continues = ""
        self.encoder: H264Encoder | None = None
        self.weights = weights_of(config)
        self.lens = open_lens(config.camera)
        self.lens_written = False

    def apply_settings(self, config: Config) -> None:
        """Use other live values from now on."""
        self.config, self.settings = config, config.recording

    def open(self) -> None:
        """Begin a dive. Raises DiveError."""
        path = free_name(self.folder)
        about = {
            "source": hide_passwords(self.config.camera.source),
            "config_sha256": self.config.sha256(),
            "started_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        about |= {"weights_sha256": self.weights} if self.weights else {}
        about |= {"continues": self.continues} if self.continues else {}
        self.dive = DiveWriter(path, about, attachments=origin.attachments(self.config))
        self.dive.write("clock", clock())
        self.path, self.began, self.continues, self.lens_written = path, time.monotonic(), path.name, False
        h264 = self.settings.codec == "h264"
        self.encoder = H264Encoder(self.config.perception.rate_hz) if h264 else None

    def close(self) -> None:
        """End the dive. Raises DiveError; the dive is closed even then, and can be recovered."""
        dive, self.dive, self.path = self.dive, None, None
        if dive is not None:
            dive.close()

    @property
    def over(self) -> bool:
        """Whether the next file is due: this one is too long, too large or lost."""
        if self.path is None:
            return False
        long = time.monotonic() - self.began > 60 * self.settings.part_minutes
        return long or size_of(self.path) > 1e9 * self.settings.part_gb or bool(self.lost)

    @property
    def lost(self) -> str:
        """A sentence when somebody moved or deleted the dive during its recording, else empty."""
        if self.dive is None or self.path is None or not (what := self.dive.lost):
            return ""
        kept = "what it held is there" if "moved" in what else "what it held is lost"
        return f"{self.path.name} {what} while it was recorded: {kept}; a new dive begins"

    def write(self, topic: str, message: Any) -> None:
        if self.dive is not None:
            self.dive.write(topic, message)
            if isinstance(message, Tracks):
                self.dive.annotations(message)

    def picture(self, frame: Frame, image: Image) -> None:
        if self.dive is None:
            return
        if self.lens is not None and not self.lens_written and self.lens.fits(frame.width, frame.height):
            self.lens_written = True
            self.dive.calibration(frame.frame_t, self.lens.calibration)
        if self.encoder is not None:
            self.dive.picture(frame.frame_t, self.encoder.encode(image), frame.frame_id, "h264")
        else:
            quality = [cv2.IMWRITE_JPEG_QUALITY, self.settings.jpeg_quality]
            self.dive.picture(frame.frame_t, cv2.imencode(".jpg", image, quality)[1].tobytes(), frame.frame_id)


def weights_of(config: Config) -> str:
    """Hash of the network's weights; "" when they are missing, which `perceptiond` reports."""
    try:
        return load_card(find_resource(config.perception.weights)).weights_sha256
    except UserError:
        return ""


def clock() -> Clock:
    """Both clocks now. The time in a dive stays the monotonic one, which nobody can set."""
    return Clock(t=time.monotonic_ns(), utc_ns=time.time_ns())


class Recorder:
    """The process: its sockets, the dive that it writes and the disk, step by step."""

    def __init__(self, process: Process):
        config = process.config
        self.stopped, self.folder = process.stopped, Path(config.recording.folder)
        self.disk_free = config.recording.disk_free
        self.pub, self.mail = Publisher("recorderd", process.root), inbox("recorder", process.root)
        self.frames, self.ring = Subscriber(Frame, process.root), RingReader(process.ring)
        self.recording = DiveRecording(self.folder, config)
        self.retention = DiskRetention(self.folder, config.recording)
        self.repairs: RepairThread | None = None
        self.failed = False
        """Was it reported that recording failed?"""
        self.meter = RateMeter(time.monotonic_ns())
        self.polled = self.received = self.stopping = 0.0
        """When the disk was last looked at, when something last arrived, and since when it stops, s."""

    def step(self) -> None:
        """One pass: the disk, the messages, the newest picture, and what is to be said."""
        if self.mail.wait(IDLE_MS):
            self.received = time.monotonic()
        try:
            if time.monotonic() - self.polled > DISK_POLL_S:
                self.polled = time.monotonic()
                self.look_after_disk()
            self.write_messages()
            self.write_picture()
        except UserError as error:  # a disk error: the dive can be recovered up to here, and recording is tried again
            self.fail(error)
        while self.repairs is not None and not self.repairs.notices.empty():
            self.publish(self.repairs.notices.get())
        self.report_health()

    def look_after_disk(self) -> None:
        """Make room, end the dive that is over or has no room, and begin another. Raises UserError."""
        ready(self.folder)
        if self.repairs is None:
            self.repairs = RepairThread(self.folder, self.disk_free)
            self.repairs.start()
        if self.recording.lost:
            self.publish(Notice("warning", "recording_lost", self.recording.lost))
        for notice in self.retention.poll(self.recording.path):
            self.publish(notice)
        if self.recording.over or not self.retention.room:
            self.recording.close()
        if self.retention.room and self.recording.dive is None and not self.stopping:
            self.open()

    def open(self) -> None:
        """Begin a dive. Raises DiveError."""
        self.recording.open()
        self.publish(Notice("info", "recording", f"recording to {self.recording.path}"))
        if self.failed:
            self.failed = False
            self.publish(Notice("info", "recording_failed_over", "recording again"))

    def write_messages(self) -> None:
        """Raises DiveError."""
        for entry in self.mail.receive():
            if isinstance(entry.message, ActiveSettings):
                settings = values_of(entry.message.settings)
                self.recording.apply_settings(with_values(self.recording.config, settings))
                self.retention.wanted = self.recording.settings
            self.recording.write(entry.topic, entry.message)

    def write_picture(self) -> None:
        """The newest picture, and to the disk what is due. Raises DiveError."""
        dive = self.recording.dive
        fresh = self.frames.receive(time.monotonic_ns())
        if dive is None:
            return
        if fresh and (frame := self.frames.message) is not None and (image := self.ring.read(frame)) is not None:
            self.recording.picture(frame, image)
            self.meter.add((time.monotonic_ns() - frame.frame_t) / 1e6)
        dive.tick()

    def fail(self, error: UserError) -> None:
        """Report once why nothing is recorded, and end the dive."""
        if not self.failed:
            self.failed = True
            self.publish(Notice("alarm", "recording_failed", f"not recording: {error}"))
        with contextlib.suppress(UserError):  # reported already
            self.recording.close()

    def report_health(self) -> None:
        now = time.monotonic_ns()
        if self.meter.due(now):
            hz, ms = self.meter.read(now)
            dropped = self.ring.missed + self.mail.malformed
            self.pub.publish(Health(t=now, process="recorderd", rate_hz=hz, latency_ms=ms, dropped=dropped))
            self.pub.publish(clock())

    def publish(self, notice: Notice) -> None:
        self.pub.publish(Event(t=time.monotonic_ns(), source="recorderd", **notice._asdict()))

    def ended(self) -> bool:
        """Was it asked to stop, and has nothing arrived for a while since?"""
        if not self.stopped.is_set():
            return False
        now = time.monotonic()
        self.stopping = self.stopping or now
        return now - max(self.received, self.stopping) > LAST_WORDS_S or now - self.stopping > LAST_WORDS_MAX_S

    def close(self) -> None:
        """End the dive. Raises DiveError."""
        try:
            self.recording.close()
        finally:
            self.mail.close()
            self.pub.close()


def main() -> int:
    process = start(expendable=400)
    os.umask(os.umask(0) | OTHERS)
    recorder = Recorder(process)
    while not recorder.ended():
        recorder.step()
    recorder.close()
    return 0


if __name__ == "__main__":
    run_main(main)
