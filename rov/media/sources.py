"""Opens and reads camera sources: devices, video files, network streams and pipes.

A source is one string:

    0, /dev/video0, /dev/v4l/by-id/…     a camera of this machine (V4L2)
    dive.mp4                             a video, paced at its own rate, once
    loop:dive.mp4, loop:dive.mcap        a video or a recorded dive, repeated
    rtp://:5600                          H.264 over RTP on a UDP port, as the BlueROV2 sends it; rtp://239.1.2.3:5600
                                         joins a multicast group; rtp+h265://:5600 for H.265
    rtsp://…, http://…, https://…        a stream
    pipe:1280x720:gst-launch-1.0 … ! video/x-raw,format=BGR,width=1280,height=720 ! fdsink
                                         raw BGR frames of this size from a command's standard output, run without a
                                         shell (CSI cameras: pip's OpenCV has no GStreamer)

`process:COMMAND` is handled elsewhere: the supervisor starts that command instead of camerad, with its arguments.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeAlias

import av
import cv2
import numpy as np

from rov.errors import UserError
from rov.media.convert import Converter
from rov.media.files import VIDEOS, TimedFrame, must_be_file
from rov.media.films import ANY_TEXT, Video
from rov.media.jpeg import JpegDecoder
from rov.service import external_command
from rov.types import Image

BEHIND_S = 0.2
"""A paced video that falls further behind shifts its clock, instead of hurrying to catch up."""
AHEAD_S = 1.0
"""Longest wait for one picture of a paced video: a longer gap is a jump of its clock, and silence would reopen it."""
POLL_S = 0.1
"""Longest delay until a thread notices that it must stop, and until silence is noticed."""


class CameraSource(NamedTuple):
    """A parsed source."""

    kind: Literal["device", "file", "rtp", "stream", "pipe"]
    target: str
    """Device, path, address or command."""
    loop: bool = False
    size: tuple[int, int] = (0, 0)
    """Width and height of piped frames."""


class Film(Protocol):
    """Recorded pictures in order, and their frame rate (Hz)."""

    fps: float

    def pictures(self) -> Iterator[TimedFrame]: ...


OpenFilm: TypeAlias = Callable[[Path], Film]


class CaptureSettings(NamedTuple):
    """Settings requested from a camera; 0 and "" leave them to the camera."""

    width: int = 0
    height: int = 0
    fps: float = 0.0
    fourcc: str = ""
    """Pixel format; most USB cameras deliver more than 640×480 at full rate only as MJPG."""
    open_timeout_s: float = 10.0
    """Until the first frame: an H.264 stream starts with its next key frame."""
    silent_s: float = 2.0
    """Without a frame for this long, the camera is reopened."""
    open_film: OpenFilm = Video
    """Opens the file of a `loop:` source. camerad passes one that also opens dives: `rov.dives` imports this package,
    not the other way round."""


def parse_camera_source(text: str) -> CameraSource:
    """Parse `camera.source`. Raises UserError."""
    if text.isdecimal() or text.startswith("/dev/"):
        return CameraSource("device", text)
    if match := re.fullmatch(r"pipe:(\d+)x(\d+):\s*(\S.*)", text, re.DOTALL):
        size = int(match[1]), int(match[2])
        if not all(0 < side <= 16384 for side in size):
            raise UserError(f"{text}: no camera gives frames of {size[0]}×{size[1]}")
        external_command.split(text, match[3])
        return CameraSource("pipe", match[3], size=size)
    if match := re.fullmatch(r"rtp(?:\+h26[45])?://([\w.-]*):(\d+)", text):
        if not 0 < int(match[2]) < 65536:
            raise UserError(f"{text}: a port is 1 to 65535")
        return CameraSource("rtp", text)
    if re.match(r"(rtsp|http|https)://.", text):
        return CameraSource("stream", text)
    path = text.removeprefix("loop:")
    if Path(path).suffix.lower() in VIDEOS or (path != text and Path(path).suffix.lower() == ".mcap"):
        return CameraSource("file", path, loop=path != text)
    raise UserError(
        f"{text}: is no camera; use a device (0, /dev/video0), a video ([loop:]dive.mp4), a dive (loop:dive.mcap), "
        "rtp://:5600, rtsp://…, http://…, pipe:WIDTHxHEIGHT:COMMAND or process:COMMAND"
    )


def check_source(text: str) -> None:
    """Raises UserError for a source that can never work: a missing video or a command that cannot be run. Devices and
    streams may appear later."""
    if text.startswith("process:"):
        external_command.check(text, external_command.split(text, text.removeprefix("process:")))
        return
    source = parse_camera_source(text)
    if source.kind == "pipe":
        external_command.check(text, external_command.split(text, source.target))
    elif source.kind == "file":
        path = Path(source.target)
        if path.exists() and not path.is_dir() and not path.is_file():
            raise UserError(f"{path}: is no regular file")
        must_be_file(path)


def images(
    source: CameraSource, settings: CaptureSettings, stopped: threading.Event, remark: Callable[[str], None]
) -> Iterator[Image | None]:
    """Open a source and yield its pictures as they arrive, until it ends or `stopped` is set; None for a damaged one.
    `remark` gets a sentence per refused setting. Raises UserError or OSError when it cannot be opened or fails."""
    match source.kind:
        case "file":
            return _paced(source, settings.open_film, stopped)
        case "pipe":
            return _piped(source, stopped)
        case "rtp" | "stream":
            return _streamed(source, settings, stopped)
        case _:
            return _captured(source, settings, stopped, remark)


def _paced(source: CameraSource, open_film: OpenFilm, stopped: threading.Event) -> Iterator[Image]:
    """Frames of a video, each when it is due."""
    start = time.monotonic_ns()
    while True:
        video = open_film(Path(source.target))
        t = 0
        for _, t, image, _ in video.pictures():
            behind = time.monotonic_ns() - start - t
            if behind > BEHIND_S * 1e9 or behind < -AHEAD_S * 1e9:
                start += behind + (0 if behind > 0 else round(AHEAD_S * 1e9))
            if stopped.wait(min(max(0.0, -behind / 1e9), AHEAD_S)):
                return
            yield image
        if not source.loop:
            return
        start += t + int(1e9 / video.fps)


def _piped(source: CameraSource, stopped: threading.Event) -> Iterator[Image]:
    """Raw frames from a command, which is killed at the end."""
    words = external_command.split(source.target, source.target)
    if Path(words[0]).name.startswith("gst-launch") and not {"-q", "--quiet"} & set(words):
        words.insert(1, "-q")  # its status messages would be read as pixels
    width, height = source.size
    with subprocess.Popen(
        external_command.dying_with_us(words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        bufsize=0,
        pipesize=1 << 20,
        start_new_session=True,
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
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its children, too


def _captured(
    source: CameraSource, settings: CaptureSettings, stopped: threading.Event, remark: Callable[[str], None]
) -> Iterator[Image | None]:
    """Frames of a V4L2 device, read with OpenCV. JPEGs are decoded here: OpenCV's decoder would fill missing parts with
    grey."""
    index = int(source.target) if source.target.isdecimal() else None
    capture = cv2.VideoCapture(source.target if index is None else index, cv2.CAP_V4L2)
    try:
        _configure(capture, settings)
        jpegs = _gives_jpegs(capture)
        ok, image = capture.read() if capture.isOpened() else (False, None)
        if not ok or image is None:
            raise UserError("cannot be opened, or gives no frame")
        checked = False
        while ok and image is not None and not stopped.is_set():
            raw = jpegs is not None and image.shape[-1] != 3  # one row, or column, of bytes
            picture = jpegs.decode(image.tobytes()) if jpegs and raw else np.asarray(image, np.uint8)
            if picture is not None and not checked:
                checked = True
                for text in _refused(capture, settings, picture.shape[1], picture.shape[0]):
                    remark(text)
            yield picture
            ok, image = capture.read()
    finally:
        capture.release()


def _gives_jpegs(capture: cv2.VideoCapture) -> JpegDecoder | None:
    """A JPEG decoder, if the device delivers JPEG and OpenCV can hand it over undecoded; else None."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=False)
    if code not in (b"MJPG", b"JPEG") or not capture.set(cv2.CAP_PROP_CONVERT_RGB, 0):
        return None
    return JpegDecoder()


def _streamed(source: CameraSource, settings: CaptureSettings, stopped: threading.Event) -> Iterator[Image | None]:
    """Frames of a stream, read with FFmpeg: OpenCV's reader scales every picture to the size of the first, and takes
    its options from the environment of the whole process. What cannot be decoded (before the first key frame, after a
    lost packet) is skipped."""
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
        container = stack.enter_context(av.open(target, options=options, timeout=timeout, **ANY_TEXT))
        if not container.streams.video:
            raise UserError("has no pictures in it")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # more would decode frames side by side, and each adds a frame of delay
        jpegs = JpegDecoder() if stream.codec_context.name == "mjpeg" else None
        convert = Converter()
        for packet in container.demux(stream):
            if stopped.is_set():
                return
            if jpegs:
                yield jpegs.decode(bytes(packet))
                continue
            try:
                for frame in packet.decode():
                    yield convert(frame)
            except av.error.InvalidDataError:
                continue


def sdp(source: CameraSource) -> str:
    """The session description (SDP) that FFmpeg needs to receive plain RTP: dynamic payload type 96, 90 kHz."""
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


def _configure(capture: cv2.VideoCapture, settings: CaptureSettings) -> None:
    """Apply the settings. The format comes first: it limits the sizes, and the size limits the rates."""
    if settings.fourcc:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*settings.fourcc))
    for name, value in (
        (cv2.CAP_PROP_FRAME_WIDTH, settings.width),
        (cv2.CAP_PROP_FRAME_HEIGHT, settings.height),
        (cv2.CAP_PROP_FPS, settings.fps),
    ):
        if value:
            capture.set(name, value)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # a longer queue would only deliver older frames


def _refused(capture: cv2.VideoCapture, settings: CaptureSettings, width: int, height: int) -> Iterator[str]:
    """A sentence for each setting that the camera did not take over, read back."""
    wanted = settings.width or width, settings.height or height
    if wanted != (width, height):
        yield f"{wanted[0]}×{wanted[1]} was requested, it gives {width}×{height}"
    fps = capture.get(cv2.CAP_PROP_FPS)
    if settings.fps and abs(fps - settings.fps) > 0.1 * settings.fps:
        yield f"{settings.fps:g} frames per s were requested, it gives {fps:g}"
    code = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("latin-1")
    if settings.fourcc and code != settings.fourcc:
        yield f"{settings.fourcc} was requested, it gives {code}"
