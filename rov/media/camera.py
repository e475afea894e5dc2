"""A live camera: one thread reads, the latest frame wins, and a source that ends, fails or falls silent is reopened.

A read that hangs in a driver cannot be interrupted, only abandoned: each attempt to read has its own thread, and frames
of an abandoned one are ignored. While a thread hangs, its device usually cannot be opened again; after ABANDONED_MAX
of them only a new process helps, and `hopeless` is true.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import av
import cv2
import numpy as np

from rov.errors import UserError
from rov.media.files import TimedFrame, must_be_file
from rov.media.sources import POLL_S, CameraSource, CaptureSettings, images
from rov.messages import Event
from rov.printing import hide_passwords
from rov.types import Image

log = logging.getLogger(__name__)

BACK_OFF_S = (0.5, 5.0)
"""Shortest and longest pause before reopening; it doubles with each failure."""
FROZEN_FRAMES = 3
"""This many bit-identical pictures in a row mean that the camera hangs: a live one has noise."""
ABANDONED_MAX = 3
"""Hanging threads before the camera is given up."""


class Camera:
    """Keeps a camera open. `latest` also checks for silence and reopens, so call it continuously."""

    def __init__(
        self,
        source: CameraSource,
        settings: CaptureSettings | None = None,
        *,
        latency_ms: float = 0.0,
        clock: Callable[[], int] = time.monotonic_ns,
    ):
        """Start opening it in the background. `latency_ms`: from the middle of the exposure until the frame arrives.
        Raises UserError for a file that is missing."""
        if source.kind == "file":
            must_be_file(Path(source.target))  # devices and streams may appear later, a file will not
        self.source = source
        self.settings = settings or CaptureSettings()
        self.latency_ms = latency_ms
        self.clock = clock
        self.ended = False
        """The video has ended; it is not reopened."""
        self.opened = False
        """The current attempt has delivered a frame."""
        self.frozen = False
        """The last frames were bit-identical. They are not delivered: the vehicle must not steer by an old picture."""
        self.counts = {"frames": 0, "overwritten": 0, "frozen": 0, "damaged": 0, "attempts": 0}
        self.changed = threading.Condition()  # guards what the reading threads write: all of the following
        self.attempt: _Attempt | None = None
        self.newest: TimedFrame | None = None
        self.taken = -1
        self.identical = 0
        self.previous: Image | None = None
        self.pending: list[Event] = []
        self.abandoned: list[_Attempt] = []
        self.pause_s = BACK_OFF_S[0]
        self.next_t = self.clock()

    def latest(self, after_frame_id: int, timeout_s: float) -> TimedFrame | None:
        """The newest frame if its id is above `after_frame_id`; waits up to `timeout_s` for it, else None. Its `t` is
        the capture time in ns. Ids grow by one with every frame that arrived, also across reopenings."""
        deadline = time.monotonic() + timeout_s
        while True:
            with self.changed:
                self._check_silence()
                if self.newest is not None and self.newest.frame_id > after_frame_id:
                    self.taken = self.newest.frame_id
                    return self.newest
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self.changed.wait(min(left, POLL_S))

    def events(self) -> list[Event]:
        """What happened since the last call."""
        with self.changed:
            events, self.pending = self.pending, []
        return events

    @property
    def hopeless(self) -> bool:
        """So many threads hang that only a new process can help."""
        with self.changed:
            return len(self._hanging()) >= ABANDONED_MAX

    def close(self) -> None:
        """Stop reading; waits up to 1 s for the thread, and abandons one that hangs."""
        with self.changed:
            self.next_t = sys.maxsize
            attempt, self.attempt = self.attempt, None
        if attempt:
            attempt.stopped.set()
            attempt.join(1.0)

    # ---- called with the lock held -----------------------------------------------------------------------------

    def _check_silence(self) -> None:
        """Abandon an attempt that died or fell silent, and start the next one when its pause is over."""
        now = self.clock()
        attempt = self.attempt
        if attempt is None:
            if not self.ended and now >= self.next_t and len(self._hanging()) < ABANDONED_MAX:
                self.counts["attempts"] += 1
                log.debug("attempt %d to open %s", self.counts["attempts"], hide_passwords(self.source.target))
                self.opened = False
                self.attempt = _Attempt(self, now)
                self.attempt.start()
            return
        limit_s = self.settings.silent_s if self.opened else self.settings.open_timeout_s
        if not attempt.is_alive():
            self._end(attempt, now, attempt.failure or "its reader died")
        elif now - attempt.last_frame_t > limit_s * 1e9:
            attempt.stopped.set()
            self.abandoned.append(attempt)
            self._end(attempt, now, f"no frame for {limit_s:g} s")

    def _end(self, attempt: _Attempt, now: int, why: str) -> None:
        self.attempt = None
        if attempt.over and self.source.kind == "file":
            self.ended = True
            self._event("info", "camera_ended", "the video is over")
            return
        self.next_t = now + int(self.pause_s * 1e9)
        self._event("warning", "camera_lost", f"{why}; opened again in {self.pause_s:g} s")
        self.pause_s = min(2 * self.pause_s, BACK_OFF_S[1])
        self.opened = False

    def _deliver(self, attempt: _Attempt, image: Image | None, now: int) -> None:
        """Take in a frame; None: a damaged one, which is only counted. Damaged frames do not count against silence: a
        camera that delivers nothing else is reopened."""
        if image is None:
            self.counts["damaged"] += 1
            if not attempt.damaged:
                attempt.damaged = True
                self._event("warning", "camera_damaged", "pictures arrive damaged and are dropped: check cable or link")
            return
        if not self.opened:
            self.opened, self.pause_s = True, BACK_OFF_S[0]
            self._event("info", "camera_open", f"{image.shape[1]}×{image.shape[0]}{attempt.remark}")
        elif self.previous is not None and self.previous.shape != image.shape:
            self._event("warning", "camera_size", f"frames are now {image.shape[1]}×{image.shape[0]}")
        attempt.last_frame_t = now
        self.identical = self.identical + 1 if identical(image, self.previous) else 1
        self.previous = image
        frame_id = self.counts["frames"]
        self.counts["frames"] += 1
        if self.frozen != (self.identical >= FROZEN_FRAMES):
            self.frozen = not self.frozen
            if self.frozen:
                self._event("warning", "camera_frozen", f"{FROZEN_FRAMES} bit-identical frames in a row")
            else:
                self._event("info", "camera_frozen_over", "frames differ again")
        if self.frozen:
            self.counts["frozen"] += 1
            return
        if self.newest is not None and self.newest.frame_id > self.taken:
            self.counts["overwritten"] += 1
        self.newest = TimedFrame(frame_id, now - int(self.latency_ms * 1e6), image)
        self.changed.notify_all()

    def _hanging(self) -> list[_Attempt]:
        self.abandoned = [attempt for attempt in self.abandoned if attempt.is_alive()]
        return self.abandoned

    def _event(self, level: Literal["info", "warning", "alarm"], code: str, text: str) -> None:
        text = f"camera {hide_passwords(self.source.target)[:60]}: {hide_passwords(text)}"
        self.pending.append(Event(t=self.clock(), level=level, source="camera", code=code, text=text))


class _Attempt(threading.Thread):
    """One opening of the source, read until it ends, fails or is abandoned."""

    def __init__(self, camera: Camera, now: int):
        super().__init__(name="camera", daemon=True)
        self.camera = camera
        self.last_frame_t = now
        self.stopped = threading.Event()
        self.failure = ""
        self.over = False
        """The source ended without a failure."""
        self.remark = ""
        self.damaged = False
        """A picture arrived damaged; this is reported once."""

    def run(self) -> None:
        camera = self.camera
        try:
            for image in images(camera.source, camera.settings, self.stopped, self._remark):
                with camera.changed:
                    if camera.attempt is not self:
                        return
                    camera._deliver(self, image, camera.clock())
            self.over, self.failure = True, "it ended"
        except av.error.ExitError:  # FFmpeg's time-out
            self.failure = "it delivers nothing"
        except (UserError, OSError, cv2.error, av.error.FFmpegError) as error:
            self.failure = str(error)

    def _remark(self, text: str) -> None:
        """Report a setting that the camera did not take over."""
        with self.camera.changed:
            if self.camera.attempt is self:
                self.remark += f"; {text}"
                self.camera._event("warning", "camera_settings", text)


def identical(image: Image, previous: Image | None) -> bool:
    """Whether two pictures are bit-identical. Compares every 16th pixel first: live pictures differ there already."""
    if previous is None or image.shape != previous.shape:
        return False
    return np.array_equal(image[::16, ::16], previous[::16, ::16]) and np.array_equal(image, previous)
