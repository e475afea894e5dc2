"""The firmware's loops on a vehicle of the simulator, behind the scripted autopilot."""

import math

import numpy as np
import pytest

from rov.config.schema import load as load_config
from rov.link.ardusub.firmware import ALT_HOLD, MANUAL, STABILIZE, SURFACE, past_dead_bands, rc_of, sticks_of
from rov.motion.controllers import DEAD_BAND
from rov.resources import find_resource
from sim.ardusub import Autopilot
from sim.flight import Flight, climb, turn
from sim.loops import ArdusubLoops
from sim.single_vehicle import SingleVehicle
from sim.world import load, realise
from tests.seas import FLOWING

TICK = 20_000_000


class Armed:
    """An armed autopilot on von Benzon's hull in a wide, deep sea; its pilot's sticks come at every tick."""

    def __init__(self, tmp_path, mode):
        (tmp_path / "sea.toml").write_text(FLOWING)
        self.vehicle = SingleVehicle(realise(load(str(tmp_path / "sea.toml")), 3))
        self.autopilot = Autopilot(flight=Flight(self.vehicle, "vectored_6dof"))
        self.autopilot.mode, self.autopilot.armed, self.t = mode, True, 0

    def sail(self, seconds, *axes):
        """Surge, sway, heave, yaw as shares of the channels' range; returns the largest tilt in degrees."""
        tilt = 0.0
        for _ in range(round(seconds * 50)):
            self.t += TICK
            autopilot = self.autopilot
            autopilot.rc = rc_of(*sticks_of(axes or (0.0,) * 4, autopilot.gain, 1.0), autopilot.gain, 1.0)
            autopilot.pilot_t = autopilot.gcs_t = self.t
            autopilot.step(self.t, {"rov": b""})
            tilt = max(tilt, *np.degrees(np.abs(self.vehicle.attitude[:2])))
        return tilt


def test_it_holds_depth_and_level_at_full_surge(tmp_path):
    """Pushed back in proportion to the tilt alone, as a simple vehicle is, this hull pitches to 40 degrees."""
    armed = Armed(tmp_path, ALT_HOLD)
    depth = armed.vehicle.depth
    assert armed.sail(10.0, 0.4, 0.0, 0.0, 0.0) < 15.0
    assert armed.vehicle.depth == pytest.approx(depth, abs=0.3)
    armed.sail(3.0, 0.0, 0.0, 0.0, 0.3)
    turned = armed.vehicle.attitude[2]
    armed.sail(5.0)
    assert abs(math.degrees(math.remainder(armed.vehicle.attitude[2] - turned, 2 * math.pi))) < 30, "it stops turning"


def test_its_depth_loop_begins_where_the_vehicle_is(tmp_path):
    armed = Armed(tmp_path, STABILIZE)
    before = armed.vehicle.depth
    assert armed.sail(5.0, 0.0, 0.0, 0.3, 0.0) < 15.0
    after = armed.vehicle.depth
    assert after > before + 0.5, "heave is positive down"
    armed.autopilot.mode = ALT_HOLD
    armed.sail(6.0)
    assert armed.vehicle.depth == pytest.approx(after, abs=0.4)


def test_it_surfaces_and_then_holds(tmp_path):
    armed = Armed(tmp_path, SURFACE)
    armed.sail(30.0)
    assert armed.autopilot.mode == ALT_HOLD and armed.vehicle.depth < 0.4


@pytest.mark.parametrize(
    ("us", "gain", "share"),
    [
        (1500.0, 0.5, 0.0),
        (1535.0, 0.5, 0.0),  # 519.5 of 1000 per 400 us: 45 above the middle, and the band is 50
        (1900.0, 0.5, 1.0),
        (1700.0, 0.5, 0.447),  # (519.5 / 2 - 50) / (519.5 - 50)
        (1300.0, 0.5, -0.487),  # faster down: (519.5 / 2 - 50) / (480.5 - 50)
        (1300.0, 1.0, -0.420),
        (1100.0, 0.5, -1.0),
    ],
)
def test_what_a_pulse_means_for_the_climb(us, gain, share):
    assert climb(us, gain) == pytest.approx(share, abs=0.001)


def test_what_a_pulse_means_for_the_turn():
    """40 us times the gain are dead."""
    assert [turn(us, 0.5) for us in (1500.0, 1519.0, 1481.0, 1100.0, 1900.0)] == [0.0, 0.0, 0.0, -1.0, 1.0]
    assert turn(1710.0, 0.5) == pytest.approx(0.5) and turn(1290.0, 0.5) == pytest.approx(-0.5)


def test_a_turn_ends_where_it_has_stopped(tmp_path):
    """Without the quarter of a second in which it slows down, it would come back to where the stick was released."""
    armed = Armed(tmp_path, ALT_HOLD)
    armed.sail(3.0, 0.0, 0.0, 0.0, 0.4)
    released = armed.vehicle.attitude[2]
    armed.sail(0.3)
    stopped = armed.vehicle.attitude[2]
    armed.sail(6.0)
    held = armed.vehicle.attitude[2]
    assert math.remainder(stopped - released, 2 * math.pi) > math.radians(3), "it turns on at first"
    assert abs(math.remainder(held - stopped, 2 * math.pi)) < math.radians(3)


def test_the_sea_of_the_tasks_takes_sticks_as_pilot_and_link_give_them():
    """Its loops know neither the pilot's part nor the link's: they are these numbers."""
    loops, config = ArdusubLoops(), load_config(find_resource("rover.toml"))
    assert loops.gain == config.guard.gain and loops.dead_band == DEAD_BAND
    for stick in (-0.8, -0.06, 0.2, 0.8):
        share = loops.gain * stick
        rc = rc_of(*sticks_of(past_dead_bands((0.0, 0.0, share, share), 0.5, {}), 0.5, 1.0), 0.5, 1.0)
        assert -climb(rc[0], 0.5) == pytest.approx(share, abs=0.002)
        assert turn(rc[1], 0.5) == pytest.approx(share, abs=0.002)


def test_manual_levels_nothing_and_disarmed_nothing_turns(tmp_path, monkeypatch):
    armed, sent = Armed(tmp_path, MANUAL), []
    move = armed.vehicle.step
    monkeypatch.setattr(armed.vehicle, "step", lambda outputs, *rest: (sent.append(outputs), move(outputs, *rest)))
    armed.sail(2.0, 0.3, 0.0, 0.0, 0.0)
    last = np.array(sent[-50:])
    assert np.allclose(np.abs(last[:, :4]), 0.3) and not last[:, 4:].any(), "the vertical thrusters rest"
    armed.autopilot.armed = False
    sent.clear()
    armed.sail(0.5, 0.3, 0.0, 0.0, 0.0)
    assert len(sent) == 25 and not np.array(sent).any()
