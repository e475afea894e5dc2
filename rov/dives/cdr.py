"""Reads the fields of a ROS message in order: CDR (ROS 2, BlueOS's recorder) and the ROS 1 encoding."""

from __future__ import annotations

import struct
from typing import Literal

ORDERS: dict[int, Literal["big", "little"]] = {0: "big", 1: "little", 6: "big", 7: "little"}
"""Byte order by the second byte of a CDR message. Plain XCDR2 equals plain CDR for the types read here."""


class Fields:
    """A cursor over one message. Each method reads the next field and raises ValueError when the data end first."""

    def __init__(self, data: bytes, order: Literal["big", "little"], align: int):
        """`align`: numbers start at multiples of this many bytes: 4 in CDR, 1 in ROS 1."""
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
    """A cursor over a CDR message. Raises ValueError unless it is plain CDR or plain XCDR2."""
    kind = struct.unpack_from(">H", data)[0] if len(data) >= 4 else -1
    if kind not in ORDERS:
        raise ValueError("not plain CDR")
    return Fields(data[4:], ORDERS[kind], 4)


def ros1(data: bytes) -> Fields:
    """A cursor over a ROS 1 message."""
    return Fields(data, "little", 1)
