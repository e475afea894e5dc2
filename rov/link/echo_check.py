"""Checks that the board applies what was commanded: compares each echo with the command whose time stamp it carries.
Stamps are those of commands, in µs; times are monotonic ns."""

from __future__ import annotations

from collections.abc import Sequence

from rov.link.mavlink import MS

TOLERANCE = 0.001
"""Largest difference between echoed and commanded value: 0.4 µs of pulse width. Values cross the wire as 32-bit floats,
which costs 0.0000001; nothing else may change them, and the board does not slew."""
DIFFERS_NS = 200 * MS
"""A board whose echoes differ from the commands for this long is no longer trusted."""
FALLEN_NS = 1000 * MS
"""The limit while all echoes are 0 and no heartbeat since reports armed: within five heartbeats the board may report
that it has disarmed, which is the better explanation."""
AGREES_NS = 100 * MS
"""A difference ends after echoes have agreed for this long: a single match may be chance."""
KEPT_US = 1_000_000
"""Commands are kept this long for comparison: twice the board's watchdog time."""


class EchoCheck:
    """The commands sent to a live board, and their echoes."""

    def __init__(self) -> None:
        self.commands: dict[int, Sequence[float]] = {}
        """Commands sent, by stamp, oldest first."""
        self.differs_t: int | None = None
        """Since when echoes have differed from the commands; None while they agree."""
        self.agrees_t: int | None = None
        """Since when they agree again, before AGREES_NS ends the difference."""
        self.neutral = False
        """Whether the last echo that differed was all 0."""
        self.difference = ""
        """How the last one differed, in words."""
        self.reported = False
        """Whether the difference was reported."""

    def sent(self, stamp: int, values: Sequence[float]) -> None:
        """Remember a command that was sent."""
        self.commands[stamp] = values
        while (oldest := next(iter(self.commands))) < stamp - KEPT_US:
            del self.commands[oldest]

    def receive(self, stamp: int, values: Sequence[float], t: int) -> bool:
        """Compare a complete echo; True when it ends a difference that was reported."""
        if not self.commands or stamp < next(iter(self.commands)):
            return False  # of a command before the board was live, or one too old to count as an answer
        sent = self.commands.get(stamp)
        if sent is None:
            self.unknown(t)
            return False
        wrong = [i for i, (asked, given) in enumerate(zip(sent, values, strict=True)) if abs(asked - given) > TOLERANCE]
        if not wrong:
            return self._agree(t)
        differences = (f"thruster {i + 1} was to get {sent[i]:.3f} and got {values[i]:.3f}" for i in wrong)
        self._differ(", ".join(differences), t, neutral=not any(values))
        return False

    def unknown(self, t: int) -> None:
        """Count an echo that carries the stamp of a command that was never sent."""
        if self.commands:
            self._differ("it echoes a command that was never sent", t, neutral=False)

    def doubted(self, armed_t: int, t: int) -> bool:
        """Have echoes differed for too long? `armed_t`: when the board last reported that it is armed."""
        if self.differs_t is None or self.agrees_t is not None:
            return False
        wait = FALLEN_NS if self.neutral and armed_t <= self.differs_t else DIFFERS_NS
        return t - self.differs_t >= wait

    def _differ(self, how: str, t: int, *, neutral: bool) -> None:
        self.differs_t = t if self.differs_t is None else self.differs_t
        self.agrees_t, self.difference, self.neutral = None, how, neutral

    def _agree(self, t: int) -> bool:
        if self.differs_t is None:
            return False
        self.agrees_t = t if self.agrees_t is None else self.agrees_t
        if t - self.agrees_t < AGREES_NS:
            return False
        was_reported, self.reported = self.reported, False
        self.differs_t = self.agrees_t = None
        return was_reported
