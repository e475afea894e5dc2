"""Decides who may command, and which commands are too late or repeated."""

from __future__ import annotations

from rov.messages import (
    AnyCommand,
    Arm,
    Command,
    Disarm,
    Heartbeat,
    SetMode,
    SetTarget,
    SetTask,
    Sticks,
    Stop,
    TakeOver,
)

LATE_S = 1.0
"""A command that took longer than this to arrive is refused."""
SETTLE_S = 0.5
"""A command sent before a stop, or so soon after it that its sender cannot know of the stop, is refused."""
CLOCK_DRIFT = 1e-3
"""How fast two monotonic clocks may drift apart: ten times the drift of a bad quartz."""
SESSIONS = 256
"""Sessions whose last `seq` is remembered."""
USER = "user "
"""Prefix of `who` for a user of this machine, whose monotonic clock is ours."""
AHEAD_NS = 20_000_000
"""A stamp of this machine's clock may be this far ahead of `t`, which was read a moment earlier."""


class _Session:
    """A session: its last `seq`, and the offset of its clock from ours, estimated from its fastest command."""

    def __init__(self, t: int, offset: int):
        self.t, self.offset, self.seq = t, offset, -1
        self.commanded = False
        """Was it ever the operator's? Sessions that never were are forgotten first."""


class OperatorRegistry:
    """Decides who may command. TakeOver makes one session at a time the operator's, until its heartbeat is lost.

    It uses no sockets and no clock: `t` is the arrival of a command, monotonic ns on our clock; `who` is the key or
    user it came from. A session belongs to the `who` that took over in it: its name is no secret, and the same name
    from somebody else is another session.

    A command's own `t` is on its sender's clock. A user of this machine shares our clock, so that the age is known: an
    old command is late, or a recording sent again. Any other clock is compared only with itself: a command slower than
    the fastest of its session was delayed. That protects against honest delays; only keys protect against replays.
    """

    def __init__(self, timeout_s: float = 3.0):
        self.timeout_ns = int(timeout_s * 1e9)
        self.session = self.who = ""
        self.heartbeat_t: int | None = None
        """When the operator's last heartbeat (or its TakeOver) was sent, on our clock."""
        self.stopped_t: int | None = None
        self.sessions: dict[tuple[str, str], _Session] = {}
        """By (who, session); the most recent last."""

    def operator(self, t: int) -> str:
        """The operator's session; empty without one. After a lost heartbeat it must take over again."""
        if self.heartbeat_t is not None and t - self.heartbeat_t > self.timeout_ns:
            self.session = ""
        return self.session

    def check(self, command: AnyCommand, t: int, who: str = "") -> tuple[int, str]:
        """When a command was sent, ns on our clock, and why it is refused; an empty reason when it is permitted."""
        if isinstance(command, Stop):  # from anybody, however old or often
            self.stopped_t = t
            return t, ""
        if isinstance(command, Disarm):  # with any `seq`, and without using it up
            return t, self._foreign(command, t, who)
        sent_t = self._sent_t(command, t, who)
        if sent_t is None:
            return t, f"seq {command.seq} was used before in this session; it must grow"
        if late := self._late(command, sent_t, t, who):
            return sent_t, late
        return sent_t, self._refusal(command, sent_t, t, who)

    def _sent_t(self, command: Command, t: int, who: str) -> int | None:
        """When it was sent, ns on our clock; None when it is a replay."""
        offset, key = t - command.t, (who, command.session)
        known = self.sessions.pop(key, None) or _Session(t, offset)
        self.sessions[key] = known  # newest last
        if len(self.sessions) > SESSIONS:
            self._forget(key)
        if command.seq <= known.seq:
            return None
        known.offset = min(offset, known.offset + int(CLOCK_DRIFT * (t - known.t)))
        known.t, known.seq = t, command.seq
        return command.t if who.startswith(USER) else t - (offset - known.offset)

    def _forget(self, new: tuple[str, str]) -> None:
        """Forget the session that was silent longest, preferably one that never commanded."""
        others = [key for key in self.sessions if key not in (new, (self.who, self.session))]
        del self.sessions[next((key for key in others if not self.sessions[key].commanded), others[0])]

    def _late(self, command: Command, sent_t: int, t: int, who: str) -> str:
        age_s = (t - sent_t) / 1e9
        if who.startswith(USER) and (age_s > LATE_S or sent_t > t + AHEAD_NS):
            return f"it was sent {age_s:.1f} s ago; t must be this machine's monotonic clock, in ns"
        return f"it came {age_s:.1f} s late; if your clock jumped, start a new session" if age_s > LATE_S else ""

    def _foreign(self, command: Command, t: int, who: str) -> str:
        """Why a sender is refused who is not the operator; empty for the operator."""
        if not self.operator(t):
            return "there is no operator; take over first"
        if (who, command.session) == (self.who, self.session):
            return ""
        another = ", somebody else by that name" if command.session == self.session else ""
        return f"the operator is {self.session}{another}; take over first"

    def _refusal(self, command: Command, sent_t: int, t: int, who: str) -> str:
        if isinstance(command, TakeOver):
            if not command.displace and self.operator(t) and self._foreign(command, t, who):
                return f"the operator is {self.session}, and is there; to take over all the same must be asked for"
            self.session, self.who, self.heartbeat_t = command.session, who, sent_t
            self.sessions[who, command.session].commanded = True
            return ""
        if foreign := self._foreign(command, t, who):
            return foreign
        if isinstance(command, Heartbeat):
            self.heartbeat_t = max(sent_t, self.heartbeat_t or sent_t)
        elif isinstance(command, Arm | SetMode | SetTarget | SetTask | Sticks) and self.stopped_t is not None:
            if sent_t - self.stopped_t < SETTLE_S * 1e9:
                return "stopped a moment ago; ask again"
        return ""
