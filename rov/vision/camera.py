"""Cameras: one thread reads, the latest frame wins, and what ends, fails or falls silent is opened again.

A source is one string:

    0, /dev/video0, /dev/v4l/by-id/…     a camera of this machine (V4L2)
    dive.mp4                             a video, paced at its own rate, once
    loop:dive.mp4                        the same, again and again
    rtp://:5600                          H.264 over RTP on a UDP port, as the BlueROV2 sends it; rtp://239.1.2.3:5600
                                         joins a multicast group; rtp+h265://:5600 for H.265
    rtsp://…, http://…, https://…        a stream
    pipe:1280x720:gst-launch-1.0 … ! video/x-raw,format=BGR,width=1280,height=720 ! fdsink
                                         raw BGR frames of this size from a command's standard output, run without a
                                         shell (CSI cameras: pip's OpenCV has no GStreamer)

`process:COMMAND` is not for here: the supervisor starts that command in camerad's place, with camerad's arguments.

A read that hangs in a driver cannot be interrupted, only left: each attempt to read has its own thread, and what an
abandoned one still delivers is ignored. While one hangs its device usually cannot be opened again; after ABANDONED_MAX
of them only a new process helps, and `hopeless` says so.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import av
import cv2
import numpy as np

from rov.errors import UserError
from rov.messages import Event
from rov.vision.footage import VIDEOS, Image, Shot, Video, must_be_file

BACK_OFF_S = (0.5, 5.0)
"""Pause before the first and before every later attempt to open again; it doubles from one to the other."""
FROZEN_FRAMES = 3
"""So many bit-identical pictures in a row are a camera that hangs: a live one has noise."""
BEHIND_S = 0.2
"""A paced video that is further behind goes on from where it is, instead of hurrying after the clock."""
ABANDONED_MAX = 3
POLL_S = 0.1
"""How soon a thread notices that it is to end, and silence is noticed."""


class Source(NamedTuple):
    """A parsed source."""

    kind: Literal["device", "file", "rtp", "stream", "pipe"]
    target: str
    """Device, path, address or command."""
    loop: bool = False
    size: tuple[int, int] = (0, 0)
    """Width and height of piped frames."""


class Settings(NamedTuple):
    """What is asked of a camera; 0 and "" leave it to the camera."""

    width: int = 0
    height: int = 0
    fps: float = 0.0
    fourcc: str = ""
    """Pixel format; USB cameras give more than 640×480 at full rate only as MJPG."""
    open_timeout_s: float = 10.0
    """Until the first frame: an H.264 stream waits for its next key frame."""
    silent_s: float = 2.0
    """Without a frame for this long, it is opened again."""


def parse_source(text: str) -> Source:
    """Raises UserError."""
    if text.isdecimal() or text.startswith("/dev/"):
        return Source("device", text)
    if match := re.fullmatch(r"pipe:(\d+)x(\d+):\s*(\S.*)", text, re.DOTALL):
        size = int(match[1]), int(match[2])
        if not all(0 < side <= 16384 for side in size):
            raise UserError(f"{text}: no camera gives frames of {size[0]}×{size[1]}")
        try:
            shlex.split(match[3])
        except ValueError as error:
            raise UserError(f"{text}: the command cannot be split into words: {error}") from None
        return Source("pipe", match[3], size=size)
    if match := re.fullmatch(r"rtp(?:\+h26[45])?://([\w.-]*):(\d+)", text):
        if not 0 < int(match[2]) < 65536:
            raise UserError(f"{text}: a port is 1 to 65535")
        return Source("rtp", text)
    if re.match(r"(rtsp|http|https)://.", text):
        return Source("stream", text)
    path = text.removeprefix("loop:")
    if Path(path).suffix.lower() in VIDEOS:
        return Source("file", path, loop=path != text)
    raise UserError(
        f"{text}: is no camera; use a device (0, /dev/video0), a video ([loop:]dive.mp4), rtp://:5600, rtsp://…, "
        "http://…, pipe:WIDTHxHEIGHT:COMMAND or process:COMMAND"
    )


class Camera:
    """A camera that is kept open. `latest` also keeps watch, so call it all the time."""

    def __init__(
        self,
        source: Source,
        settings: Settings | None = None,
        *,
        latency_ms: float = 0.0,
        clock: Callable[[], int] = time.monotonic_ns,
    ):
        """Begins to open it. `latency_ms`: from the middle of the exposure until the frame arrives."""
        if source.kind == "file":
            must_be_file(Path(source.target))  # the only one that cannot come later
        self.source = source
        self.settings = settings or Settings()
        self.latency_ms = latency_ms
        self.clock = clock
        self.ended = False
        """A video is over; it is not opened again."""
        self.opened = False
        """The current attempt has given a frame."""
        self.frozen = False
        """The last frames were bit-identical. They are not delivered: what is not seen moves nothing."""
        self.counts = {"frames": 0, "overwritten": 0, "frozen": 0, "attempts": 0}
        self.changed = threading.Condition()  # guards what the reading threads write: all of the following
        self.attempt: _Attempt | None = None
        self.shot: Shot | None = None
        self.taken = -1
        self.identical = 0
        self.previous: Image | None = None
        self.pending: list[Event] = []
        self.abandoned: list[_Attempt] = []
        self.pause_s = BACK_OFF_S[0]
        self.next_t = self.clock()

    def latest(self, after_frame_id: int, timeout_s: float) -> Shot | None:
        """The newest frame, if it is newer than that one; waits for it at most this long. Its `t` is the capture
        time. Ids grow by one with every frame that arrived, also across re-openings."""
        deadline = time.monotonic() + timeout_s
        while True:
            with self.changed:
                self._watch()
                if self.shot is not None and self.shot.frame_id > after_frame_id:
                    self.taken = self.shot.frame_id
                    return self.shot
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
        """So many reads hang that only a new process can help."""
        with self.changed:
            return len(self._hanging()) >= ABANDONED_MAX

    def close(self) -> None:
        """End the reading; waits a little for the thread, and leaves one that hangs."""
        with self.changed:
            self.next_t = sys.maxsize
            attempt, self.attempt = self.attempt, None
        if attempt:
            attempt.stopped.set()
            attempt.join(1.0)

    # ---- called with the lock held -----------------------------------------------------------------------------

    def _watch(self) -> None:
        """Leave an attempt that died or fell silent, and begin the next one when its time has come."""
        now = self.clock()
        attempt = self.attempt
        if attempt is None:
            if not self.ended and now >= self.next_t and len(self._hanging()) < ABANDONED_MAX:
                self.counts["attempts"] += 1
                self.opened = False
                self.attempt = _Attempt(self, now)
                self.attempt.start()
            return
        limit_s = self.settings.silent_s if self.opened else self.settings.open_timeout_s
        if not attempt.is_alive():
            self._end(attempt, now, attempt.failure or "its reader died")
        elif now - attempt.heard_t > limit_s * 1e9:
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

    def _deliver(self, attempt: _Attempt, image: Image, now: int) -> None:
        """A frame has arrived."""
        if not self.opened:
            self.opened, self.pause_s = True, BACK_OFF_S[0]
            self._event("info", "camera_open", f"{image.shape[1]}×{image.shape[0]}{attempt.remark}")
        elif self.previous is not None and self.previous.shape != image.shape:
            self._event("warning", "camera_size", f"frames are now {image.shape[1]}×{image.shape[0]}")
        attempt.heard_t = now
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
        if self.shot is not None and self.shot.frame_id > self.taken:
            self.counts["overwritten"] += 1
        self.shot = Shot(frame_id, now - int(self.latency_ms * 1e6), image)
        self.changed.notify_all()

    def _hanging(self) -> list[_Attempt]:
        self.abandoned = [attempt for attempt in self.abandoned if attempt.is_alive()]
        return self.abandoned

    def _event(self, level: Literal["info", "warning", "alarm"], code: str, text: str) -> None:
        name = self.source.target
        self.pending.append(Event(t=self.clock(), level=level, source="camera", code=code, text=f"{name[:60]}: {text}"))


class _Attempt(threading.Thread):
    """One opening of the source, read until it ends, fails or is abandoned."""

    def __init__(self, camera: Camera, now: int):
        super().__init__(name="camera", daemon=True)
        self.camera = camera
        self.heard_t = now
        self.stopped = threading.Event()
        self.failure = ""
        self.over = False
        """It came to its end, without a failure."""
        self.remark = ""

    def run(self) -> None:
        camera = self.camera
        try:
            for image in images(camera.source, camera.settings, self.stopped, self._remark):
                with camera.changed:
                    if camera.attempt is not self:
                        return
                    camera._deliver(self, image, camera.clock())
            self.over, self.failure = True, "it ended"
        except av.error.ExitError:  # FFmpeg was told to wait no longer
            self.failure = "it gives nothing"
        except (UserError, OSError, cv2.error, av.error.FFmpegError) as error:
            self.failure = str(error)

    def _remark(self, text: str) -> None:
        """Something the user asked for was not given."""
        with self.camera.changed:
            if self.camera.attempt is self:
                self.remark += f"; {text}"
                self.camera._event("warning", "camera_settings", text)


def identical(image: Image, previous: Image | None) -> bool:
    """Are two pictures the same, bit by bit? A few pixels tell live ones apart; only what is the same there is
    compared whole."""
    if previous is None or image.shape != previous.shape:
        return False
    return np.array_equal(image[::16, ::16], previous[::16, ::16]) and np.array_equal(image, previous)


# ---- the sources -----------------------------------------------------------------------------------------------


def images(
    source: Source, settings: Settings, stopped: threading.Event, remark: Callable[[str], None]
) -> Iterator[Image]:
    """Open a source and give its pictures as they arrive, until it ends or `stopped` is set. Raises UserError or
    OSError when it cannot be opened or fails."""
    match source.kind:
        case "file":
            return _paced(source, stopped)
        case "pipe":
            return _piped(source, stopped)
        case "rtp" | "stream":
            return _streamed(source, settings, stopped)
        case _:
            return _captured(source, settings, stopped, remark)


def _paced(source: Source, stopped: threading.Event) -> Iterator[Image]:
    """A video, each frame when it is due."""
    start = time.monotonic_ns()
    while True:
        video = Video(Path(source.target))
        t = 0
        for _, t, image, _ in video.shots():
            behind = time.monotonic_ns() - start - t
            if behind > BEHIND_S * 1e9:
                start += behind
            elif stopped.wait(max(0.0, -behind / 1e9)):
                return
            yield image
        if not source.loop:
            return
        start += t + int(1e9 / video.fps)


def _piped(source: Source, stopped: threading.Event) -> Iterator[Image]:
    """Raw frames from a command. It ends with us: when nobody reads, its next write fails."""
    words = shlex.split(source.target)
    if Path(words[0]).name.startswith("gst-launch") and not {"-q", "--quiet"} & set(words):
        words.insert(1, "-q")  # what it says of its state would be pixels
    width, height = source.size
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0, pipesize=1 << 20
    ) as process:
        try:
            assert process.stdout is not None
            fd = process.stdout.fileno()
            while not stopped.is_set():
                image = np.empty((height, width, 3), np.uint8)
                view, filled = memoryview(image.data).cast("B"), 0
                while filled < len(view):
                    while not select.select([fd], [], [], POLL_S)[0]:
                        if stopped.is_set():
                            return
                    count = os.readv(fd, [view[filled:]])
                    if not count:
                        raise OSError("the command ended, or closed its output")
                    filled += count
                yield image
        finally:
            process.kill()


def _captured(
    source: Source, settings: Settings, stopped: threading.Event, remark: Callable[[str], None]
) -> Iterator[Image]:
    """A device, by OpenCV."""
    index = int(source.target) if source.target.isdecimal() else None
    capture = cv2.VideoCapture(source.target if index is None else index, cv2.CAP_V4L2)
    try:
        _configure(capture, settings)
        ok, image = capture.read() if capture.isOpened() else (False, None)
        if not ok or image is None:
            raise UserError("cannot be opened, or gives no frame")
        for text in _refused(capture, settings, image.shape[1], image.shape[0]):
            remark(text)
        while ok and image is not None and not stopped.is_set():
            yield np.asarray(image, np.uint8)
            ok, image = capture.read()
    finally:
        capture.release()


def _streamed(source: Source, settings: Settings, stopped: threading.Event) -> Iterator[Image]:
    """A stream, by FFmpeg itself: OpenCV's reader scales every picture to the size of the first, and takes its options
    from the environment of the whole process. What of it cannot be decoded (it begins before a key frame, a packet
    was lost) is left out."""
    options = {"fflags": "nobuffer", "flags": "low_delay", "rtsp_transport": "tcp"}
    timeout = (settings.open_timeout_s, settings.silent_s)
    with contextlib.ExitStack() as stack:
        target = source.target
        if source.kind == "rtp":
            file = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".sdp"))
            file.write(sdp(source))
            file.flush()
            target = file.name
            options["protocol_whitelist"] = "file,rtp,udp"
        container = stack.enter_context(av.open(target, options=options, timeout=timeout))
        if not container.streams.video:
            raise UserError("has no pictures in it")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # more would decode frames side by side, and each adds a frame of delay
        for packet in container.demux(stream):
            if stopped.is_set():
                return
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                continue
            for frame in frames:
                yield np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)


def sdp(source: Source) -> str:
    """The session description that an RTP stream without one needs: dynamic payload type 96, 90 kHz."""
    scheme, _, address = source.target.partition("://")
    host, _, port = address.rpartition(":")
    codec = "H265" if scheme.endswith("h265") else "H264"
    lines = (
        "v=0",
        "o=- 0 0 IN IP4 127.0.0.1",
        "s=rov",
        f"c=IN IP4 {host or '0.0.0.0'}",
        "t=0 0",
        f"m=video {port} RTP/AVP 96",
        f"a=rtpmap:96 {codec}/90000",
    )
    return "".join(line + "\r\n" for line in lines)


def _configure(capture: cv2.VideoCapture, settings: Settings) -> None:
    """The format first: it decides what sizes there are, and the size decides what rates."""
    if settings.fourcc:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*settings.fourcc))
    for name, value in (
        (cv2.CAP_PROP_FRAME_WIDTH, settings.width),
        (cv2.CAP_PROP_FRAME_HEIGHT, settings.height),
        (cv2.CAP_PROP_FPS, settings.fps),
    ):
        if value:
            capture.set(name, value)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # more would only be older


def _refused(capture: cv2.VideoCapture, settings: Settings, width: int, height: int) -> Iterator[str]:
    """What the camera did not take over, read back."""
    wanted = settings.width or width, settings.height or height
    if wanted != (width, height):
        yield f"{wanted[0]}×{wanted[1]} was asked for, it gives {width}×{height}"
    fps = capture.get(cv2.CAP_PROP_FPS)
    if settings.fps and abs(fps - settings.fps) > 0.1 * settings.fps:
        yield f"{settings.fps:g} frames per s were asked for, it gives {fps:g}"
    code = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("latin-1")
    if settings.fourcc and code != settings.fourcc:
        yield f"{settings.fourcc} was asked for, it gives {code}"
