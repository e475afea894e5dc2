"""The fields of a ROS message, one after the other: CDR (ROS 2, and BlueOS's recorder) and ROS 1's own way."""

from __future__ import annotations

import struct
from typing import Literal

ORDERS: dict[int, Literal["big", "little"]] = {0: "big", 1: "little", 6: "big", 7: "little"}
"""By the second byte of a CDR message: plain CDR, and plain XCDR2, which is the same for what is read here."""


class Fields:
    """What is left of one message. Every method takes one field, and raises ValueError where it is not there."""

    def __init__(self, data: bytes, order: Literal["big", "little"], align: int):
        """`align`: numbers stand at multiples of this, 4 in CDR, 1 in ROS 1."""
        self.data, self.order, self.align = data, order, align
        self.position = 0

    def u8(self) -> int:
        return self._take(1)[0]

    def u32(self) -> int:
        self.position += -self.position % self.align
        return int.from_bytes(self._take(4), self.order)

    def blob(self) -> bytes:
        return self._take(self.u32())

    def text(self) -> str:
        return self.blob().rstrip(b"\0").decode("utf-8", "replace")

    def time(self) -> int:
        """ns."""
        return self.u32() * 1_000_000_000 + self.u32()

    def _take(self, length: int) -> bytes:
        end = self.position + length
        if end > len(self.data):
            raise ValueError("cut off")
        self.position, start = end, self.position
        return self.data[start:end]


def cdr(data: bytes) -> Fields:
    """Raises ValueError when it is not one of the plain kinds of CDR."""
    kind = struct.unpack_from(">H", data)[0] if len(data) >= 4 else -1
    if kind not in ORDERS:
        raise ValueError("not plain CDR")
    return Fields(data[4:], ORDERS[kind], 4)


def ros1(data: bytes) -> Fields:
    return Fields(data, "little", 1)
