"""The wire between a simulated vehicle and its companion: transmission faults, and the pty at its end."""

from __future__ import annotations

import contextlib
import os
import random
import select
import tty
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

MS = 1_000_000  # ns


@dataclass
class NoisyWire:
    """Faults of frames on their way to the companion: probabilities per frame, 0..1, and a delay in s."""

    drop: float = 0.0
    repeat: float = 0.0
    swap: float = 0.0
    """Sent after the next one."""
    corrupt: float = 0.0
    """One bit flipped."""
    cut: float = 0.0
    """Only its first half."""
    noise: float = 0.0
    """Up to 40 random bytes before it."""
    delay: float = 0.0
    mute: bool = False
    random: random.Random = field(default_factory=lambda: random.Random(0))
    held: bytes | None = None
    queue: deque[tuple[int, bytes]] = field(default_factory=deque)

    def carry(self, frames: list[bytes], t: int) -> bytes:
        """The bytes that come out of the other end at `t`."""
        for frame in frames:
            if self.mute or self._happens(self.drop):
                continue
            if self.held is None and self._happens(self.swap):
                self.held = frame
                continue
            due = t + int(self.delay * 1e9)
            self.queue.append((due, self._spoiled(frame)))
            if self._happens(self.repeat):
                self.queue.append((due, frame))
            if self.held is not None:
                self.queue.append((due, self.held))
                self.held = None
        out = b""
        while self.queue and self.queue[0][0] <= t:
            out += self.queue.popleft()[1]
        return out

    def _spoiled(self, frame: bytes) -> bytes:
        if self._happens(self.corrupt):
            bit = self.random.randrange(8 * len(frame))
            flipped = int.from_bytes(frame, "little") ^ (1 << bit)
            frame = flipped.to_bytes(len(frame), "little")
        if self._happens(self.cut):
            frame = frame[: len(frame) // 2]
        return (self.random.randbytes(self.random.randrange(41)) if self._happens(self.noise) else b"") + frame

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self.random.random() < probability


class Pty:
    """The cable. Unplugging hangs up the companion; plugged in again it is a new device under the same link."""

    def __init__(self, link: Path | None = None):
        self.link = link
        self.deaf = False
        """Nothing is read: the companion's bytes pile up in the pty."""
        self.ends: tuple[int, int] | None = None
        self.path = ""
        self.plug()

    def plug(self) -> None:
        if self.ends is not None:
            return
        # The companion's end stays open here as well, so that the board survives when the companion closes it.
        self.ends = os.openpty()
        tty.setraw(self.ends[1])
        os.set_blocking(self.ends[0], False)
        self.path = os.ttyname(self.ends[1])
        if self.link is not None:
            new = self.link.with_name(self.link.name + ".new")
            new.unlink(missing_ok=True)
            new.symlink_to(self.path)
            new.replace(self.link)

    def unplug(self) -> None:
        if self.ends is None:
            return
        if self.link is not None:
            self.link.unlink(missing_ok=True)
        for end in self.ends:
            os.close(end)
        self.ends = None

    def read(self) -> bytes:
        """The bytes that the companion has sent."""
        if self.ends is None or self.deaf:
            return b""
        try:
            return os.read(self.ends[0], 65536)
        except BlockingIOError:
            return b""

    def write(self, data: bytes) -> None:
        """Send; when the companion does not read, frames are lost and cut, as on a wire."""
        if self.ends is not None and data:
            with contextlib.suppress(BlockingIOError):
                os.write(self.ends[0], data)

    def wait(self, others: list[int], seconds: float) -> list[int]:
        """Sleep until there is something to read, here or at `others`; returns which of those are ready."""
        mine = [] if self.ends is None or self.deaf else [self.ends[0]]
        ready, _, _ = select.select(mine + others, [], [], seconds)
        return [fd for fd in ready if fd in others]
