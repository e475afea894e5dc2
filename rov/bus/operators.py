"""Who may command, and which commands still count."""

from __future__ import annotations

from rov.messages import AnyCommand, Arm, Command, Disarm, Heartbeat, SetMode, SetTarget, Sticks, Stop, TakeOver

LATE_S = 1.0
"""A command that was under way for longer than this moves nothing any more."""
SETTLE_S = 0.5
"""What was sent before a stop, or so shortly after it that its sender cannot have known, is refused."""
CLOCK_DRIFT = 1e-3
"""How fast two monotonic clocks may drift apart: ten times what a bad quartz does."""
SESSIONS = 256
"""Sessions whose last `seq` is remembered."""
USER = "user "
"""How `who` begins for a user of this machine, whose monotonic clock is ours."""
AHEAD_NS = 20_000_000
"""A stamp of this machine's clock may be this far ahead of the reader's, which read it a moment ago."""


class _Session:
    """What is known of a session: its last number, and by how much its clock is behind ours at the least delay."""

    def __init__(self, t: int, offset: int):
        self.t, self.offset, self.seq = t, offset, -1
        self.commanded = False
        """Was it ever the operator's? Those who never were are forgotten first."""


class OperatorRegistry:
    """Who may command. One session at a time is the operator's, by TakeOver; it ends when its heartbeat does.

    No sockets and no clock: `t` is when a command came, monotonic ns on our clock. `who` is whose key or user it came
    from. A session is theirs who took over in it: its name is no secret, and in another's mouth it is another session.

    A command's own `t` is its sender's clock. A user of this machine has the same clock as we, so that its age is
    known: an old one is late, or was recorded and is said again. Any other clock is compared with itself only: what
    comes later than its session's quickest was delayed. This orders those who mean well; that nobody says again what
    others said is the work of the keys.
    """

    def __init__(self, timeout_s: float = 3.0):
        self.timeout_ns = int(timeout_s * 1e9)
        self.session = self.who = ""
        self.heartbeat_t: int | None = None
        """When the operator's last heartbeat (or its TakeOver) was sent, on our clock."""
        self.stopped_t: int | None = None
        self.sessions: dict[tuple[str, str], _Session] = {}
        """By who and session."""

    def operator(self, t: int) -> str:
        """The operator's session; empty when there is none, or its heartbeat was lost: then it must take over again."""
        if self.heartbeat_t is not None and t - self.heartbeat_t > self.timeout_ns:
            self.session = ""
        return self.session

    def check(self, command: AnyCommand, t: int, who: str = "") -> tuple[int, str]:
        """When a command was sent, on our clock, and why it is refused; nothing when it may be carried out."""
        if isinstance(command, Stop):  # from anybody, however old or often
            self.stopped_t = t
            return t, ""
        if isinstance(command, Disarm):  # whatever its number, which it does not use up either
            return t, self._foreign(command, t, who)
        sent_t = self._sent_t(command, t, who)
        if sent_t is None:
            return t, f"seq {command.seq} was used before in this session; it must grow"
        if late := self._late(command, sent_t, t, who):
            return sent_t, late
        return sent_t, self._refusal(command, sent_t, t, who)

    def _sent_t(self, command: Command, t: int, who: str) -> int | None:
        """When it was sent, on our clock; None when it is a replay."""
        offset, key = t - command.t, (who, command.session)
        heard = self.sessions.pop(key, None) or _Session(t, offset)
        self.sessions[key] = heard  # newest last
        if len(self.sessions) > SESSIONS:
            self._forget(key)
        if command.seq <= heard.seq:
            return None
        heard.offset = min(offset, heard.offset + int(CLOCK_DRIFT * (t - heard.t)))
        heard.t, heard.seq = t, command.seq
        return command.t if who.startswith(USER) else t - (offset - heard.offset)

    def _forget(self, new: tuple[str, str]) -> None:
        """The session that was silent longest, and of those that never commanded where there is one."""
        others = [key for key in self.sessions if key not in (new, (self.who, self.session))]
        del self.sessions[next((key for key in others if not self.sessions[key].commanded), others[0])]

    def _late(self, command: Command, sent_t: int, t: int, who: str) -> str:
        age_s = (t - sent_t) / 1e9
        if who.startswith(USER) and (age_s > LATE_S or sent_t > t + AHEAD_NS):
            return f"it was sent {age_s:.1f} s ago; t must be this machine's monotonic clock, in ns"
        return f"it came {age_s:.1f} s late; if your clock jumped, start a new session" if age_s > LATE_S else ""

    def _foreign(self, command: Command, t: int, who: str) -> str:
        """Why somebody who is not the operator is refused."""
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
        elif isinstance(command, Arm | SetMode | SetTarget | Sticks) and self.stopped_t is not None:
            if sent_t - self.stopped_t < SETTLE_S * 1e9:
                return "stopped a moment ago; ask again"
        return ""
