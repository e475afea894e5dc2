"""Repairs the time stamps of a video: its own where they make sense, and strictly increasing in any case."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

JUMP_NS = 10_000_000_000
"""A gap longer than this, and than JUMP_TIMES times the gap before it, is a jump of the clock: in the video of a slow
camera all gaps are long."""
JUMP_TIMES = 20
FAR_NS = 2**61
"""73 years: larger stamps are invalid."""
NOTES_MAX = 3
"""Number of jumps that are reported one by one."""


class Stamps:
    """Gives each picture its time. `notes` lists what was wrong with the file's own times, in order."""

    def __init__(self, step_ns: int):
        """`step_ns`: time between pictures where the file has none."""
        self.step = max(1, step_ns)
        self.jumps = self.strays = 0
        self.sentences: list[str] = []

    def steady(self, pictures: Iterable[tuple[int | None, T]]) -> Iterator[tuple[int, T]]:
        """The same pictures with increasing times. In: ns from the video's start, None where the file has no time.

        A jump forward is kept (the recording may have paused); after a jump backward, time continues from the picture
        before it; a single picture with a stray time is put between its neighbours.
        """
        last, usual, shift = -1, self.step, 0
        iterator = iter(pictures)
        held = next(iterator, None)
        while held is not None:
            (stamp, picture), held = held, next(iterator, None)
            t = stamp + shift if stamp is not None and abs(stamp) < FAR_NS else last + self.step if last >= 0 else 0
            far = max(JUMP_NS, JUMP_TIMES * usual)
            if last >= 0 and t > last + far:
                after = held[0] + shift if held is not None and held[0] is not None else None
                if after is not None and last < after < t:
                    self.strays += 1
                    t = max(last + 1, min(last + self.step, (last + after) // 2))
                else:
                    self._jumped(t - last - usual, last + usual)
                    usual = self.step
            elif t <= last:
                if t < last - JUMP_NS:
                    self._jumped(t - last - usual, last + usual)
                    shift += last + usual - t
                    t = last + usual
                else:
                    t = last + self.step
            elif last >= 0:
                usual = t - last
            last = t
            yield t, picture

    def _jumped(self, by_ns: int, at_ns: int) -> None:
        self.jumps += 1
        if self.jumps <= NOTES_MAX:
            self.sentences.append(f"the video's clock jumps {by_ns / 1e9:.0f} s at {at_ns / 1e9:.1f} s")

    @property
    def notes(self) -> list[str]:
        """Sentences about the video's clock."""
        more = [f"it jumps {self.jumps - NOTES_MAX} more times"] if self.jumps > NOTES_MAX else []
        if self.strays:
            more.append(f"{self.strays} of its pictures had a stray time; each was put between its neighbours")
        return self.sentences + more
