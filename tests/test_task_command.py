"""The policy's task in the pilot: commands, refusals, shadow before engagement, and what ends it."""

from __future__ import annotations

import math

import pytest

from rov.bus import decode_command, encode
from rov.errors import UserError
from rov.messages import Arm, Mode, SetMode, Setpoint, SetTask, TakeOver
from rov.operator.commands import TaskOptions, parse
from tests.world import CONFIG, MS, World


def world(no_policy: dict[str, str] | None = None) -> World:
    found = World(CONFIG)
    found.commander.no_policy = no_policy or {}
    found.tell(TakeOver)
    found.run(0.2)
    return found


def stream(found: World, seconds: float, *, unfit: str = "", surge: float = 0.3) -> None:
    """Setpoints of the policy at the configured rate."""
    for _ in range(round(seconds * 15)):
        found.frame += 1
        frame_t = found.t - 60 * MS
        found.commander.handle_setpoint(
            Setpoint(t=found.t, frame_id=found.frame, frame_t=frame_t, source="policy", surge=surge, unfit=unfit),
            found.t,
        )
        found.run(1 / 15)


def engaged() -> World:
    found = world()
    assert found.tell(SetTask, task="transit", heading=math.pi / 2, depth=4.0) == ""
    stream(found, 3.2)
    assert found.tell(SetMode, mode=Mode.POLICY) == "" and found.tell(Arm) == ""
    stream(found, 0.5)
    assert found.commander.pilot.armed and found.commander.pilot.mode is Mode.POLICY
    return found


def test_a_task_sets_its_goal_and_shows_in_the_status() -> None:
    found = world()
    assert found.tell(SetTask, task="transit", heading=math.pi / 2, depth=4.0) == ""
    task = found.commander.config.task
    assert (task.name, task.heading_deg, task.depth) == ("transit", 90.0, 4.0)
    found.run(0.3)
    assert found.commander._status("", found.t).task == "transit"
    assert found.tell(SetTask, task="follow", label="buoy_green", distance=3.0) == ""
    assert found.commander.config.steering.target == "buoy_green" and found.commander.config.task.distance == 3.0


def test_another_class_is_not_as_high_as_the_last_one() -> None:
    found = world()
    assert found.tell(SetTask, task="follow", label="buoy_green", target_height=0.7) == ""
    assert found.commander.config.task.target_height == 0.7
    assert found.tell(SetTask, task="follow", distance=3.0) == ""
    assert found.commander.config.task.target_height == 0.7, "the same thing, only farther away"
    assert found.tell(SetTask, task="follow", label="buoy_red") == ""
    assert found.commander.config.task.target_height == 0.0, "as usual for its class"


def test_a_goal_that_is_not_given_is_where_the_vehicle_is() -> None:
    found = world()
    found.link.more = {"yaw": -1.0}
    found.run(0.1)
    assert found.tell(SetTask, task="transit") == ""
    task = found.commander.config.task
    assert task.heading_deg == pytest.approx(math.degrees(-1.0), abs=0.01) and task.depth == pytest.approx(
        5.0, abs=0.01
    )


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ({"task": "transit", "depth": 50.0}, "below vehicle.max_depth"),
        ({"task": "transit", "depth": -1.0}, "task.depth = -1"),
        ({"task": "transit", "heading": math.inf}, "task.heading_deg"),
        ({"task": "transit", "heading": math.nan}, "task.heading_deg"),
        ({"task": "follow", "distance": 99.0}, "task.distance = 99"),
        ({"task": "inspect", "height": 0.0}, "task.height = 0"),
        ({"task": "follow", "target_height": -0.1}, "task.target_height = -0.1"),
        ({"task": "follow", "label": "shark"}, "no class that the detector knows"),
        ({"task": "station"}, "not evaluated on station"),
    ],
)
def test_a_task_is_refused_with_the_reason(command: dict[str, object], why: str) -> None:
    found = world({"transit": "", "follow": "", "inspect": "", "station": "the policy was not evaluated on station"})
    assert why in found.tell(SetTask, **command)
    assert found.commander.config.task.name == "none"


def test_without_a_policy_its_mode_is_refused_and_the_rest_runs() -> None:
    why = "there is no policy to steer: models/policy.safetensors: not found"
    found = world(dict.fromkeys(("transit", "follow", "inspect", "station"), why))
    assert found.tell(SetMode, mode=Mode.POLICY) == why
    assert found.tell(SetTask, task="transit") == why
    assert found.tell(SetMode, mode=Mode.HOLD) == "" and found.tell(Arm) == ""


def test_the_policy_needs_a_task_and_three_seconds_in_shadow() -> None:
    found = world()
    assert "needs a task first" in found.tell(SetMode, mode=Mode.POLICY)
    found.tell(SetTask, task="transit")
    assert "fresh setpoints" in found.tell(SetMode, mode=Mode.POLICY)
    stream(found, 2.0)
    assert "over 3 s" in found.tell(SetMode, mode=Mode.POLICY)
    stream(found, 1.2)
    assert found.tell(SetMode, mode=Mode.POLICY) == ""


def test_the_servo_does_not_steer_for_a_task() -> None:
    found = world()
    found.tell(SetTask, task="station")
    assert "`rov ctl task none`" in found.tell(SetMode, mode=Mode.FOLLOW)
    assert found.tell(SetTask, task="none") == ""
    assert "steer" in found.tell(SetMode, mode=Mode.FOLLOW)  # only its stream is missing now


def test_unfit_frames_end_the_policy_in_hold_and_keep_it_out() -> None:
    found = engaged()
    stream(found, 0.2, unfit="the picture is too dark (5 of the last 8 frames)")
    assert found.commander.pilot.mode is Mode.HOLD and found.commander.pilot.armed
    assert found.events[-1] == "disengaged"
    stream(found, 0.2, unfit="the picture is too dark (6 of the last 8 frames)")
    assert "too dark" in found.tell(SetMode, mode=Mode.POLICY)
    stream(found, 0.2)
    assert found.commander.pilot.mode is Mode.HOLD  # the operator engages again, nobody else
    assert found.tell(SetMode, mode=Mode.POLICY) == ""


def test_another_task_starts_in_shadow() -> None:
    found = engaged()
    assert found.tell(SetTask, task="transit", heading=0.0) == ""
    found.run(0.04)
    assert found.commander.pilot.mode is Mode.POLICY  # another goal of the same task
    assert found.tell(SetTask, task="station") == ""
    found.run(0.04)
    assert found.commander.pilot.mode is Mode.HOLD and "task_changed" in found.events
    assert "over 3 s" in found.tell(SetMode, mode=Mode.POLICY)


def test_a_policy_that_stops_ends_in_hold() -> None:
    found = engaged()
    found.run(1.5)
    assert found.commander.pilot.mode is Mode.HOLD and "perception_gone" in found.events


def test_words_of_the_command_line() -> None:
    words = parse("task", "transit", None, TaskOptions(heading=90.0, depth=2.0))
    assert words.kind is SetTask and words.fields["heading"] == pytest.approx(math.pi / 2)
    assert SetTask(t=1, session="ann", seq=1, **words.fields).depth == 2.0
    sent = encode(SetTask(t=1, session="ann", seq=1, **words.fields))
    assert decode_command(sent).task == "transit"  # as it goes over the wire, where empty texts are refused
    follow = parse("task", "follow", None, TaskOptions("diver", distance=2.0)).fields
    assert (follow["label"], follow["distance"], follow["height"]) == ("diver", 2.0, None)
    for what, options, why in (
        ("dance", TaskOptions(), "no such task; there are none, transit"),
        ("station", TaskOptions(heading=1.0), "--heading belongs to transit or inspect, not to station"),
        ("transit", TaskOptions("diver"), "a class belongs to follow"),
        ("transit", TaskOptions(target_height=1.0), "--target-height belongs to follow"),
    ):
        with pytest.raises(UserError, match=why):
            parse("task", what, None, options)
    with pytest.raises(UserError, match="belong to task"):
        parse("mode", "hold", None, TaskOptions(depth=1.0))
