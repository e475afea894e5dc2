"""Does the board give its thrusters what it was commanded? Its echoes, each compared with the command whose time it
carries. Stamps are a command's, in µs; times are monotonic ns."""

from __future__ import annotations

from collections.abc import Sequence

from rov.link.mavlink import MS

TOLERANCE = 0.001
"""How far an echoed value may be from the commanded one: 0.4 µs of pulse width. They cross the wire as 32-bit floats,
which costs 0.0000001; nothing else may change them on the way, and the board does not slew."""
DIFFERS_NS = 200 * MS
"""A board that gives something else than was commanded for this long is no longer trusted."""
FALLEN_NS = 1000 * MS
"""Where it gives nothing at all, five heartbeats may say first that it has disarmed: then that is the news."""
AGREES_NS = 100 * MS
"""Only echoes that agree for this long end a difference: one that happens to fit does not."""
KEPT_US = 1_000_000
"""Commands are kept this long to be compared with. The board's watchdog falls after half of it."""


class EchoCheck:
    """The commands of a live board, and what came back."""

    def __init__(self) -> None:
        self.commands: dict[int, Sequence[float]] = {}
        """What left, by stamp, oldest first."""
        self.differs_t: int | None = None
        """Since when echoes have not been what was commanded."""
        self.agrees_t: int | None = None
        """Since when they agree again, while that is still counted as a difference."""
        self.neutral = False
        """Whether the last one that differed gave nothing to any thruster."""
        self.difference = ""
        """How it differed, in words."""
        self.said = False
        """Whether the difference was said."""

    def sent(self, stamp: int, values: Sequence[float]) -> None:
        """A command has left."""
        self.commands[stamp] = values
        while (oldest := next(iter(self.commands))) < stamp - KEPT_US:
            del self.commands[oldest]

    def receive(self, stamp: int, values: Sequence[float], t: int) -> bool:
        """A whole echo has come; True when it ends a difference that was said."""
        if not self.commands or stamp < next(iter(self.commands)):
            return False  # of a command before the board was live, or one so old that it counts as no answer
        sent = self.commands.get(stamp)
        if sent is None:
            self.unknown(t)
            return False
        wrong = [i for i, (told, given) in enumerate(zip(sent, values, strict=True)) if abs(told - given) > TOLERANCE]
        if not wrong:
            return self._agree(t)
        told = (f"thruster {i + 1} was to get {sent[i]:.3f} and got {values[i]:.3f}" for i in wrong)
        self._differ(", ".join(told), t, neutral=not any(values))
        return False

    def unknown(self, t: int) -> None:
        """An echo carries the time of a command that was never sent."""
        if self.commands:
            self._differ("it echoes a command that was never sent", t, neutral=False)

    def doubted(self, armed_t: int, t: int) -> bool:
        """Has it differed for too long? `armed_t`: when the board last said that it is armed."""
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
        was_said, self.said = self.said, False
        self.differs_t = self.agrees_t = None
        return was_said
