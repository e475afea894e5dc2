"""Cameras, tested with the sources that a machine without a camera has: files, commands, streams on loopback."""

import http.server
import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from rov.errors import UserError
from rov.media import camera as module
from rov.media import sources
from rov.media.camera import ABANDONED_MAX, FROZEN_FRAMES, Camera, identical
from rov.media.files import TimedFrame
from rov.media.sources import CameraSource, CaptureSettings, parse_camera_source, sdp
from rov.types import Image
from tests.conftest import disc, make_clip

pytestmark = pytest.mark.clock

PATIENCE_S = 15.0
QUICK = CaptureSettings(open_timeout_s=5.0, silent_s=0.5)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Camera]]:
    monkeypatch.setattr(module, "BACK_OFF_S", (0.05, 0.2))
    started: list[Camera] = []

    def make(text: str, settings: CaptureSettings = QUICK, **more: object) -> Camera:
        started.append(Camera(parse_camera_source(text), settings, **more))  # type: ignore[arg-type]
        return started[-1]

    yield make
    for camera in started:
        camera.close()


def watch(camera: Camera, done: Callable[[list[TimedFrame], list[str]], bool]) -> tuple[list[TimedFrame], list[str]]:
    """Take frames and event codes until `done`."""
    shots: list[TimedFrame] = []
    codes: list[str] = []
    deadline = time.monotonic() + PATIENCE_S
    while not done(shots, codes):
        assert time.monotonic() < deadline, f"{len(shots)} frames, {codes}"
        shot = camera.latest(shots[-1].frame_id if shots else -1, 0.02)
        shots += [shot] if shot else []
        codes += [event.code for event in camera.events()]
    return shots, codes


# ---- what a source may look like -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("0", CameraSource("device", "0")),
        ("/dev/video2", CameraSource("device", "/dev/video2")),
        ("/dev/v4l/by-id/usb-cam-index0", CameraSource("device", "/dev/v4l/by-id/usb-cam-index0")),
        ("a dive.mp4", CameraSource("file", "a dive.mp4")),
        ("loop:/data/x.MKV", CameraSource("file", "/data/x.MKV", loop=True)),
        ("rtp://:5600", CameraSource("rtp", "rtp://:5600")),
        ("rtp+h265://239.1.2.3:5600", CameraSource("rtp", "rtp+h265://239.1.2.3:5600")),
        ("rtsp://user:pass@10.0.0.5:554/s", CameraSource("stream", "rtsp://user:pass@10.0.0.5:554/s")),
        ("http://10.0.0.5/video.mjpg", CameraSource("stream", "http://10.0.0.5/video.mjpg")),
        ("pipe:64x48: gst-launch-1.0 a ! fdsink", CameraSource("pipe", "gst-launch-1.0 a ! fdsink", size=(64, 48))),
    ],
)
def test_sources(text: str, source: CameraSource) -> None:
    assert parse_camera_source(text) == source


@pytest.mark.parametrize(
    "text",
    ["", "-1", "camera", "dive.txt", "rtp://", "rtp://:0", "rtp://:99999", "rtp://:5600/x", "ftp://x", "http://"]
    + ["pipe:", "pipe:10x10:", "pipe:0x10:cat", "pipe:99999x10:cat", "pipe:10:cat", "pipe:8x8:cat 'x", "loop:0"],
)
def test_what_is_no_source_is_told(text: str) -> None:
    with pytest.raises(UserError):
        parse_camera_source(text)


def test_a_missing_video_is_told_at_once() -> None:
    with pytest.raises(UserError, match="no such file"):
        Camera(parse_camera_source("nowhere.mp4"))


def test_the_session_description() -> None:
    assert "c=IN IP4 0.0.0.0\r\n" in sdp(parse_camera_source("rtp://:5600"))
    assert "m=video 5600 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n" in sdp(parse_camera_source("rtp://:5600"))
    assert "c=IN IP4 239.1.2.3\r\n" in sdp(parse_camera_source("rtp://239.1.2.3:5600"))
    assert "H265/90000" in sdp(parse_camera_source("rtp+h265://:5600"))


# ---- files -----------------------------------------------------------------------------------------------------


def test_a_video_is_paced_and_ends(clip: Path, start) -> None:  # type: ignore[no-untyped-def]
    camera = start(str(clip), latency_ms=30.0)
    begin = time.monotonic_ns()
    shots, codes = watch(camera, lambda shots, codes: "camera_ended" in codes)
    assert codes == ["camera_open", "camera_ended"] and camera.ended
    assert camera.counts["frames"] == 20
    # Frame 19 is due 1.9 s after frame 0, and came then, less the latency. Only too early is wrong: too late may be
    # this machine's fault.
    first, last = shots[0], shots[-1]
    assert last.frame_id == 19
    assert (last.t - first.t) / 1e9 > 1.9 - 0.1 * (first.frame_id + 1)
    assert first.t >= begin - 30e6 and last.t < time.monotonic_ns() - 30e6
    ids, times = [shot.frame_id for shot in shots], [shot.t for shot in shots]
    assert ids == sorted(set(ids)) and times == sorted(times)
    assert camera.latest(19, 0.05) is None
    assert camera.counts["attempts"] == 1


def test_a_video_may_loop(tmp_path: Path, start) -> None:  # type: ignore[no-untyped-def]
    path = make_clip(tmp_path / "short.avi", frames=5, fps=25.0)
    camera = start(f"loop:{path}")
    shots, codes = watch(camera, lambda shots, codes: camera.counts["frames"] >= 23)
    assert codes == ["camera_open"] and not camera.ended
    elapsed, frames = (shots[-1].t - shots[0].t) / 1e9, shots[-1].frame_id - shots[0].frame_id
    assert elapsed > 0.04 * frames - 0.1


def test_a_video_that_was_held_up_goes_on_at_its_pace(monkeypatch: pytest.MonkeyPatch, clip: Path) -> None:
    images = sources.images(CameraSource("file", str(clip)), QUICK, threading.Event(), print)
    next(images)
    time.sleep(1.0)  # as a process that was stopped
    begin = time.monotonic()
    for _ in range(6):
        next(images)
    assert time.monotonic() - begin > 0.4  # the first at once, the others 0.1 s apart; not a burst


def test_a_broken_video_is_lost_and_tried_again(tmp_path: Path, start) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "x.mp4"
    path.write_bytes(b"not a video" * 100)
    camera = start(str(path))
    watch(camera, lambda shots, codes: codes.count("camera_lost") >= 2)
    assert camera.latest(-1, 0.0) is None and not camera.opened


# ---- commands --------------------------------------------------------------------------------------------------

FAKE = """
import sys, time
width, height, frames, fps, after = map(float, sys.argv[1:6])
for i in range(int(frames)):
    sys.stdout.buffer.write(bytes([i % 256]) * int(width * height * 3))
    sys.stdout.buffer.flush()
    time.sleep(1 / fps)
if len(sys.argv) > 6:  # the last picture, again and again
    while True:
        sys.stdout.buffer.write(bytes([(int(frames) - 1) % 256]) * int(width * height * 3))
        sys.stdout.buffer.flush()
        time.sleep(1 / fps)
time.sleep(after)
"""


def fake(path: Path, frames: int, *, fps: float = 50.0, after: float = 0.0, more: str = "") -> str:
    """A source that is a command: raw frames of 64×48, frame i filled with i."""
    script = path / "fake.py"
    script.write_text(FAKE)
    return f"pipe:64x48:{sys.executable} {script} 64 48 {frames} {fps} {after} {more}"


def test_a_command_gives_frames_and_is_started_again_when_it_ends(tmp_path: Path, start) -> None:  # type: ignore[no-untyped-def]
    camera = start(fake(tmp_path, 10))
    shots, codes = watch(camera, lambda shots, codes: codes.count("camera_open") == 3)
    assert codes[:4] == ["camera_open", "camera_lost"] * 2
    assert all(shot.image.shape == (48, 64, 3) and shot.image.min() == shot.image.max() for shot in shots)
    assert all(int(shot.image[0, 0, 0]) == shot.frame_id % 10 for shot in shots)  # ids go on counting


def test_a_silent_command_is_left_and_another_one_started(tmp_path: Path, start) -> None:  # type: ignore[no-untyped-def]
    camera = start(fake(tmp_path, 3, after=100.0))
    _, codes = watch(camera, lambda shots, codes: codes.count("camera_open") == 2)
    assert codes == ["camera_open", "camera_lost", "camera_open"]
    pids = children("fake.py")
    camera.close()
    deadline = time.monotonic() + PATIENCE_S
    while set(children("fake.py")) & set(pids):
        assert time.monotonic() < deadline, "a command was left behind"
        time.sleep(0.05)


def children(script: str) -> list[int]:
    """Our child processes that run a script."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and script in (path / "cmdline").read_text():
                found.append(int(path.name))
        except (OSError, ValueError):
            continue  # it has ended meanwhile
    return found


def test_a_command_that_cannot_run_is_lost(start) -> None:  # type: ignore[no-untyped-def]
    for command in ("/nonexistent/gst-launch-1.0 a ! b", "false"):
        camera = start(f"pipe:64x48:{command}")
        _, codes = watch(camera, lambda shots, codes: len(codes) >= 2)
        assert set(codes) == {"camera_lost"}


def test_gstreamer_is_told_to_be_quiet(tmp_path: Path, start) -> None:  # type: ignore[no-untyped-def]
    gst = tmp_path / "gst-launch-1.0"
    gst.write_text(
        f"#!{sys.executable}\nimport sys\nif sys.argv[1] != '-q': print('Setting pipeline to PAUSED ...')\n"
        "sys.stdout.flush()\nassert sys.argv[2:] == ['videotestsrc', '!', 'fdsink']\n"
        "for i in range(9): sys.stdout.buffer.write(bytes([i]) * 12)\n"
    )
    gst.chmod(0o755)
    camera = start(f"pipe:2x2:{gst} videotestsrc ! fdsink")
    shots, _ = watch(camera, lambda shots, codes: "camera_lost" in codes)
    assert camera.counts["frames"] == 9 and all(shot.image.min() == shot.image.max() for shot in shots)


def test_a_frozen_camera_moves_nothing(tmp_path: Path, start) -> None:  # type: ignore[no-untyped-def]
    camera = start(fake(tmp_path, 5, more="freeze"))
    shots, codes = watch(camera, lambda shots, codes: camera.counts["frozen"] > 20)
    assert codes == ["camera_open", "camera_frozen"] and camera.frozen
    # Frame 4 is new; 5 repeats it, and may still be chance; from 6 on it is frozen and not delivered.
    assert shots[-1].frame_id == 4 + FROZEN_FRAMES - 2
    assert camera.counts["attempts"] == 1  # it is not silent


# ---- what the thread may meet ----------------------------------------------------------------------------------


def test_a_hung_read_is_abandoned_and_heard_no_more(monkeypatch: pytest.MonkeyPatch, start) -> None:  # type: ignore[no-untyped-def]
    release = threading.Event()
    attempts = itertools.count()

    def hanging(*_: object) -> Iterator[Image]:
        attempt = next(attempts)
        yield np.full((2, 2, 3), 2 * attempt, np.uint8)
        release.wait(PATIENCE_S)  # as a driver that does not return
        yield np.full((2, 2, 3), 2 * attempt + 1, np.uint8)

    monkeypatch.setattr(module, "images", hanging)
    camera = start("0", CaptureSettings(open_timeout_s=0.2, silent_s=0.2))
    shots, codes = watch(camera, lambda shots, codes: camera.hopeless)
    assert camera.counts["attempts"] == ABANDONED_MAX and codes.count("camera_lost") >= ABANDONED_MAX - 1
    assert [int(shot.image[0, 0, 0]) for shot in shots] == [0, 2, 4]
    time.sleep(0.5)
    assert camera.latest(shots[-1].frame_id, 0.0) is None
    assert camera.counts["attempts"] == ABANDONED_MAX  # no more threads than that
    release.set()
    _, codes = watch(camera, lambda shots, codes: "camera_open" in codes)
    assert not camera.hopeless
    newest = camera.newest
    assert newest is not None and newest.image[0, 0, 0] % 2 == 0 or camera.counts["attempts"] > ABANDONED_MAX


def test_a_camera_that_never_gives_a_frame_was_never_open(monkeypatch: pytest.MonkeyPatch, start) -> None:  # type: ignore[no-untyped-def]
    def mute(
        source: CameraSource, settings: CaptureSettings, stopped: threading.Event, remark: object
    ) -> Iterator[Image]:
        stopped.wait(PATIENCE_S)
        yield from ()

    monkeypatch.setattr(module, "images", mute)
    camera = start("0", CaptureSettings(open_timeout_s=0.1, silent_s=0.1))
    _, codes = watch(camera, lambda shots, codes: len(codes) >= 3)
    assert set(codes) == {"camera_lost"} and not camera.opened


def test_another_size_and_another_failure(monkeypatch: pytest.MonkeyPatch, start) -> None:  # type: ignore[no-untyped-def]
    attempts = itertools.count()

    def changing(
        source: CameraSource, settings: CaptureSettings, stopped: threading.Event, remark: object
    ) -> Iterator[Image]:
        attempt = next(attempts)
        for i in range(6):
            stopped.wait(0.03)
            yield np.full((4 + attempt + (i > 2), 8, 3), i, np.uint8)
        if attempt == 0:
            raise cv2.error("the driver is gone")
        stopped.wait(PATIENCE_S)

    monkeypatch.setattr(module, "images", changing)
    camera = start("/dev/video0", CaptureSettings(silent_s=5.0))
    shots, codes = watch(camera, lambda shots, codes: camera.counts["frames"] >= 12)
    assert codes == ["camera_open", "camera_size", "camera_lost", "camera_open", "camera_size"]
    assert {shot.image.shape for shot in shots} == {(4, 8, 3), (5, 8, 3), (6, 8, 3)}


def test_the_latest_frame_wins_and_what_nobody_took_is_counted(tmp_path: Path, start) -> None:  # type: ignore[no-untyped-def]
    camera = start(fake(tmp_path, 40, fps=100.0, after=100.0), CaptureSettings(silent_s=30.0))
    watch(camera, lambda shots, codes: len(shots) == 1)
    deadline = time.monotonic() + PATIENCE_S
    while camera.counts["frames"] < 40 and time.monotonic() < deadline:
        time.sleep(0.01)
    newest = camera.latest(-1, 0.0)
    assert newest is not None and newest.frame_id == 39 and newest.image[0, 0, 0] == 39
    assert camera.counts["overwritten"] > 30


def test_settings_that_were_not_taken_are_told() -> None:
    class Stubborn:
        """Stands in for OpenCV's reader of a camera that has only one format."""

        def get(self, name: int) -> float:
            yuyv = float(cv2.VideoWriter.fourcc(*"YUYV"))
            return {cv2.CAP_PROP_FPS: 15.0, cv2.CAP_PROP_FOURCC: yuyv}[name]

    told = list(sources._refused(Stubborn(), CaptureSettings(1280, 720, 30.0, "MJPG"), 640, 480))  # type: ignore[arg-type]
    assert len(told) == 3 and "640×480" in told[0] and "15" in told[1] and "YUYV" in told[2]
    assert not list(sources._refused(Stubborn(), CaptureSettings(640, 480, 15.0, "YUYV"), 640, 480))  # type: ignore[arg-type]
    assert not list(sources._refused(Stubborn(), CaptureSettings(), 640, 480))  # type: ignore[arg-type]


def test_identical_means_every_bit() -> None:
    image = np.random.default_rng(1).integers(0, 256, (90, 160, 3), np.uint8)
    other = image.copy()
    assert identical(image, other) and not identical(image, None) and not identical(image, image[:80])
    other[89, 159, 2] ^= 1
    assert not identical(image, other)


# ---- streams on loopback ---------------------------------------------------------------------------------------


def free_port() -> int:
    """An even UDP port: RTP takes the next one too."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port % 2 == 0:
            return port


def send_rtp(port: int, size: tuple[int, int], stop: threading.Event) -> None:
    """A sender as on the BlueROV2: H.264 without B-frames, parameter sets in the stream, a key frame every 0.5 s."""
    with av.open(f"rtp://127.0.0.1:{port}", "w", format="rtp") as out:
        stream = out.add_stream("libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"tune": "zerolatency", "preset": "ultrafast", "x264-params": "keyint=10:repeat-headers=1"}
        for i in itertools.count():
            frame = av.VideoFrame.from_ndarray(disc(size, i % 40 / 40), format="bgr24")
            frame.pts = i
            for packet in stream.encode(frame):
                out.mux(packet)
            if stop.wait(0.05):
                return


def test_an_rtp_stream_that_stops_and_returns_with_another_size(start) -> None:  # type: ignore[no-untyped-def]
    port = free_port()
    camera = start(f"rtp://:{port}", CaptureSettings(open_timeout_s=8.0, silent_s=1.0))
    camera.latest(-1, 0.0)
    for size in ((160, 120), (320, 240)):
        stop = threading.Event()
        sender = threading.Thread(target=send_rtp, args=(port, size, stop))
        sender.start()
        try:
            shots, codes = watch(camera, lambda shots, codes: len(shots) > 10 and shots[-1].image.shape[1] == size[0])  # noqa: B023
        finally:
            stop.set()
            sender.join()
        # Before the silence was noticed or after: the reader goes on, or is opened again. Never another size unsaid.
        assert {"camera_open", "camera_size"} & set(codes) and shots[-1].image.shape == (size[1], size[0], 3)
        red = shots[-1].image[..., 2].astype(int) - shots[-1].image[..., 0]
        assert (red > 60).any()  # the disc
    watch(camera, lambda shots, codes: "camera_lost" in codes)


class Mjpeg(http.server.BaseHTTPRequestHandler):
    """A server of MJPEG over HTTP, as in many network cameras."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for i in range(30):
            jpeg = cv2.imencode(".jpg", disc((160, 120), i / 30))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + jpeg + b"\r\n")
            except OSError:
                return  # nobody listens any more
            time.sleep(0.03)

    def log_message(self, *_: object) -> None:
        pass


def test_an_http_stream_that_ends_is_opened_again(start) -> None:  # type: ignore[no-untyped-def]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mjpeg) as server:
        threading.Thread(target=server.serve_forever).start()
        camera = start(f"http://127.0.0.1:{server.server_port}/video.mjpg", CaptureSettings(silent_s=1.0))
        shots, codes = watch(camera, lambda shots, codes: codes.count("camera_open") == 2)
        camera.close()
        server.shutdown()
    assert codes == ["camera_open", "camera_lost", "camera_open"] and len(shots) > 10
    assert shots[-1].image.shape == (120, 160, 3)
