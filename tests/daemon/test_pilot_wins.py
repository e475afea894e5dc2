"""ArduSub's pilot always wins: whole runs over TCP, UDP and a pty, with a pilot who takes over and hands back.

ROV_ARDUSUB_S=600 python -m pytest -s tests/daemon/test_pilot_wins.py -k taken

lets him do so for that long on each of the three ways, instead of a few times; over TCP from a whole daemon, `rov run`
with its camera, network and recorder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from rov.dives.dive import Dive
from rov.link.ardusub.firmware import ALT_HOLD
from rov.messages import Event, Mode
from tests.daemon.autopilot import SURGE, Boat, PilotAlone, Round, Rover, Whole, assert_reported, taken_over
from tests.daemon.harness import Daemon, wait_for

pytestmark = pytest.mark.clock

SECONDS = float(os.environ.get("ROV_ARDUSUB_S", 0))


@pytest.fixture
def boats(tmp_path: Path) -> Iterator[Callable[[str, type[PilotAlone] | type[Whole]], Boat]]:
    with ExitStack() as stack:

        def make(kind: str, ours: type[PilotAlone] | type[Whole]) -> Boat:
            rover = Rover(kind, tmp_path / kind)
            stack.callback(rover.close)
            boat = Boat(rover, ours(rover, tmp_path / kind))
            stack.callback(boat.end.close)
            return boat

        yield make


@pytest.mark.daemon
def test_taken_over_and_handed_back_on_a_bad_line(boats: Callable[..., Boat]) -> None:
    """On all three ways at once, with a whole daemon on one of them. Nothing moves that was not commanded; each end of
    our control is an event, on the public endpoint and in the dive, which is whole."""
    made = {"tcp": boats("tcp", Whole), "udp": boats("udp", PilotAlone), "pty": boats("pty", PilotAlone)}
    with ThreadPoolExecutor() as pool:
        runs = {kind: pool.submit(taken_over, boat, 7, SECONDS) for kind, boat in made.items()}
    for kind, run in runs.items():
        turns, boat = run.result(), made[kind]
        moving = sum(stick.x > 0 for stick in boat.rover.sticks())
        print(f"{kind}: taken over {len(turns)} times; {moving} sticks of ours moved the vehicle, all commanded")
        assert moving > 50
        assert_reported(turns, boat.events(0))
        if isinstance(boat.end, Whole):
            recorded(boat.end.daemon, boat, turns)


def recorded(daemon: Daemon, boat: Boat, turns: list[Round]) -> None:
    """The dive of the run is whole, and says of the link what was said in public."""
    assert daemon.stop() == 0
    (path,) = daemon.dives.glob("*.mcap")
    with Dive(path) as dive:
        digests = dive.digests()
        assert dive.complete, dive.problems
        events = [r.data for r in dive.messages(["events"]) if isinstance(r.data, Event)]
    assert_reported(turns, events)
    public = {(event.t, event.code) for event in boat.events(0) if event.source == "link"}
    assert public and public <= {(event.t, event.code) for event in events}
    seconds = (digests["thrusters"].last_t - digests["thrusters"].first_t) / 1e9
    assert digests["thrusters"].count > 0.95 * 50 * seconds and digests["camera"].count > 5 * seconds
    print(f"dive: {seconds:.0f} s, " + ", ".join(f"{digest.count} {topic}" for topic, digest in digests.items()))


def test_depth_hold_a_turn_and_a_crash(boats: Callable[..., Boat]) -> None:
    boat = boats("tcp", PilotAlone)
    assert isinstance(boat.end, PilotAlone)
    operator, autopilot = boat.end.operator, boat.rover.autopilot
    operator.sticks = {"surge": SURGE}
    boat.engage()
    assert operator.mode(Mode.HOLD).accepted
    wait_for(lambda: autopilot.mode == ALT_HOLD, "ALT_HOLD")
    depth, yaw = autopilot.vessel.depth, autopilot.vessel.attitude[2]
    operator.sticks = {"yaw": 0.3}
    wait_for(lambda: abs(autopilot.vessel.attitude[2] - yaw) > 0.5, "a turn of half a radian")
    operator.sticks = {"yaw": 0.0}
    time.sleep(1)
    assert abs(autopilot.vessel.depth - depth) < 0.1 and boat.armed()
    operator.sticks = {"surge": SURGE}
    time.sleep(0.5)
    boat.end.process.kill()
    t = time.monotonic()
    wait_for(lambda: not autopilot.armed, "the failsafe", 1.0)
    assert time.monotonic() - t < 0.5 + 0.1 and autopilot.rc == (1500.0,) * 4


def test_ended_over_tcp_it_is_disarmed_by_us(boats: Callable[..., Boat]) -> None:
    """The last neutral and disarming are read, whatever the autopilot still sends; else its failsafe ends it later."""
    boat = boats("tcp", PilotAlone)
    assert isinstance(boat.end, PilotAlone)
    autopilot = boat.rover.autopilot
    boat.end.operator.sticks = {"surge": SURGE}
    boat.engage()
    boat.end.process.terminate()
    wait_for(lambda: not autopilot.armed, "a disarming")
    assert autopilot.reasons[-1] == "disarmed: command" and boat.rover.sticks()[-1][2:] == (0, 0, 500, 0)
