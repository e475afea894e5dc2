"""MAVLink on a byte stream: finds frames in whatever arrives, packs messages, and follows the sender's clock.

pymavlink's generated dialect packs and decodes. Its own stream parser is not used: after a false or broken frame it
throws away as many bytes as that frame claimed to have, good frames among them, it lets unknown messages through
unchecked, and the environment can switch its checksums off.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from pymavlink.dialects.v20 import common

START = 0xFD
HEADER = 10
"""Bytes: start, payload length, two flag bytes, sequence, system, component, message id (3)."""
START_1 = 0xFE
HEADER_1 = 6
"""MAVLink 1: start, payload length, sequence, system, component, message id."""
CHECKSUM = 2
MS = 1_000_000  # ns
QUIET_NS = 500 * MS
"""After this long without anything newer, older stamps mean that the sender has restarted."""
DRIFT = 1e-3
"""Rate at which two clocks may drift apart; crystals are far better, and the board contract demands them."""


class MavlinkFrame(NamedTuple):
    """One message that arrived whole, and its sender."""

    sequence: int
    """0..255, one more with every frame of its sender."""
    sender: tuple[int, int]
    """System and component."""
    message: Any
    """pymavlink's; its class is `type(message)`, its fields are attributes."""


class Parser:
    """Bytes in, frames out. Never raises, and keeps at most one unfinished frame (267 bytes).

    Where a supposed frame fails, the search goes on at its second byte, so that a good frame is found whatever precedes
    it. Signed frames and messages outside the dialect are skipped as noise, and so is MAVLink 1 unless it is expected
    (`version_1`).
    """

    def __init__(self, *, version_1: bool = False) -> None:
        self.codec = common.MAVLink(None)
        self.starts = re.compile(b"[\xfd\xfe]" if version_1 else b"\xfd")
        self.buffer = bytearray()
        self.skipped = 0
        """Bytes that belonged to no frame."""
        self.broken = 0
        """Frames with a good header and a wrong checksum."""

    def feed(self, data: bytes) -> list[MavlinkFrame]:
        """The frames that these bytes complete, in order."""
        self.buffer += data
        frames = []
        at = 0
        while found := self.starts.search(self.buffer, at):
            self.skipped += found.start() - at
            at = found.start()
            length = self._length(at)
            if length is not None and len(self.buffer) < at + length:
                break  # the rest has not arrived
            frame = None if length is None else self._frame(self.buffer[at : at + length])
            if frame is None or length is None:
                self.skipped += 1
                at += 1
            else:
                frames.append(frame)
                at += length
        else:
            self.skipped += len(self.buffer) - at
            at = len(self.buffer)
        del self.buffer[:at]
        return frames

    def reset(self) -> None:
        """Forget an unfinished frame: a new stream begins."""
        self.buffer.clear()

    def _length(self, at: int) -> int | None:
        """Bytes of the frame at `at`; the header's while that is incomplete; None if no frame can begin there."""
        header = self.buffer[at : at + HEADER]
        if header[0] == START_1:
            if len(header) < HEADER_1:
                return HEADER_1
            return HEADER_1 + header[1] + CHECKSUM if header[5] in common.mavlink_map else None
        if len(header) > 2 and header[2] != 0:  # a flag that changes the format
            return None
        if len(header) < HEADER:
            return HEADER
        if int.from_bytes(header[7:10], "little") not in common.mavlink_map:
            return None
        return HEADER + header[1] + CHECKSUM

    def _frame(self, raw: bytearray) -> MavlinkFrame | None:
        """Decode one frame; None if its checksum is wrong or the dialect cannot decode it."""
        first = raw[0] == START_1
        kind = common.mavlink_map[raw[5] if first else int.from_bytes(raw[7:10], "little")]
        checksum = common.x25crc(raw[1:-CHECKSUM] + bytes([kind.crc_extra])).crc
        if checksum != int.from_bytes(raw[-CHECKSUM:], "little"):
            self.broken += 1
            return None
        try:
            message = self.codec.decode(raw)
        except common.MAVError:
            self.broken += 1
            return None
        sequence, system, component = raw[2:5] if first else raw[4:7]
        return MavlinkFrame(sequence, (system, component), message)


class Packer:
    """Packs messages into numbered frames."""

    def __init__(self, system: int, component: int):
        self.codec = common.MAVLink(None, srcSystem=system, srcComponent=component)

    def pack(self, message: Any) -> bytes:
        """The frame of a pymavlink message. Raises struct.error for values that do not fit its fields."""
        frame: bytes = message.pack(self.codec)
        self.codec.seq = (self.codec.seq + 1) % 256
        return frame


class SenderClock:
    """Orders measurements by their `time_boot_ms` and converts that to our clock. All times are monotonic ns, ours."""

    def __init__(self) -> None:
        self.now: int | None = None
        """The newest stamp, ms; counts on where the wire's 32 bits wrap after 49.7 days."""
        self.received_t = 0
        self.newest: dict[str, int] = {}
        self.behind: dict[str, int] = {}
        """The last stamp of each kind that looked old."""
        self.offset = 0
        """From the sender's time to ours in ns, by the least delayed message and what the clocks may have drifted."""
        self.lower: tuple[int, int] | None = None
        """Time and lag of a message that seemed less delayed than any before. It counts once a message of another read
        confirms it: after a stall a whole read carries an outdated clock, and all of it seems early."""

    def measured(self, kind: str, stamp: int, t: int) -> int | None:
        """When something that arrives at `t` was measured, on our clock; None if a newer one of its kind is known.

        A message counts as late by its extra delay over the least delayed one, so that queued messages do not look
        fresh. Where stamps stay behind and yet advance for QUIET_NS, the sender has restarted: see `restarted`.
        """
        clock = self._counted(stamp)
        if clock <= self._floor(kind, clock - 1):
            self.behind[kind] = clock
            return None
        self.behind.pop(kind, None)
        self.newest[kind] = clock
        lag = t - clock * MS
        self.offset = lag if self.now is None else self._least(lag, t)
        self.now = clock if self.now is None else max(self.now, clock)
        self.received_t = t
        return min(clock * MS + self.offset, t)

    def _least(self, lag: int, t: int) -> int:
        """The least lag, this one included."""
        offset = self.offset + int(DRIFT * (t - self.received_t))
        if lag >= offset:
            return offset
        if self.lower is None or t - self.lower[0] > QUIET_NS:
            self.lower = (t, lag)
        elif t != self.lower[0]:
            offset, self.lower = min(offset, max(lag, self.lower[1])), (t, min(lag, self.lower[1]))
        return offset

    def restarted(self, kind: str, stamp: int, t: int) -> bool:
        """Does this stamp, not yet given to `measured`, show that the sender's clock has restarted?"""
        if kind not in self.behind or t - self.received_t <= QUIET_NS:
            return False
        return self.behind[kind] < self._counted(stamp) <= self._floor(kind, 0)

    def _counted(self, stamp: int) -> int:
        """A 32-bit stamp unwrapped to the value nearest to `now`."""
        if self.now is None:
            return stamp
        return self.now + (stamp - self.now + 2**31) % 2**32 - 2**31

    def _floor(self, kind: str, unknown: int) -> int:
        """Stamps up to this are old: for their kind, or because another kind is newer by QUIET_NS."""
        if self.now is None:
            return unknown
        return max(self.newest.get(kind, self.now - QUIET_NS // MS), self.now - QUIET_NS // MS)
