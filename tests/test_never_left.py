"""Whatever comes, in whatever order: a vehicle under ArduSub that leaks, or is on its way up, is not left disarmed or
silent at depth. Its pilot may take it, our operator may disarm it, and a link that is gone ends everything.

The real link, pilot and commander in front of the scripted autopilot, all in memory; time is simulated.
"""

import os

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from rov.config.schema import Config, load
from rov.link.ardusub.firmware import ALT_HOLD, MANUAL, POSHOLD, STABILIZE, SURFACE
from rov.link.ardusub.link import SET_MODE
from rov.link.mavlink import MS
from rov.link.mavlink_link import ARM_DISARM
from rov.messages import Arm, Event, Mode, SetMode, Sticks
from rov.motion.commander import Commander
from rov.motion.pilot import Pilot
from rov.motion.thrusters import load as load_curve
from rov.resources import find_resource
from tests.test_ardusub import TICK, Rig

pytestmark = pytest.mark.patient

QUIET_S = 3.0
"""From the last trouble until everything must be as it should: a lost command's repetition, a read parameter."""
DEEP = 1.0
EXAMPLES = int(os.environ.get("ROV_EXAMPLES", 10))
FAST = (Phase.explicit, Phase.reuse, Phase.generate)
"""A sequence takes about a second: to shrink one takes minutes."""


class Dive(Rig):
    """Commander, pilot and link on one side; autopilot and ground station on the other."""

    def __init__(self, on_lost: str = "disarm") -> None:
        super().__init__()
        base = load(find_resource("rover.toml"))
        link = base.link.model_copy(update={"kind": "ardusub", "url": "udp:127.0.0.1:1"})
        operator = base.operator.model_copy(update={"on_lost": on_lost})
        config: Config = base.model_copy(update={"link": link, "operator": operator})
        self.commander = Commander(
            config, Pilot(config, load_curve(find_resource(config.vehicle.thrusters), 4)), self.link
        )
        self.operator = "ann"
        self.deaf = False
        """Something of the autopilot's got lost: its text, by which its own disarming is told from its pilot's."""

    def tick(self) -> None:
        self.t += TICK
        if self.operator and self.commander.pilot.mode in (Mode.MANUAL, Mode.HOLD):
            self.commander.handle_command(
                Sticks(t=self.t - MS, session="ann", seq=self.t, surge=0.2), self.t - MS, self.t
            )
        self.events += [each for each in self.commander.step(self.operator, self.t) if isinstance(each, Event)]
        sent, self.cable.outbound = self.cable.outbound, b""
        frames = self.parser.feed(sent)
        heard = self.up.carry([bytes(frame.message.get_msgbuf()) for frame in frames], self.t)
        out = self.autopilot.step(self.t, {"rov": heard, "gcs": self.station.step(self.t)})
        if self.cable.is_open:
            self.cable.inbound += self.down.carry(out["rov"], self.t)

    def begin(self, mode: Mode) -> None:
        """Armed in `manual`, and then in this mode, as far as the autopilot lets it."""
        self.run(3)
        command = Arm(t=self.t, session="ann", seq=self.t)
        assert self.commander.handle_command(command, self.t, self.t) == ""
        self.until(lambda: self.commander.pilot.armed)
        self.ask(mode)
        self.run(0.5)

    def ask(self, mode: Mode) -> None:
        self.commander.handle_command(SetMode(t=self.t, session="ann", seq=self.t, mode=mode), self.t, self.t)


MUST = ("leak", "surface", "own_surface", "battery")
TROUBLE = st.one_of(
    st.tuples(st.just("lose"), st.sampled_from(["up", "down"]), st.floats(0.05, 1.2)),
    st.tuples(st.just("noise"), st.sampled_from(["up", "down"]), st.floats(0.0, 0.3)),
    st.tuples(st.just("refuse"), st.sets(st.sampled_from([ALT_HOLD, STABILIZE, MANUAL, POSHOLD]))),
    st.tuples(st.just("deny"), st.sets(st.sampled_from([SET_MODE, ARM_DISARM]))),
    st.tuples(st.just("ignore"), st.sets(st.sampled_from([SET_MODE, ARM_DISARM]))),
    st.tuples(st.just("position"), st.booleans()),
    st.tuples(st.just("barometer"), st.booleans()),
    st.tuples(st.just("station"), st.booleans()),
    st.tuples(st.just("gcs_surface")),
    st.tuples(
        st.just("parameter"),
        st.sampled_from(["FS_PILOT_TIMEOUT", "FS_PILOT_INPUT", "FS_GCS_ENABLE"]),
        st.integers(0, 4),
    ),
    st.tuples(st.just("switch"), st.sampled_from(["InputHold", "RollPitch"]), st.booleans()),
    st.tuples(st.just("gain"), st.sampled_from([0.25, 0.5, 1.0])),
    st.tuples(st.just("operator"), st.booleans()),
    st.tuples(st.just("mode"), st.sampled_from([Mode.HOLD, Mode.MANUAL, Mode.SURFACE])),
    st.tuples(st.just("text"), st.sampled_from([b"Lost manual control", b"EKF3 IMU0 is using GPS", b"Leak Detected"])),
    st.tuples(st.just("tilt"), st.floats(-1.5, 1.5)),
    st.tuples(st.just("wait"), st.floats(0.1, 5.0)),
    st.tuples(st.just("crash")),
)


def trouble(dive: Dive, what: tuple) -> None:  # type: ignore[type-arg]
    autopilot = dive.autopilot
    match what:
        case ("lose", way, seconds):
            dive.deaf |= way == "down"
            getattr(dive, way).mute = True
            dive.run(seconds)
            getattr(dive, way).mute = False
        case ("noise", way, share):
            dive.deaf |= way == "down" and share > 0
            getattr(dive, way).drop = share
        case ("refuse", modes):
            autopilot.refuses_modes = set(modes)
        case ("deny", commands):
            autopilot.refuses = set(commands)
        case ("ignore", commands):
            autopilot.ignores = set(commands)
        case ("position", known):
            autopilot.position = known
        case ("barometer", well):
            autopilot.barometer = well
        case ("station", alive):
            dive.station.alive = alive
        case ("gcs_surface",):
            dive.station.command(SET_MODE, 1.0, float(SURFACE))
        case ("parameter", name, value):
            autopilot.parameters[name] = max(0.5, value) if name == "FS_PILOT_TIMEOUT" else value
        case ("switch", name, on):
            autopilot.switches[name] = float(on)
        case ("gain", gain):
            autopilot.gain = gain
        case ("operator", there):
            dive.operator = "ann" if there else ""
        case ("mode", mode):
            dive.ask(mode)
        case ("text", text):
            autopilot.texts.append(text)
        case ("tilt", roll):
            autopilot.vessel.attitude[0] = roll
        case ("wait", seconds):
            dive.run(seconds)
        case ("crash",):
            autopilot.texts.append(b"Crash detected")
            if autopilot.armed:
                autopilot._arm(False, "crash")
    dive.run(0.04)


def must(dive: Dive, why: str) -> None:
    """From now on the vehicle has to come up."""
    match why:
        case "leak":
            dive.autopilot.leak = True
        case "surface":
            dive.ask(Mode.SURFACE)
        case "own_surface":
            dive.autopilot.parameters["FS_LEAK_ENABLE"] = 2
            dive.autopilot.leak = True
        case "battery":
            dive.autopilot.battery_v = 12.4
            dive.run(7.0)  # guard.battery_low_s, and a voltage a second
    dive.run(0.1)


@given(
    st.sampled_from(MUST),
    st.sampled_from([Mode.MANUAL, Mode.HOLD]),
    st.sampled_from(["disarm", "hold", "surface"]),
    st.booleans(),
    st.lists(TROUBLE, max_size=3),
    st.lists(TROUBLE, max_size=6),
)
@example("leak", Mode.MANUAL, "disarm", False, [], [("crash",), ("mode", Mode.HOLD)])
@example("leak", Mode.HOLD, "hold", True, [], [("barometer", False), ("station", False), ("operator", False)])
@example("own_surface", Mode.HOLD, "surface", True, [], [("lose", "up", 1.0), ("refuse", {ALT_HOLD, MANUAL})])
@example(
    "own_surface", Mode.MANUAL, "surface", True, [],
    [("barometer", True), ("gcs_surface",), ("tilt", -0.05), ("wait", 4.309), ("crash",), ("barometer", False)],
)  # fmt: skip
@example(
    "battery",
    Mode.HOLD,
    "hold",
    False,
    [("ignore", {ARM_DISARM, SET_MODE}), ("mode", Mode.SURFACE)],
    [("gcs_surface",), ("gain", 1.0), ("wait", 0.08), ("lose", "up", 1.05)],
)
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), phases=FAST)
def test_a_vehicle_that_must_come_up_is_not_left(why, first, on_lost, position, before, after) -> None:  # type: ignore[no-untyped-def]
    dive = Dive(on_lost)
    dive.autopilot.position, dive.autopilot.vessel.depth = position, 30.0
    dive.begin(first)
    for each in before:
        trouble(dive, each)
    dive.run(0.6)
    if not dive.link.live:
        return  # its control had ended before: nothing had to come up then
    must(dive, why)
    if not dive.link.live or why == "surface" and dive.commander.pilot.mode is not Mode.SURFACE:
        assert excused(dive) or ended_before(dive), explain(dive)
        return
    for each in after:
        if each[0] == "mode" and each[1] is not Mode.SURFACE and not dive.autopilot.leak:
            return  # our operator does not want it to come up any more
        trouble(dive, each)
    dive.up.drop = dive.down.drop = 0.0
    dive.autopilot.ignores, dive.autopilot.refuses = set(), dive.autopilot.refuses - {ARM_DISARM}
    dive.run(QUIET_S)
    if excused(dive) or dive.autopilot.vessel.depth < DEEP:
        return
    since = dive.t
    dive.run(2)
    assert dive.autopilot.armed and dive.link.live and dive.commander.pilot.armed, explain(dive)
    assert len(dive.sticks(since)) > 40, explain(dive)


@pytest.mark.parametrize("on_lost", ["disarm", "hold"])
@pytest.mark.parametrize("mode", [Mode.HOLD, None])
def test_an_operator_who_is_lost_does_not_stop_it(on_lost: str, mode: Mode | None) -> None:
    """Also where he had it wait on its way up."""
    dive = Dive(on_lost)
    dive.autopilot.vessel.depth = 9.0
    dive.begin(Mode.HOLD)
    must(dive, "leak")
    if mode is not None:
        dive.ask(mode)
        dive.run(0.1)
        assert dive.commander.pilot.mode is mode
    dive.operator = ""
    dive.run(1)
    assert dive.commander.pilot.mode is Mode.SURFACE and dive.autopilot.armed and dive.link.live, explain(dive)
    assert "operator_lost" in dive.codes("alarm")


def test_a_tilt_does_not_disarm_what_an_autopilot_brings_up() -> None:
    dive = Dive()
    dive.autopilot.vessel.depth = 9.0
    dive.begin(Mode.HOLD)
    must(dive, "leak")
    for _ in range(150):
        dive.autopilot.vessel.attitude[0] = 1.2
        dive.tick()
    assert dive.commander.pilot.armed and dive.autopilot.armed and dive.link.live, explain(dive)


def ended_before(dive: Dive) -> bool:
    """Did our control end before anybody could know that the vehicle had to come up?"""
    known = next(
        (e.t for e in dive.events if e.code in ("leak", "battery_low") or e.text.startswith("surface, ")), None
    )
    ended = next((e.t for e in dive.events if e.code == "disarmed"), None)
    return ended is not None and (known is None or ended < known)


def excused(dive: Dive) -> bool:
    """Was the link gone, or a disarming not to be told from the pilot's own, its text lost?"""
    codes = {event.code for event in dive.events}
    return bool(codes & {"autopilot_lost", "link_lost"}) or dive.deaf and bool(codes & {"pilot_disarmed", "pilot_mode"})


def explain(dive: Dive) -> str:
    said = [f"{(event.t - 1_000_000 * MS) / 1e9:.2f} {event.code}: {event.text}" for event in dive.events]
    return "\n".join(
        [*said, *dive.autopilot.reasons, f"mode {dive.commander.pilot.mode} depth {dive.autopilot.vessel.depth}"]
    )
