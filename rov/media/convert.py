"""Converts FFmpeg's decoded frames to upright BGR pictures."""

from __future__ import annotations

from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from rov.types import Image

ONE = 1 << 16
"""1.0 in a display matrix, whose numbers are 16.16 fixed point."""


class Turn(NamedTuple):
    """A display matrix as steps: swap rows and columns, then mirror left to right, then flip upside down."""

    swap: bool = False
    mirror: bool = False
    flip: bool = False


class Converter:
    """Converts frames to (H, W, 3) BGR. Use one for a whole stream: a new scaler for each frame costs a third of the
    time. Colour matrix and range are the stream's; without them BT.601, limited, as in FFmpeg and OpenCV. Bicubic
    gives the same pixels as OpenCV's own reader."""

    def __init__(self) -> None:
        self.reformatter = VideoReformatter()
        self.turn: Turn | None = None
        """Of the last key frame: a stream's orientation can only change there."""

    def __call__(self, frame: av.VideoFrame) -> Image:
        """Raises av.FFmpegError for a frame that cannot be converted."""
        if self.turn is None or frame.key_frame:
            self.turn = turn_of(frame)
        bgr = self.reformatter.reformat(frame, format="bgr24", interpolation=Interpolation.BICUBIC, threads=1)
        return turned(pixels(bgr), self.turn)


def pixels(bgr: av.VideoFrame) -> Image:
    """(H, W, 3) of a BGR frame: a view of its memory, or a copy where its lines are padded."""
    plane: Any = bgr.planes[0]
    lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return np.ascontiguousarray(lines[: bgr.height, : 3 * bgr.width]).reshape(bgr.height, bgr.width, 3)


def turn_of(frame: av.VideoFrame) -> Turn:
    """How a frame must be turned to stand upright."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    return parse_turn(bytes(matrix)) if matrix is not None else Turn()


def parse_turn(matrix: bytes) -> Turn:
    """The quarter turns and flips of a display matrix (nine int32: x' = a x + c y, y' = b x + d y). Other angles are
    ignored: nobody mounts a camera so."""
    if len(matrix) < 36:
        return Turn()
    a, b, _, c, d = (int(each) for each in np.frombuffer(matrix[:20], np.int32))
    near = ONE // 100
    if abs(b) <= near and abs(c) <= near and a and d:
        return Turn(False, a < 0, d < 0)
    if abs(a) <= near and abs(d) <= near and b and c:
        return Turn(True, c < 0, b < 0)
    return Turn()


def turned(image: Image, turn: Turn) -> Image:
    """The picture, turned."""
    if turn.swap:
        image = np.asarray(cv2.transpose(image), np.uint8)
    if turn.mirror or turn.flip:
        code: Any = -1 if turn.mirror and turn.flip else int(turn.mirror)  # OpenCV: 0 upside down, 1 mirrored, -1 both
        image = np.asarray(cv2.flip(image, code), np.uint8)
    return image
