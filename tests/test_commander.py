"""The commander: whatever is commanded and measured, in any order, nothing turns unless armed, and stop is final."""

import math
import os
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rov.bus import SETTLE_S
from rov.config import live
from rov.messages import (
    AnyCommand,
    Arm,
    Disarm,
    Heartbeat,
    Mode,
    SetMode,
    Setpoint,
    SetTarget,
    SetTask,
    Sticks,
    Stop,
    TakeOver,
    ThrusterCommand,
)
from rov.motion.guard import STEP_MAX_S
from tests.world import CONFIG, GRAVITY, MS, TICK, S, World

pytestmark = pytest.mark.patient

EXAMPLES = int(os.environ.get("ROV_EXAMPLES", 25))
"""Sequences of up to 30 happenings; more, when asked for."""
SEA = 101_325.0
NUMBERS = st.floats(-1, 1) | st.floats(allow_nan=True, allow_infinity=True) | st.just(1.0)
ANGLES = st.floats(-0.3, 0.3) | st.floats(allow_nan=True, allow_infinity=True)


class Sea(RuleBasedStateMachine):
    """An operator, a stranger, a network, a board and a file that do anything at any time."""

    @initialize()
    def begin(self) -> None:
        self.world = World(CONFIG)
        self.seq = {"ann": 0, "bob": 0}
        self.under_way: list[AnyCommand] = []
        self.stopped_t: int | None = None
        self.armed_since_stop = True
        self.last = np.zeros(8)
        self.tick(TICK)

    def make(self, kind: type[Any], session: str, **more: object) -> AnyCommand:
        self.seq[session] += 1
        command: AnyCommand = kind(t=self.world.t, session=session, seq=self.seq[session], **more)
        return command

    def deliver(self, command: AnyCommand) -> str:
        """As pilotd does it."""
        world = self.world
        sent_t, reason = world.operators.check(command, world.t)
        if not reason:
            reason = world.commander.handle_command(command, sent_t, world.t)
        if isinstance(command, Stop | Disarm) and not reason:
            self.last = np.zeros(8)  # neutral at once, also where it is armed again before the next tick
        if isinstance(command, Stop):
            self.stopped_t, self.armed_since_stop = world.t, False
            assert not world.commander.pilot.armed
        if isinstance(command, Arm) and not reason:
            assert self.stopped_t is None or command.t > self.stopped_t, "an arming from before a stop was obeyed"
            self.armed_since_stop = True
        return reason

    # ---- what happens ------------------------------------------------------------------------------------------

    @rule(dt=st.integers(1, 5).map(lambda n: n * TICK) | st.sampled_from([0, -S, 1, 700 * MS, 4 * S, 3600 * S]))
    def tick(self, dt: int) -> None:
        world, link = self.world, self.world.link
        was_t, world.t = world.t, world.t + dt
        for message in world.commander.step(world.operators.operator(world.t), world.t):
            if isinstance(message, ThrusterCommand):
                out = np.array(message.values)
                limits = world.commander.config.guard
                assert out.shape == (8,) and np.isfinite(out).all() and np.abs(out).max() <= limits.gain
                if message.neutral_because or not message.armed:
                    assert not out.any()
                else:
                    step = limits.slew * min(max(0, dt) / 1e9, STEP_MAX_S)
                    before = self.last.clip(-limits.gain, limits.gain)
                    assert np.abs(out - before).max() <= step + 1e-12, was_t
                self.last = out
        sent = np.array(link.sent[-1])
        assert not sent.any() or (world.commander.pilot.armed and link.live)

    @rule(n=st.integers(1, 25))
    def time_goes_by(self, n: int) -> None:
        for i in range(n):
            if i % 10 == 0 and self.world.operators.session == "ann":
                self.deliver(self.make(Heartbeat, "ann"))
            self.tick(TICK)

    @rule(session=st.sampled_from(["ann", "bob"]), late=st.booleans())
    def arm(self, session: str, late: bool) -> None:
        command = self.make(Arm, session)
        self.under_way.append(command) if late else self.deliver(command)

    @rule(mode=st.sampled_from(Mode), late=st.booleans())
    def mode(self, mode: Mode, late: bool) -> None:
        command = self.make(SetMode, "ann", mode=mode)
        self.under_way.append(command) if late else self.deliver(command)

    @rule(axes=st.tuples(*[st.floats(-1e9, 1e9) | st.just(1.0)] * 4), late=st.booleans())
    def sticks(self, axes: tuple[float, ...], late: bool) -> None:
        named = dict(zip(("surge", "sway", "heave", "yaw"), axes, strict=True))
        command = self.make(Sticks, "ann", **named)
        self.under_way.append(command) if late else self.deliver(command)

    @rule()
    def engage(self) -> None:
        """What an operator does on a good day, so that the machine spends time armed."""
        if self.world.operators.session != "ann":
            self.deliver(self.make(TakeOver, "ann"))
        self.world.link.blind, self.world.link.more = False, {"roll": 0.0, "pitch": 0.0, "yaw": 0.0}
        self.world.link.pascal = SEA + 5 * 1025 * GRAVITY
        for _ in range(int(SETTLE_S * 50) + 2):
            self.deliver(self.make(Sticks, "ann", surge=1.0))
            self.tick(TICK)
        self.deliver(self.make(Arm, "ann"))
        for _ in range(5):
            self.deliver(self.make(Sticks, "ann", surge=1.0))
            self.tick(TICK)

    @rule(session=st.sampled_from(["ann", "bob"]))
    def take_over(self, session: str) -> None:
        self.deliver(self.make(TakeOver, session))

    @rule(session=st.sampled_from(["ann", "bob"]))
    def disarm(self, session: str) -> None:
        self.deliver(self.make(Disarm, session))

    @rule(session=st.sampled_from(["ann", "bob"]))
    def stop(self, session: str) -> None:
        self.deliver(self.make(Stop, session))
        self.tick(TICK)
        assert not np.array(self.world.link.sent[-1]).any() and not self.world.link.live

    @rule()
    def what_was_under_way_arrives(self) -> None:
        commands, self.under_way = self.under_way, []
        for command in commands:
            self.deliver(command)

    @rule(label=st.sampled_from(["buoy_red", "buoy_green", "shark"]), size=st.none() | NUMBERS)
    def target(self, label: str, size: float | None) -> None:
        self.deliver(self.make(SetTarget, "ann", label=label, size=size))

    @rule(
        task=st.sampled_from(["none", "transit", "follow", "inspect", "station"]),
        label=st.sampled_from([None, "buoy_green", "shark"]),
        goal=st.tuples(*[st.none() | NUMBERS] * 4),
    )
    def task(self, task: str, label: str | None, goal: tuple[float | None, ...]) -> None:
        more = dict(zip(("heading", "depth", "distance", "height"), goal, strict=True))
        self.deliver(self.make(SetTask, "ann", task=task, label=label, **more))

    @rule(
        axes=st.tuples(*[NUMBERS] * 4),
        source=st.sampled_from(["operator", "steer", "policy"]),
        age=st.integers(-S, 2 * S) | st.just(50 * MS),
    )
    def setpoint(self, axes: tuple[float, ...], source: Any, age: int) -> None:
        surge, sway, heave, yaw = axes
        frame_t = self.world.t - age
        self.world.commander.handle_setpoint(
            Setpoint(
                t=self.world.t,
                frame_id=self.seq["bob"],
                frame_t=frame_t,
                source=source,
                surge=surge,
                sway=sway,
                heave=heave,
                yaw=yaw,
            ),
            self.world.t,
        )
        self.seq["bob"] += 1

    @rule(
        roll=ANGLES, pitch=ANGLES, yaw=ANGLES, rate=ANGLES, depth=st.floats(-1, 40) | st.floats(), blind=st.booleans()
    )
    def measure(self, roll: float, pitch: float, yaw: float, rate: float, depth: float, blind: bool) -> None:
        link = self.world.link
        link.more = {"roll": roll, "pitch": pitch, "yaw": yaw, "rates": (rate, rate, rate)}
        link.pascal, link.blind = SEA + depth * 1025 * GRAVITY, blind

    @rule(what=st.sampled_from(["silent", "leak", "flat", "falls"]))
    def trouble(self, what: str) -> None:
        link = self.world.link
        if what == "silent":
            link.pascal = None
        elif what == "falls":
            link.live = False
        else:
            link.more = {"leak": True} if what == "leak" else {"battery_v": 10.0}

    @rule(
        gain=st.floats(0.01, 1.0),
        slew=st.floats(0.01, 20.0),
        max_depth=st.floats(1, 100),
        kp=st.floats(0, 100),
        lost_s=st.floats(0.1, 30.0),
    )
    def edit(self, gain: float, slew: float, max_depth: float, kp: float, lost_s: float) -> None:
        world, old = self.world, self.world.commander.config
        changes: live.Values = {
            "guard.gain": gain,
            "guard.slew": slew,
            "vehicle.max_depth": max_depth,
            "control.depth_kp": kp,
            "control.heading_kd": kp,
            "operator.lost_s": lost_s,
        }
        armed = world.commander.pilot.armed
        world.tune(live.with_values(CONFIG, changes))
        new = world.commander.config
        if armed:
            assert new.guard.gain <= old.guard.gain and new.guard.slew <= old.guard.slew
            assert new.vehicle.max_depth <= old.vehicle.max_depth and new.operator.lost_s <= old.operator.lost_s

    # ---- what never happens ------------------------------------------------------------------------------------

    @invariant()
    def a_stop_is_final(self) -> None:
        assert self.armed_since_stop or not (self.world.commander.pilot.armed or self.world.link.live)


Sea.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=30, deadline=None)
TestSea = Sea.TestCase


# ---- by hand ---------------------------------------------------------------------------------------------------


def armed() -> World:
    world = World(CONFIG)
    world.run(0.1)
    assert world.tell(TakeOver) == ""
    world.run(0.1, (0, 0, 0, 0))
    assert world.tell(Arm) == ""
    world.run(0.5, (1, 0, 0, 0))
    assert np.array(world.link.sent[-1]).any()
    return world


@pytest.mark.parametrize("mode", Mode)
def test_stop_in_every_mode_is_neutral_in_the_same_tick(mode: Mode) -> None:
    world = armed()
    if mode in (Mode.FOLLOW, Mode.POLICY):
        source: Any = {Mode.FOLLOW: "steer", Mode.POLICY: "policy"}[mode]
        assert world.tell(SetTask, task="none" if mode is Mode.FOLLOW else "station") == ""
        for i in range(40):
            world.run(0.06, (1, 0, 0, 0))
            frame_t = world.t - 50 * MS
            world.commander.handle_setpoint(
                Setpoint(t=world.t, frame_id=i, frame_t=frame_t, source=source, surge=1.0), world.t
            )
    assert world.tell(SetMode, mode=mode) == ""
    world.run(0.04)
    late = [
        kind(t=world.t, session="ann", seq=world.seq + 10 + i, **more)
        for i, (kind, more) in enumerate(((Arm, {}), (SetMode, {"mode": Mode.HOLD}), (Sticks, {"surge": 1.0})))
    ]
    world.t += 1
    stop = Stop(t=0, session="anybody", seq=0)
    sent_t, reason = world.operators.check(stop, world.t)
    assert reason == "" and world.commander.handle_command(stop, sent_t, world.t) == ""
    world.run(0.02)
    assert not any(world.link.sent[-1]) and not world.link.live and world.commander.pilot.mode is Mode.MANUAL
    for command in late:  # they were under way
        assert world.operators.check(command, world.t)[1]
        world.commander.handle_command(command, command.t, world.t)  # even if the door had let them in
    world.run(1)
    assert not any(world.link.sent[-1]) and not world.commander.pilot.armed


def test_a_board_that_falls_disarms_the_pilot() -> None:
    world = armed()
    world.link.live = False
    world.run(0.02)
    assert not world.commander.pilot.armed and "link_lost" in world.codes()


@pytest.mark.parametrize(
    ("trouble", "code"), [({"leak": True}, "leak"), ({"battery_v": 4 * 3.2}, "battery_low")], ids=["leak", "battery"]
)
def test_leak_and_low_battery_go_up(trouble: dict[str, object], code: str) -> None:
    world = armed()
    world.link.more = trouble
    world.run(0.6, (1, 0, 0, 0))
    assert world.commander.pilot.mode is Mode.SURFACE and code in world.codes()


def test_nothing_that_is_measured_wrong_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(CONFIG)
    world.link.more = {"roll": math.nan}
    world.run(0.1)
    assert world.tell(TakeOver) == "" and "attitude" in world.tell(Arm)
    assert msgspec.structs.asdict(world.link.state)["armed"] is False  # type: ignore[arg-type]
