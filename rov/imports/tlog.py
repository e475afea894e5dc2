"""Reads the records of a ground station's log (.tlog): 8 bytes of wall clock in µs, big-endian, then a MAVLink frame.

Frames are of both MAVLink versions, also signed. After damage, reading continues at the next frame with a correct
checksum. pymavlink's dialect decodes the frames; its log reader is not used, because it prints, and loses what follows
a damaged record.
"""

from __future__ import annotations

import mmap
import re
from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NamedTuple

from pymavlink.dialects.v20 import ardupilotmega as dialect

from rov.link.mavlink import CHECKSUM, HEADER, HEADER_1, START, START_1, MavlinkFrame

STAMP = 8
"""Bytes of the wall clock before each frame."""
SIGNED, SIGNATURE = 0x01, 13
"""The flag of a signed frame, and the additional bytes of its signature."""
STARTS = re.compile(b"[\xfd\xfe]")
YEARS = (946_684_800.0, 4_102_444_800.0)
"""From 2000 to 2100, in s since 1970; a wall clock outside of these was not set."""


class TlogRecord(NamedTuple):
    """One frame of the log."""

    share: float
    """Share of the file read so far, 0..1."""
    wall: float | None
    """Arrival, s since 1970 on the ground station's clock; None where that was not set."""
    frame: MavlinkFrame


class Tlog:
    """A log that can be iterated repeatedly; `counts` and `unread` describe the last iteration."""

    def __init__(self, path: Path, wanted: Container[str]):
        """`wanted`: names of the messages to decode; others are only counted."""
        with path.open("rb") as file:  # mapped, because a log may be larger than memory
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.wanted = {number for number, kind in dialect.mavlink_map.items() if kind.msgname in wanted}
        self.codec = dialect.MAVLink(None)
        self.counts: Counter[str] = Counter()
        """Frames by `whole`, `wrong checksum` and `unknown`."""
        self.unread = 0
        """Bytes that belong to no record."""

    def __iter__(self) -> Iterator[TlogRecord]:
        self.counts.clear()
        self.unread = at = 0
        size = max(len(self.data), 1)
        while (end := self._end(at + STAMP)) is not None or at + STAMP < len(self.data):
            frame = self._frame(at + STAMP, end) if end is not None else None
            if frame is not None:
                yield TlogRecord(at / size, self._wall(at), frame)
            if end is None or not (frame or self._follows(end)):
                following = self._next(at)
                self.unread += following - at
                at = following
            else:
                at = end
        self.unread += max(len(self.data) - at, 0)

    def _end(self, at: int) -> int | None:
        """Where the frame at `at` ends, by its length field; None where no frame begins."""
        if at + HEADER > len(self.data) or self.data[at] not in (START, START_1):
            return None
        if self.data[at] == START_1:
            end = at + HEADER_1 + self.data[at + 1] + CHECKSUM
        else:
            flags = self.data[at + 2]
            if flags & ~SIGNED:
                return None
            end = at + HEADER + self.data[at + 1] + CHECKSUM + SIGNATURE * (flags & SIGNED)
        return end if end <= len(self.data) else None

    def _follows(self, end: int) -> bool:
        """Whether the next record, or the end of the file, is at `end`."""
        return end + STAMP >= len(self.data) or self.data[end + STAMP] in (START, START_1)

    def _kind(self, at: int) -> int:
        if self.data[at] == START_1:
            return self.data[at + 5]
        return int.from_bytes(self.data[at + 7 : at + 10], "little")

    def _frame(self, at: int, end: int) -> MavlinkFrame | None:
        """The frame, if it is wanted and whole. Unwanted frames before another record are only counted."""
        kind = self._kind(at)
        if kind not in self.wanted and self._follows(end):
            self.counts["whole" if kind in dialect.mavlink_map else "unknown"] += 1
            return None
        frame = self._decoded(at, end)
        if frame is not None:
            self.counts["whole"] += 1
        elif self._follows(end):
            self.counts["wrong checksum"] += 1
        return frame if kind in self.wanted else None

    def _decoded(self, at: int, end: int) -> MavlinkFrame | None:
        if self._kind(at) not in dialect.mavlink_map:
            return None
        raw = bytearray(self.data[at:end])
        try:
            message = self.codec.decode(raw)
        except (dialect.MAVError, ValueError):
            return None
        sequence, system, component = raw[2:5] if raw[0] == START_1 else raw[4:7]
        return MavlinkFrame(sequence, (system, component), message)

    def _next(self, at: int) -> int:
        """The next record after `at` with a correct checksum; the end of the file where there is none."""
        for found in STARTS.finditer(self.data, at + STAMP + 1):
            end = self._end(found.start())
            if end is not None and self._decoded(found.start(), end) is not None:
                return found.start() - STAMP
        return len(self.data)

    def _wall(self, at: int) -> float | None:
        seconds = int.from_bytes(self.data[at : at + STAMP], "big") / 1e6
        return seconds if YEARS[0] < seconds < YEARS[1] else None
