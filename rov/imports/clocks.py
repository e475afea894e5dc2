"""Sorts a log's time stamps by clock: a restarted autopilot counts from 0 again, and two vehicles may interleave.

Times are ns since the first boot in the log, and only grow. A log is read twice: the first reading finds the clocks;
the second, with the same records in the same order, places each record on the timeline made of them.
"""

from __future__ import annotations

from dataclasses import dataclass

S = 1_000_000_000
LATE_NS = 5 * S
"""A stamp up to this much before the last one is a late record; an even earlier one is of another clock."""
AHEAD_NS = 5 * S
"""A stamp may be ahead of the last one by the time that passed on the wall clock plus this."""
REAL = 3
"""A clock with fewer stamps than this comes from damaged records."""
TURNS = 3
"""Two clocks that alternate more often than this are two vehicles, not one that restarted."""
LONG_NS = 86_400 * S
"""A pause of more than a day is not believed."""
OLDEST_NS = 400 * LONG_NS
"""An uptime of more than 400 days is not believed."""
SINCE_NS = 2 * S
"""A record without a stamp is placed at most this long after the last stamped one; a later one means that the wall
clock jumped."""


@dataclass
class BootClock:
    """One clock in a log: one boot of one vehicle. Stamps in ns, wall clock in s."""

    first: int
    first_wall: float | None
    begun: int
    """Index of its first stamp among all stamps."""
    stamp: int = 0
    wall: float | None = None
    """Wall clock at the newest stamp, s."""
    sequence: int = 0
    ended: int = 0
    count: int = 0
    turns: int = 0
    """How often it followed a stamp of another clock."""

    def fits(self, stamp: int, wall: float | None) -> int | None:
        """How far a stamp is from the expected time, in ns; None when it cannot be of this clock."""
        passed = max(round((wall - self.wall) * S), 0) if wall is not None and self.wall is not None else 0
        ahead = stamp - self.stamp
        return abs(ahead - passed) if -LATE_NS <= ahead <= passed + AHEAD_NS else None


class BootClocks:
    """The clocks of one MAVLink sender."""

    def __init__(self) -> None:
        self.all: list[BootClock] = []
        self.stamps = 0
        self.current = -1
        self.jumps = 0
        """How often the wall clock jumped by more than 5 s against the sender's clock."""

    def assign(self, stamp: int, wall: float | None, sequence: int = 0) -> int:
        """The number of the clock that a stamp (ns) belongs to, a new one if none fits. `wall`: arrival time, s."""
        fitting = [
            (off, number)
            for number, clock in enumerate(self.all[-8:], max(len(self.all) - 8, 0))
            if (off := clock.fits(stamp, wall)) is not None
        ]
        if fitting:
            number = min(fitting)[1]
        else:
            number = len(self.all)
            self.all.append(BootClock(stamp, wall, self.stamps))
        clock = self.all[number]
        if clock.count and wall is not None and clock.wall is not None:
            self.jumps += abs((wall - clock.wall) - (stamp - clock.stamp) / S) > 5
        clock.turns += number != self.current
        clock.count += 1
        clock.stamp, clock.wall, clock.sequence, clock.ended = stamp, wall, sequence, self.stamps
        self.stamps += 1
        self.current = number
        return number


class Timeline:
    """The clocks of one vehicle in sequence, as the first reading found them."""

    def __init__(self, clocks: BootClocks):
        self.bases: dict[int, int] = {}
        """By clock number: what to add to its stamps to get the log's time, ns."""
        self.restarts: list[int] = []
        """When the vehicle restarted, ns."""
        self.others: list[int] = []
        """Clocks of another vehicle that used the same system number at the same time."""
        self.beginning: BootClock | None = None
        real = {n: clock for n, clock in enumerate(clocks.all) if clock.count >= REAL and clock.first < OLDEST_NS}
        mine: list[int] = []
        for number in sorted(real, key=lambda n: -real[n].count):
            (self.others if any(at_once(real[number], real[m]) for m in mine) else mine).append(number)
        before: BootClock | None = None
        base = 0
        for number in sorted(mine, key=lambda n: real[n].begun):
            clock = real[number]
            self.beginning = self.beginning or clock
            if before is not None:
                base = self._following(base, before, clock)
            self.bases[number] = base
            before = clock

    def _following(self, base: int, before: BootClock, clock: BootClock) -> int:
        """The base of a clock that follows another one."""
        pause = clock.first - before.stamp
        if 0 <= pause < LONG_NS:
            return base  # the same boot, after a gap
        passed = S
        if before.wall is not None and clock.first_wall is not None:
            passed = round((clock.first_wall - before.wall) * S)
        end = base + before.stamp
        self.restarts.append(end)
        return end + (passed if 0 < passed < LONG_NS else S) - clock.first

    def at(self, number: int, stamp: int) -> int | None:
        """The log's time of a stamp, ns; None for a clock that is not this vehicle's."""
        base = self.bases.get(number)
        return base + stamp if base is not None and base + stamp >= 0 else None

    def since(self, clocks: BootClocks, wall: float | None, sequence: int | None = None) -> int | None:
        """The time of a record without a stamp, from the newest stamp before it, or else the first one; None where
        that is of another vehicle. Where two vehicles interleave, the frame's `sequence` shows whose record it is."""
        known = [n for n in (*self.bases, *self.others) if n < len(clocks.all)]
        if not known:
            return self._before(wall)
        if sequence is not None and self.others:
            number = min(known, key=lambda n: (sequence - clocks.all[n].sequence) % 256)
        else:
            number = max((n for n in known if n in self.bases), key=lambda n: clocks.all[n].ended, default=-1)
        if number not in self.bases:
            return None
        clock = clocks.all[number]
        t = self.at(number, clock.stamp)
        if t is None or wall is None or clock.wall is None:
            return t
        return t + min(max(round((wall - clock.wall) * S), 0), SINCE_NS)

    def _before(self, wall: float | None) -> int | None:
        """The time of a record before the first stamp."""
        first = self.beginning
        if first is None or wall is None or first.first_wall is None:
            return first.first if first else None
        return max(first.first - min(max(round((first.first_wall - wall) * S), 0), SINCE_NS), 0)


def at_once(a: BootClock, b: BootClock) -> bool:
    """Whether both clocks ran at the same time."""
    return a.begun < b.ended and b.begun < a.ended and min(a.turns, b.turns) > TURNS
