"""What takes the vehicle up, and what a refusal says: leaks and empty batteries are states, not moments."""

from __future__ import annotations

from typing import Any

import pytest

from rov.messages import Arm, Disarm, Event, Mode, PilotStatus, SetMode, SetTarget, Stop, TakeOver
from rov.motion.commander import Commander
from rov.motion.pilot import Pilot
from tests.world import CONFIG, CURVE, MS, World

pytestmark = pytest.mark.patient

LEAK: dict[str, object] = {"leak": True}
EMPTY: dict[str, object] = {"battery_v": 4 * 3.2}
DRY: dict[str, object] = {"leak": False, "battery_v": 4 * 3.9}
STILL = (0.0, 0.0, 0.0, 0.0)

troubles = pytest.mark.parametrize(("trouble", "code"), [(LEAK, "leak"), (EMPTY, "battery_low")], ids=["leak", "empty"])


def sea(**more: object) -> World:
    """An operator is there, nothing is armed."""
    world = World(CONFIG)
    world.link.more = dict(more)
    world.run(0.1)
    assert world.tell(TakeOver) == ""
    world.run(1.0, STILL)
    return world


def status(world: World) -> PilotStatus:
    world.run(0.3, STILL)
    said = world.last[PilotStatus]
    assert isinstance(said, PilotStatus)
    return said


@troubles
@pytest.mark.parametrize("before", [Mode.MANUAL, Mode.HOLD, Mode.SURFACE])
def test_seen_while_disarmed_arming_goes_straight_up(trouble: dict[str, object], code: str, before: Mode) -> None:
    world = sea(**trouble)
    assert code in world.codes()
    assert world.tell(SetMode, mode=before) == ""
    assert world.tell(Arm) == ""
    for _ in range(100):
        world.run(0.02, (1.0, 0.0, 1.0, 0.0))
        assert not world.commander.pilot.armed or world.commander.pilot.mode is Mode.SURFACE
    assert world.commander.pilot.armed
    assert world.link.sent[-1][4] < 0 or world.link.sent[-1][5] < 0, "it pushes up"


@troubles
def test_another_mode_needs_the_operators_word_after_arming(trouble: dict[str, object], code: str) -> None:
    world = sea(**trouble)
    assert world.tell(Arm) == ""
    world.run(0.1, STILL)
    world.codes()
    assert world.tell(SetMode, mode=Mode.MANUAL) == ""
    world.run(3.0, STILL)
    assert world.commander.pilot.mode is Mode.MANUAL and world.commander.pilot.armed, "his word counts while it goes on"
    assert "surfacing_ended" in world.codes()
    world.tell(Disarm)
    world.run(0.1, STILL)
    assert world.tell(Arm) == ""
    world.run(0.1, STILL)
    assert world.commander.pilot.mode is Mode.SURFACE, "and not for the next arming"


@pytest.mark.parametrize("other", [False, True], ids=["the same again", "another"])
def test_a_sensor_that_comes_and_goes_asks_once_and_another_one_asks_again(other: bool) -> None:
    world = sea(**LEAK)
    assert world.tell(Arm) == ""
    world.run(0.1, STILL)
    assert world.tell(SetMode, mode=Mode.HOLD) == ""
    for _ in range(5):
        world.link.more = dict(DRY)
        world.run(0.1, STILL)
        world.link.more = dict(LEAK)
        world.run(0.1, STILL)
        assert world.commander.pilot.mode is Mode.HOLD
    if other:
        world.link.more = dict(EMPTY)
        world.run(0.6, STILL)
        assert world.commander.pilot.mode is Mode.SURFACE


@troubles
def test_dry_and_charged_again_it_arms_as_ever(trouble: dict[str, object], code: str) -> None:
    world = sea(**trouble)
    world.link.more = dict(DRY)
    world.run(0.5, STILL)
    assert world.tell(Arm) == ""
    world.run(1.0, STILL)
    assert world.commander.pilot.armed and world.commander.pilot.mode is Mode.MANUAL


@troubles
def test_after_a_restart_of_the_pilot(trouble: dict[str, object], code: str) -> None:
    world = sea(**trouble)
    assert world.tell(Arm) == ""
    world.run(0.5, STILL)
    world.link.disarm(world.t)
    world.commander = Commander(
        world.commander.config, Pilot(world.commander.config, CURVE), world.link
    )  # it knows nothing
    world.run(0.5, STILL)
    assert code in world.codes()
    assert world.tell(Arm) == ""
    world.run(0.1, STILL)
    assert world.commander.pilot.armed and world.commander.pilot.mode is Mode.SURFACE


@troubles
def test_it_begins_while_the_board_is_tested(trouble: dict[str, object], code: str) -> None:
    world = sea()
    link = world.link

    def slow(t: int) -> str:
        link.testing = True
        return ""

    link.arm = slow  # type: ignore[method-assign]
    assert world.tell(Arm) == ""
    world.run(0.1, STILL)
    link.more = dict(trouble)
    world.run(0.6, STILL)
    link.testing, link.live = False, True
    world.run(0.1, STILL)
    assert world.commander.pilot.armed and world.commander.pilot.mode is Mode.SURFACE


def test_seen_before_the_battery_was_long_enough_empty() -> None:
    world = sea()
    world.link.more = dict(EMPTY)
    world.run(0.2, STILL)
    assert world.tell(Arm) == ""
    world.run(0.1, STILL)
    assert world.commander.pilot.mode is Mode.MANUAL
    world.run(0.4, STILL)
    assert world.commander.pilot.mode is Mode.SURFACE


@troubles
@pytest.mark.parametrize("lost", ["operator", "perception", "depth and attitude", "sticks"])
@pytest.mark.parametrize("on_lost", ["disarm", "hold", "surface"])
def test_what_does_not_end_a_surfacing(trouble: dict[str, object], code: str, lost: str, on_lost: str) -> None:
    operator = CONFIG.operator.model_copy(update={"on_lost": on_lost})
    world = World(CONFIG.model_copy(update={"operator": operator}))
    world.run(0.1)
    assert world.tell(TakeOver) == ""
    world.run(0.1, STILL)
    assert world.tell(Arm) == ""
    world.run(0.1, STILL)
    world.link.more = dict(trouble)
    world.run(1.0, STILL)
    assert world.commander.pilot.mode is Mode.SURFACE
    world.beating = lost != "operator"
    world.link.blind = lost == "depth and attitude"
    for _ in range(150):  # three seconds without sticks, and no picture ever came
        world.run(0.02)
        assert world.commander.pilot.armed and world.commander.pilot.mode is Mode.SURFACE
    assert max(map(abs, world.link.sent[-1])) > 0.05, "it still pushes"
    assert ("operator_lost" in world.codes()) == (lost == "operator")


def test_a_stop_ends_it_and_arming_goes_up_again() -> None:
    world = sea(**LEAK)
    assert world.tell(Arm) == ""
    world.run(0.5, STILL)
    world.tell(Stop)
    world.run(1.0, STILL)
    assert not world.commander.pilot.armed and world.commander.pilot.mode is Mode.MANUAL
    assert world.tell(Arm) == ""
    world.run(0.1, STILL)
    assert world.commander.pilot.armed and world.commander.pilot.mode is Mode.SURFACE


# ---- refusals --------------------------------------------------------------------------------------------------


def refuse_arming(world: World) -> None:
    world.link.arm = lambda t: "the board is not there"  # type: ignore[method-assign]


def fail_arming(world: World) -> None:
    """The link begins to arm, and cannot."""
    link = world.link

    def begin(t: int) -> str:
        link.testing = True
        return ""

    def poll(t: int) -> tuple[Event, ...]:
        if not link.testing:
            return ()
        link.testing = False
        return (Event(t=t, level="warning", source="link", code="arming_failed", text="its watchdog fell too soon"),)

    link.arm, link.poll = begin, poll  # type: ignore[method-assign]


def lose_depth(world: World) -> None:
    world.link.blind = True
    world.run(0.6, STILL)


@pytest.mark.parametrize(
    ("prepare", "kind", "more", "says"),
    [
        (refuse_arming, Arm, {}, "the board is not there"),  # the link
        (fail_arming, Arm, {}, "its watchdog fell too soon"),  # the link, later
        (lose_depth, Arm, {}, "manual needs the"),  # the pilot
        (lose_depth, SetMode, {"mode": Mode.HOLD}, "hold needs the"),  # the pilot
        (lambda world: None, SetMode, {"mode": Mode.FOLLOW}, "follow needs"),  # pilot or commander
        (lambda world: None, SetTarget, {"label": "shark"}, "no class"),  # the commander
    ],
)
def test_the_status_says_what_was_refused_whoever_refuses(prepare: Any, kind: type, more: Any, says: str) -> None:
    world = sea()
    prepare(world)
    answer = world.tell(kind, **more)
    assert says in answer or prepare is fail_arming
    assert says in status(world).refused
    world.run(2.0, STILL)
    assert says in status(world).refused, "until something else is asked for"
    assert world.tell(SetTarget, label="buoy_green") == ""
    assert status(world).refused == ""


def test_a_slow_perception_is_a_refusal_of_the_helm() -> None:
    world = sea()
    world.see(("buoy_red", 0.9, (100.0, 100.0, 160.0, 180.0)), age=60 * MS)
    refused = world.tell(SetMode, mode=Mode.FOLLOW)
    assert "per second" in refused and status(world).refused == refused
