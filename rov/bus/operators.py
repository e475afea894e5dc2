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


class _Heard:
    """What is known of a session: its last number, and by how much its clock is behind ours at the least delay."""

    def __init__(self, t: int, offset: int):
        self.t, self.offset, self.seq = t, offset, -1


class Operators:
    """Who may command. One session at a time is the operator's, by TakeOver; it ends when its heartbeat does.

    No sockets and no clock: `t` is when a command came, monotonic ns on our clock. A command's own `t` is its sender's
    clock, which is never compared with ours, only with itself: what comes later than its session's quickest was
    delayed. This orders those who mean well; who may speak at all is decided by the keys.
    """

    def __init__(self, timeout_s: float = 3.0):
        self.timeout_ns = int(timeout_s * 1e9)
        self.session = ""
        self.heard_t: int | None = None
        """When the operator's last heartbeat (or its TakeOver) was sent, on our clock."""
        self.stopped_t: int | None = None
        self.heard: dict[str, _Heard] = {}

    def operator(self, t: int) -> str:
        """The operator's session; empty when there is none, or its heartbeat was lost: then it must take over again."""
        if self.heard_t is not None and t - self.heard_t > self.timeout_ns:
            self.session = ""
        return self.session

    def judge(self, command: AnyCommand, t: int) -> tuple[int, str]:
        """When a command was sent, on our clock, and why it is refused; nothing when it may be carried out."""
        if isinstance(command, Stop):  # from anybody, however old or often
            self.stopped_t = t
            return t, ""
        sent_t = self._sent(command, t)
        if sent_t is None:
            return t, f"seq {command.seq} was used before in this session; it must grow"
        return sent_t, self._refusal(command, sent_t, t)

    def _sent(self, command: Command, t: int) -> int | None:
        """When it was sent, on our clock; None when it is a replay."""
        offset = t - command.t
        heard = self.heard.pop(command.session, None) or _Heard(t, offset)
        self.heard[command.session] = heard  # newest last
        if len(self.heard) > SESSIONS:
            del self.heard[next(name for name in self.heard if name != self.session)]
        if command.seq <= heard.seq:
            return None
        heard.offset = min(offset, heard.offset + int(CLOCK_DRIFT * (t - heard.t)))
        heard.t, heard.seq = t, command.seq
        return t - (offset - heard.offset)

    def _refusal(self, command: Command, sent_t: int, t: int) -> str:
        late = t - sent_t > LATE_S * 1e9 and not isinstance(command, Disarm)
        if late:
            return f"it came {(t - sent_t) / 1e9:.1f} s late; if your clock jumped, start a new session"
        if isinstance(command, TakeOver):
            if not command.displace and self.operator(t) not in ("", command.session):
                return f"the operator is {self.session}, and is there; to take over all the same must be asked for"
            self.session, self.heard_t = command.session, sent_t
            return ""
        if command.session != self.operator(t):
            return f"{f'the operator is {self.session}' if self.session else 'there is no operator'}; take over first"
        if isinstance(command, Heartbeat):
            self.heard_t = max(sent_t, self.heard_t or sent_t)
        elif isinstance(command, Arm | SetMode | SetTarget | Sticks) and self.stopped_t is not None:
            if sent_t - self.stopped_t < SETTLE_S * 1e9:
                return "stopped a moment ago; ask again"
        return ""
