"""Draws tracks, setpoint and thruster commands on the pictures, and writes them as a video that browsers play."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from rov.errors import UserError
from rov.messages import Box, Setpoint, ThrusterCommand, Track, Tracks
from rov.types import Image

FONT = cv2.FONT_HERSHEY_SIMPLEX
INK, DIM, DARK, ALARM = (255, 255, 255), (150, 150, 150), (30, 24, 18), (90, 90, 255)
SETPOINT, THRUST = (70, 215, 240), (255, 190, 90)
COLOURS = {
    "buoy_red": (80, 80, 255), "buoy_green": (90, 210, 90), "buoy_yellow": (60, 220, 250), "gate_post": (60, 160, 255),
    "channel": (200, 220, 60), "bottle": (255, 200, 100), "bag": (235, 130, 220), "metal": (205, 205, 205),
    "rock": (120, 165, 205), "fish": (150, 235, 170), "jellyfish": (255, 150, 170), "shark": (220, 150, 100),
    "stingray": (170, 200, 255), "starfish": (110, 130, 240),
}  # fmt: skip
"""BGR for the classes of our detector. Any other class gets one of these, always the same, by a hash of its name."""
SMALL, HUD_FROM = 320, 200
"""px of the shorter side: below the first, lines and letters shrink no further; below the second only boxes are
drawn."""


def draw(
    image: Image,
    tracks: Tracks,
    setpoint: Setpoint | None = None,
    command: ThrusterCommand | None = None,
    mode: str = "",
    t_s: float | None = None,
) -> Image:
    """A copy of the BGR picture with a box per track (dashed while hidden), bars for the setpoint and the thrusters
    (right is positive), mode, time in s, and why the thrusters are neutral. Everything scales with the picture."""
    out = image.copy()
    short = min(out.shape[:2])
    scale = max(short, SMALL) / 640
    boxes = [(item, box) for item in tracks.items if (box := _within(item.box, out)) is not None]
    for item, box in boxes:
        _box(out, box, colour_of(item.label), scale, item.hidden_s > 0)
    if short < HUD_FROM:
        return out
    for item, (x1, y1, _, _) in boxes:  # after all boxes: no line crosses a name
        _tag(out, _name(item), x1, y1, 0.5 * scale, DARK, colour_of(item.label))
    if setpoint is not None:
        axes = ("surge", "sway", "heave", "yaw")
        _bars(out, [(axis, getattr(setpoint, axis)) for axis in axes], scale, SETPOINT, False)
    if command is not None and command.values:
        _bars(out, [(f"{i}", value) for i, value in enumerate(command.values, 1)], scale, THRUST, True)
    _head(out, command, mode, t_s, scale)
    return out


def _name(item: Track) -> str:
    number = f" #{item.track_id}" if item.track_id else ""
    score = f"hidden {item.hidden_s:.1f} s" if item.hidden_s > 0 else f"{item.score:.2f}"
    return f"{item.label}{number}  {score}"


def _head(out: Image, command: ThrusterCommand | None, mode: str, t_s: float | None, scale: float) -> None:
    """Mode and time in the upper left corner, and below them why the thrusters are neutral."""
    head = "   ".join(part for part in (mode, "" if t_s is None else f"{t_s:.2f} s") if part)
    pad = round(10 * scale)
    if head:
        _tag(out, head, pad, pad, 0.6 * scale, INK)
    if command is not None and (command.neutral_because or not command.armed):
        why = command.neutral_because or "disarmed"
        _tag(out, why, pad, pad + (round(32 * scale) if head else 0), 0.6 * scale, ALARM)


def colour_of(label: str) -> tuple[int, int, int]:
    """BGR of a class."""
    return COLOURS.get(label) or list(COLOURS.values())[zlib.crc32(label.encode()) % len(COLOURS)]


def _within(box: Box, out: Image) -> tuple[int, int, int, int] | None:
    """The box in whole pixels, clipped just outside the picture (OpenCV draws with int32); None when all of it is
    outside."""
    height, width = out.shape[:2]
    x1, y1, x2, y2 = box
    if not (x1 < width and x2 > 0 and y1 < height and y2 > 0):
        return None
    return max(-9, round(x1)), max(-9, round(y1)), round(min(x2, width + 9)), round(min(y2, height + 9))


def _box(out: Image, box: tuple[int, int, int, int], colour: Any, scale: float, dashed: bool) -> None:
    (x1, y1, x2, y2), line, dash = box, max(1, round(2 * scale)), max(3, round(9 * scale))
    if not dashed:
        cv2.rectangle(out, (x1, y1), (x2, y2), colour, line, cv2.LINE_AA)
        return
    step = 2 * (dash + line)  # a line's ends are round and eat into the gap
    for x in range(x1, x2, step):
        for y in (y1, y2):
            cv2.line(out, (x, y), (min(x + dash, x2), y), colour, line, cv2.LINE_AA)
    for y in range(y1, y2, step):
        for x in (x1, x2):
            cv2.line(out, (x, y), (x, min(y + dash, y2)), colour, line, cv2.LINE_AA)


def _bars(out: Image, bars: list[tuple[str, float]], scale: float, colour: Any, at_right: bool) -> None:
    """A panel in a lower corner: rows of a name and a bar around its middle."""
    height, width = out.shape[:2]
    size, pad, half, row = 0.45 * scale, round(8 * scale), round(42 * scale), round(18 * scale)
    name = max(_extent(label, size)[0] for label, _ in bars)
    w, h = name + 2 * half + 3 * pad, row * len(bars) + pad
    left, top = (width - w - pad if at_right else pad), height - h - pad
    _shade(out, left, top, left + w, top + h)
    thick, middle = max(1, round(4 * scale)), left + name + 2 * pad + half
    for i, (label, value) in enumerate(bars):
        y = top + pad // 2 + row * i + row // 2
        _write(out, label, left + pad, y + _extent(label, size)[1] // 2, size, INK)
        cv2.rectangle(out, (middle - half, y), (middle + half, y), DIM, -1)
        end = middle + round(half * max(-1.0, min(1.0, value)))
        cv2.rectangle(out, (min(middle, end), y - thick), (max(middle, end), y + thick), colour, -1)
        cv2.rectangle(out, (middle, y - thick), (middle + max(0, round(scale) - 1), y + thick), INK, -1)


def _tag(out: Image, text: str, x: int, y: int, size: float, ink: Any, fill: Any = None) -> None:
    """Text on a plate: shaded, with its top at `y`; or with `fill`, standing on `y` where there is room."""
    w, h = _extent(text, size)
    pad = max(2, round(0.4 * h))
    x = max(0, min(x, out.shape[1] - w - 2 * pad))
    if fill is None:
        _shade(out, x, y, x + w + 2 * pad, y + h + 2 * pad)
    else:
        y = max(0, min(y - h - 2 * pad, out.shape[0] - h - 2 * pad))
        cv2.rectangle(out, (x, y), (x + w + 2 * pad, y + h + 2 * pad), fill, -1)
    _write(out, text, x + pad, y + h + pad, size, ink)


def _shade(out: Image, x1: int, y1: int, x2: int, y2: int) -> None:
    panel = out[max(0, y1) : max(0, y2), max(0, x1) : max(0, x2)]
    panel[:] = (panel * 0.4 + np.array(DARK) * 0.6).astype(np.uint8)


def _extent(text: str, size: float) -> tuple[int, int]:
    """Width of a text and height of its capitals, in px."""
    (width, _), _ = cv2.getTextSize(text, FONT, size, _weight(size))
    return width, round(22 * size)  # getTextSize's height differs between OpenCV 4 and 5


def _write(out: Image, text: str, x: int, y: int, size: float, ink: Any) -> None:
    cv2.putText(out, text, (x, y), FONT, size, ink, _weight(size), cv2.LINE_AA)


def _weight(size: float) -> int:
    return max(1, round(1.8 * size))


class OverlayWriter:
    """Writes an mp4 with VP9, which browsers play and whose encoder is free (x264 is GPL; OpenCV's own writer has only
    MPEG-4 part 2, which browsers refuse). Frames keep their own times; odd sizes lose a row or column; pictures of
    another size are scaled. Raises UserError where the file cannot be written."""

    def __init__(self, path: Path, width: int, height: int, fps: float):
        self.size = (max(2, width - width % 2), max(2, height - height % 2))
        # faststart puts the index at the front: a browser starts to play before it has all of the file
        self.path = path
        with self._writing():
            self.container = av.open(f"file:{path}", "w", format="mp4", options={"movflags": "+faststart"})
        options = {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "crf": "34", "b": "0"}
        self.stream = self.container.add_stream("libvpx-vp9", rate=max(1, round(fps)), options=options)
        self.stream.width, self.stream.height = self.size
        self.stream.pix_fmt = "yuv420p"
        self.stream.codec_context.time_base = Fraction(1, 1000)
        self.first_t: int | None = None
        self.last_ms = -1

    def __enter__(self) -> OverlayWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, image: Image, t: int) -> None:
        """Append a BGR picture taken at time `t` (ns). Times that do not increase become 1 ms steps."""
        width, height = self.size
        if image.shape[1] - width not in (0, 1) or image.shape[0] - height not in (0, 1):
            image = np.asarray(cv2.resize(image, self.size), np.uint8)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="bgr24")
        self.first_t = t if self.first_t is None else self.first_t
        self.last_ms = max(self.last_ms + 1, round((t - self.first_t) / 1e6))
        frame.pts, frame.time_base = self.last_ms, Fraction(1, 1000)
        with self._writing():
            for packet in self.stream.encode(frame):
                self.container.mux(packet)

    def close(self) -> None:
        """Finish the file."""
        with self._writing():
            try:
                for packet in self.stream.encode():
                    self.container.mux(packet)
            finally:
                self.container.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}") from None
