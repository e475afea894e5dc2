"""Who may command: one operator at a time, anyone may stop. No sockets, no clock."""

import random

from rov.bus import (
    LATE_S,
    SESSIONS,
    Malformed,
    OperatorRegistry,
    decode_command,
    encode,
)
from rov.messages import (
    AnyCommand,
    Arm,
    Disarm,
    Heartbeat,
    Mode,
    SetMode,
    Sticks,
    Stop,
    TakeOver,
)

S = 1_000_000_000


class Teller:
    """A client with a clock of its own, which is `skew` ahead, over a link that takes `delay` ns."""

    def __init__(self, core: OperatorRegistry, session: str, skew: int = 0):
        self.core, self.session, self.skew, self.seq = core, session, skew, 0

    def tell(self, kind: type[AnyCommand], t: int, delay: int = 0, **more: object) -> str:
        self.seq += 1
        return self.core.check(self.make(kind, t, **more), t + delay)[1]

    def make(self, kind: type[AnyCommand], t: int, **more: object) -> AnyCommand:
        return kind(t=t + self.skew, session=self.session, seq=self.seq, **more)


def test_one_operator_at_a_time() -> None:
    core = OperatorRegistry(3.0)
    ann, bob = Teller(core, "ann", skew=999 * S), Teller(core, "bob", skew=-5 * S)
    assert "no operator" in ann.tell(Arm, 1 * S)
    assert "no operator" in ann.tell(Heartbeat, 1 * S)
    assert ann.tell(TakeOver, 2 * S) == "" and core.operator(2 * S) == "ann"
    assert ann.tell(Arm, 2 * S) == ""
    assert "operator is ann" in bob.tell(Arm, 3 * S)
    assert "operator is ann" in bob.tell(Heartbeat, 3 * S)
    assert core.heartbeat_t == 2 * S  # his heartbeat did not count for her
    assert "the operator is ann, and is there" in bob.tell(TakeOver, 3 * S) and core.operator(3 * S) == "ann"
    assert bob.tell(TakeOver, 3 * S, displace=True) == "" and core.operator(3 * S) == "bob"
    assert "operator is bob" in ann.tell(Disarm, 3 * S)
    assert bob.tell(SetMode, 3 * S, mode=Mode.HOLD) == ""


def test_the_operator_ends_with_the_heartbeat_and_does_not_come_back_by_itself() -> None:
    core = OperatorRegistry(3.0)
    ann = Teller(core, "ann")
    ann.tell(TakeOver, 0)
    ann.tell(Heartbeat, 2 * S)
    assert ann.tell(Sticks, 5 * S) == ""  # sticks are no heartbeat
    assert core.operator(5 * S) == "ann" and core.operator(5 * S + 1) == ""
    assert "take over" in ann.tell(Heartbeat, 6 * S)
    assert ann.tell(TakeOver, 6 * S) == ""


def test_anybody_may_stop_at_any_time_also_again() -> None:
    core = OperatorRegistry(3.0)
    ann, stranger = Teller(core, "ann"), Teller(core, "stranger")
    ann.tell(TakeOver, 0)
    assert stranger.tell(Stop, S) == "" and stranger.tell(Stop, S, delay=60 * S) == ""
    stranger.seq -= 1
    assert stranger.tell(Stop, S) == ""
    forged = Stop(t=0, session="ann", seq=2**62)  # must not use up the operator's numbers
    assert core.check(forged, S)[1] == "" and ann.tell(Heartbeat, S) == ""


def test_what_was_under_way_when_it_was_stopped_is_refused() -> None:
    core = OperatorRegistry(30.0)
    ann = Teller(core, "ann")
    ann.tell(TakeOver, 0)
    core.check(Stop(t=0, session="stranger", seq=0), 10 * S)
    for kind, more in ((Arm, {}), (SetMode, {"mode": Mode.HOLD}), (Sticks, {"surge": 1.0})):
        assert "stopped" in ann.tell(kind, 10 * S - S // 2, delay=S * 9 // 10, **more)  # sent before, came after
        assert "stopped" in ann.tell(kind, 10 * S + S // 10, delay=S // 2, **more)  # sent before it could be known
    assert ann.tell(Disarm, 10 * S + 1) == "" and ann.tell(Heartbeat, 10 * S + 1) == ""
    assert ann.tell(Arm, 11 * S) == ""


def test_a_replayed_command_is_refused() -> None:
    core = OperatorRegistry(3.0)
    ann = Teller(core, "ann")
    ann.tell(TakeOver, 0)
    ann.tell(Arm, 0)
    for seq in (2, 1, 0, -5):
        ann.seq = seq - 1
        assert "must grow" in ann.tell(Arm, 1)
    ann.seq = 2
    assert ann.tell(Arm, 2) == ""


def test_a_command_knows_how_long_it_was_under_way() -> None:
    core = OperatorRegistry(60.0)
    ann = Teller(core, "ann", skew=-123 * S)
    ann.tell(TakeOver, 0)
    ann.seq += 1
    sent_t, reason = core.check(ann.make(Sticks, 1 * S), 1 * S + S // 2)
    assert reason == "" and abs(sent_t - 1 * S) <= 2_000_000
    assert "late" in ann.tell(Arm, 2 * S, delay=int((LATE_S + 0.1) * S))
    assert ann.tell(Disarm, 2 * S, delay=9 * S) == ""  # the safe one may be late
    heard_t = core.heartbeat_t
    assert "late" in ann.tell(Heartbeat, 12 * S, delay=9 * S) and core.heartbeat_t == heard_t


def test_clocks_may_drift_apart() -> None:
    core = OperatorRegistry(3.0)
    ann = Teller(core, "ann")
    ann.tell(TakeOver, 0)
    for second in range(1, 36_001):  # ten hours with a clock that is slow by 200 ppm: 7.2 s in the end
        ann.skew = -second * S // 5000
        assert ann.tell(Heartbeat, second * S) == ""


def test_strangers_without_number_do_not_push_the_operator_out() -> None:
    core = OperatorRegistry(3.0)
    ann = Teller(core, "ann")
    ann.tell(TakeOver, 0)
    for i in range(3 * SESSIONS):
        Teller(core, f"stranger {i}").tell(Heartbeat, 1)
    assert len(core.sessions) == SESSIONS and ann.tell(Arm, 2) == ""
    ann.seq -= 1
    assert "must grow" in ann.tell(Arm, 3)


def test_random_bytes_never_raise_and_never_command() -> None:
    rng = random.Random(1)
    core, t = OperatorRegistry(3.0), 0
    core.check(TakeOver(t=0, session="ann", seq=0), 0)
    seeds = [
        encode(Sticks(t=1, session="bob", seq=3, surge=0.5)),
        encode(SetMode(t=1, session="bob", seq=4, mode=Mode.HOLD)),
        encode(Arm(t=1, session="bob", seq=5)),
    ]
    understood = 0
    for i in range(200_000):
        if i % 2:
            data = rng.randbytes(rng.randrange(64))
        else:
            mutated = bytearray(rng.choice(seeds))
            for _ in range(rng.randint(1, 4)):
                mutated[rng.randrange(2, len(mutated))] = rng.randrange(256)
            data = bytes(mutated)
        t += 1
        try:
            command = decode_command(data)
        except Malformed:
            continue
        understood += 1
        assert core.check(command, t)[1] or isinstance(command, Stop | TakeOver)
    assert 0 < understood < 100_000 and core.session == "ann"


# ---- who it is -----------------------------------------------------------------------------------------------------


def test_a_session_is_theirs_who_took_over_in_it() -> None:
    """Session names are public. Used by another user, the name is another session: it takes no sequence numbers, and
    its heartbeats keep nobody else's session alive."""
    for ann, mallory in (("user 1000", "user 1001"), ("key ann", "key mallory")):
        core = OperatorRegistry(3.0)
        core.check(TakeOver(t=0, session="pilot", seq=1), 0, ann)
        for seq, kind in enumerate((Disarm, Heartbeat, Arm, Sticks), 2**40):
            reason = core.check(kind(t=S, session="pilot", seq=seq), S, mallory)[1]
            assert "somebody else by that name" in reason and reason.endswith("take over first")
        assert core.check(TakeOver(t=S, session="pilot", seq=2**41), S, mallory)[1]
        assert core.check(Heartbeat(t=S, session="pilot", seq=2), S, ann)[1] == "" and core.heartbeat_t == S
        for t in range(2, 6):
            core.check(Heartbeat(t=t * S, session="pilot", seq=2**42 + t), t * S, mallory)
        assert core.operator(4 * S + 1) == "", "a heartbeat of somebody else kept a dead operator alive"
        assert core.check(TakeOver(t=5 * S, session="pilot", seq=2**50), 5 * S, mallory)[1] == ""


def test_a_disarm_is_never_refused_by_its_number_and_uses_none_up() -> None:
    core = OperatorRegistry(3.0)
    core.check(TakeOver(t=0, session="ann", seq=5), 0, "user 1")
    for seq in (2**60, 5, -7, 2**60):
        assert core.check(Disarm(t=0, session="ann", seq=seq), S, "user 1")[1] == ""
    assert core.check(Heartbeat(t=S, session="ann", seq=6), S, "user 1")[1] == ""


def test_what_was_recorded_on_this_machine_is_refused_also_by_a_pilot_without_a_past() -> None:
    take, beat = TakeOver(t=10 * S, session="ann", seq=1), Heartbeat(t=11 * S, session="ann", seq=2)
    core = OperatorRegistry(3.0)
    assert core.check(take, 10 * S, "user 1")[1] == "" and core.check(beat, 11 * S, "user 1")[1] == ""
    for i in range(2 * SESSIONS):
        core.check(TakeOver(t=12 * S, session=f"other {i}", seq=1, displace=True), 12 * S, "user 1")
    for pilot in (core, OperatorRegistry(3.0)):
        assert pilot.check(take, 20 * S, "user 1")[1] and pilot.check(beat, 20 * S, "user 1")[1]
        assert pilot.check(TakeOver(t=2**62, session="b", seq=1, displace=True), 20 * S, "user 1")[1]
        assert pilot.check(TakeOver(t=20 * S, session="b", seq=2, displace=True), 20 * S + S // 2, "user 1")[1] == ""


def test_who_never_commanded_is_forgotten_before_who_did() -> None:
    core = OperatorRegistry(3.0)
    ann = Teller(core, "ann")
    ann.tell(TakeOver, 0)
    for i in range(3 * SESSIONS):  # she is gone by then
        Teller(core, f"stranger {i}").tell(Heartbeat, 10 * S)
    ann.seq -= 1
    assert "must grow" in ann.tell(TakeOver, 10 * S)


def test_a_stall_of_the_reader_does_not_make_a_sender_late() -> None:
    """For a user of this machine the age is known exactly, whenever the command is read."""
    core = OperatorRegistry(60.0)
    core.check(TakeOver(t=0, session="ann", seq=1), 0, "user 1")
    early = Sticks(t=2 * S, session="ann", seq=2)  # a clock that was read 2 s before the socket
    core.check(early, 2 * S - 15_000_000, "user 1")
    for i in range(3, 50):
        assert core.check(Sticks(t=i * S, session="ann", seq=i), i * S + 1000, "user 1") == (i * S, "")
