"""The link to ArduSub, rule by rule on simulated time; whole runs are in daemon/test_pilot_wins.py."""

import math
import random
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymavlink.dialects.v20 import common

from rov.errors import UserError
from rov.link.ardusub.firmware import ALT_HOLD, PARAMETERS, STABILIZE, SURFACE, rc_of
from rov.link.ardusub.link import SET_MODE, ArdusubLink
from rov.link.ardusub.parameters import SET_INTERVAL
from rov.link.mavlink import MS, Packer, Parser
from rov.link.mavlink_link import ARM_DISARM
from rov.link.transport import READ_MAX, NetworkTransport, transport_of
from rov.messages import Event, Mode
from sim import flight
from sim.ardusub import Autopilot, GroundStation, Stick
from sim.wire import NoisyWire
from tests.daemon.autopilot import OURS
from tests.daemon.harness import environment, free_port

TICK = 20 * MS
POSHOLD, MANUAL = 16, 19


class Cable:
    """The way to the autopilot, without a kernel."""

    path = "cable"

    def __init__(self) -> None:
        self.is_open = self.deaf = False
        self.there = True
        self.inbound = self.outbound = b""
        self.opened = 0

    def open(self) -> str:
        self.opened += self.there
        self.is_open, self.inbound, self.outbound = self.there, b"", b""
        return "" if self.there else "cable: not there"

    def read(self) -> bytes:
        if not self.there:
            raise OSError("pulled out")
        data, self.inbound = self.inbound, b""
        return data

    def write(self, data: bytes) -> bool:
        if not self.deaf:
            self.outbound += data
        return not self.deaf

    def discard(self) -> None:
        self.outbound = b""

    def close(self) -> None:
        self.is_open = False


class Rig:
    """A link, an autopilot and a ground station in lockstep: 50 ticks are a second."""

    def __init__(self) -> None:
        self.cable, self.autopilot, self.station = Cable(), Autopilot(), GroundStation()
        self.link = ArdusubLink("udp:127.0.0.1:1", "vectored_6dof")
        self.link.port = self.cable
        self.up, self.down, self.parser = NoisyWire(), NoisyWire(), Parser()
        self.values: tuple[float, ...] = (0.0,) * 4
        self.t = 1_000_000 * MS
        self.events: list[Event] = []
        self.frames: list[tuple[int, tuple[int, int], Any]] = []
        """What left: when, whose, what."""

    def tick(self) -> None:
        self.t += TICK
        self.events += self.link.poll(self.t)
        self.link.send(self.values, True, self.t)
        sent, self.cable.outbound = self.cable.outbound, b""
        frames = self.parser.feed(sent)
        self.frames += [(self.t, frame.sender, frame.message) for frame in frames]
        heard = self.up.carry([bytes(frame.message.get_msgbuf()) for frame in frames], self.t)
        out = self.autopilot.step(self.t, {"rov": heard, "gcs": self.station.step(self.t)})
        if self.cable.is_open:
            self.cable.inbound += self.down.carry(out["rov"], self.t)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 50)):
            self.tick()

    def until(self, done: Callable[[], bool], seconds: float = 6.0) -> float:
        start = self.t
        while not done():
            self.tick()
            assert self.t - start < seconds * 1e9, [event.text for event in self.events]
        return (self.t - start) / 1e9

    def engaged(self, **sticks: float) -> "Rig":
        self.run(3)
        assert self.link.arm(self.t) == ""
        self.until(lambda: self.link.live)
        self.values = tuple(sticks.get(axis, 0.0) for axis in ("surge", "sway", "heave", "yaw"))
        self.run(0.5)
        return self

    def sticks(self, since: int = 0) -> list[Stick]:
        """Ours that the autopilot took."""
        return [stick for stick in self.autopilot.taken if stick.component == OURS and stick.t >= since]

    def sent(self, kind: type[Any], since: int = 0) -> list[Any]:
        return [message for t, _, message in self.frames if isinstance(message, kind) and t >= since]

    def codes(self, level: str = "") -> list[str]:
        return [event.code for event in self.events if level in ("", event.level)]

    def ended(self, code: str, t: int, within: float) -> None:
        """Control ended by an alarm of this code, in time, and nothing has left since."""
        end = next(event for event in self.events if event.code == code and event.level == "alarm")
        assert end.t - t <= within * 1e9, f"{(end.t - t) / 1e9} s"
        assert not self.link.live and not self.link.testing
        self.values = (1.0,) * 4
        self.run(2)
        assert not [1 for sent_t, _, m in self.frames if sent_t >= end.t and "MANUAL_CONTROL" in m.get_type()]


@pytest.fixture
def rig() -> Rig:
    return Rig()


# ---- who says what ----------------------------------------------------------------------------------------------


def test_our_heartbeat_is_the_vehicles_and_sticks_are_the_ground_stations(rig: Rig) -> None:
    rig.engaged(surge=0.25)
    start, rig.frames = rig.t, []
    rig.run(2)
    senders = {type(message).__name__: sender for _, sender, message in rig.frames}
    assert senders["MAVLink_heartbeat_message"] == (1, OURS)
    assert senders["MAVLink_manual_control_message"] == (255, OURS)
    assert set(senders.values()) == {(1, OURS), (255, OURS)}
    assert [m.type for m in rig.sent(common.MAVLink_heartbeat_message)] == [common.MAV_TYPE_ONBOARD_CONTROLLER] * 2
    assert 20 * 2 <= len(rig.sticks(start + 1)) <= 50 * 2
    assert rig.autopilot.refused_sticks == 0


def test_another_id_of_the_ground_station(rig: Rig) -> None:
    rig.autopilot.parameters["SYSID_MYGCS"] = 250
    rig.run(3)
    assert "system 250" in rig.link.arm(rig.t)  # the station's heartbeat is 255's: it is not the one
    rig.station.packer.codec.srcSystem = 250
    rig.engaged(yaw=0.1)
    assert rig.sticks() and rig.autopilot.refused_sticks == 0


def test_newer_name_of_the_ground_stations_id(rig: Rig) -> None:
    rig.autopilot.parameters["MAV_GCS_SYSID"] = rig.autopilot.parameters.pop("SYSID_MYGCS")
    rig.engaged()


def test_nothing_steers_before_it_is_asked_for(rig: Rig) -> None:
    rig.values = (1.0,) * 4
    rig.run(10)
    kinds = {type(message).__name__ for _, _, message in rig.frames}
    assert not rig.autopilot.taken and not rig.autopilot.reasons
    assert "MAVLink_manual_control_message" not in kinds
    asked = [m.command for m in rig.sent(common.MAVLink_command_long_message)]
    assert set(asked) == {SET_INTERVAL}


# ---- the gain law -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gain", "throttle", "axis", "value", "stick"),
    [
        (0.5, 1.0, "surge", 0.25, {"x": 500}),  # 0.4 µs × 0.5 × 500 = 100 µs = 0.25 × 400
        (0.5, 1.0, "sway", -0.25, {"y": -500}),
        (0.25, 1.0, "yaw", 0.1, {"r": 400}),  # 0.4 × 0.25 × 400 = 40 = 0.1 × 400
        (1.0, 1.0, "heave", 0.5, {"z": 250}),  # 0.8 × (250 − 500) = −200 µs: down by half
        (0.5, 0.5, "heave", -0.1, {"z": 700}),  # k = 0.2; 0.2 × 200 = 40 µs up
        (0.5, 1.0, "surge", 0.9, {"x": 1000}),  # more than the gain lets through
        (0.5, 1.0, "heave", 1.0, {"z": 0}),
    ],
)
def test_a_commanded_fraction_comes_out(
    rig: Rig, gain: float, throttle: float, axis: str, value: float, stick: dict[str, int]
) -> None:
    rig.autopilot.gain, rig.autopilot.parameters["JS_THR_GAIN"] = gain, throttle
    rig.engaged(**{axis: value})
    last = rig.sticks()[-1]
    assert last._asdict() == {"t": last.t, "component": OURS, "x": 0, "y": 0, "z": 500, "r": 0} | stick
    assert rig.link.live


@given(
    st.lists(st.floats(-1, 1), min_size=4, max_size=4),
    st.sampled_from([0.1, 0.25, 0.5, 1.0]),
    st.sampled_from([0.5, 1.0, 1.5]),
)
def test_the_gain_law_inverted(shares: list[float], gain: float, throttle: float) -> None:
    """Whatever the gain lets through comes out to 1 µs (a stick is whole numbers: 0.6 µs at most)."""
    rig = Rig()
    known = {"SYSID_MYGCS": 255.0, "JS_THR_GAIN": throttle, "JS_GAIN_DEFAULT": gain, "JS_GAIN_MIN": 0.1}
    rig.link.connection.parameters.parameters = known
    reach = [gain, gain, min(gain * throttle, 1.0), gain]
    surge, sway, heave, yaw = (share * r for share, r in zip(shares, reach, strict=True))
    [frame] = Parser().feed(rig.link._sticks((surge, sway, heave, yaw), 0))
    m = frame.message
    assert 0 <= m.z <= 1000
    pulses = rc_of(m.x, m.y, m.z, m.r, gain, throttle)
    wanted = [1500 - 400 * heave, 1500 + 400 * yaw, 1500 + 400 * surge, 1500 + 400 * sway]
    assert np.abs(np.array(pulses) - wanted).max() <= 1.0


@given(st.floats(0.01, 1.0), st.sampled_from([-1, 1]), st.sampled_from([0.25, 0.5, 1]), st.sampled_from([40.0, 150.0]))
def test_a_small_stick_is_past_the_firmwares_dead_bands(share: float, sign: int, gain: float, zone: float) -> None:
    """What ALT_HOLD makes of it, by its own arithmetic: just that share of its fastest, from the smallest stick on. A
    stick is whole numbers."""
    rig = Rig()
    known = {"SYSID_MYGCS": 255.0, "JS_THR_GAIN": 1.0, "JS_GAIN_DEFAULT": gain, "JS_GAIN_MIN": 0.1, "RC4_DZ": zone}
    rig.link.connection.parameters.parameters, rig.link.connection.mode = known, ALT_HOLD
    value = sign * share * gain * 0.5  # as far as the stick reaches beside the bands
    [frame] = Parser().feed(rig.link._sticks((0.0, 0.0, value, value), 0))
    m = frame.message
    throttle, yaw, _, _ = rc_of(m.x, m.y, m.z, m.r, gain, 1.0)
    assert -flight.climb(throttle, gain) == pytest.approx(value, abs=0.002)
    dead = zone * gain
    assert math.copysign(max(abs(yaw - 1500) - dead, 0) / (400 - dead), yaw - 1500) == pytest.approx(value, abs=0.002)


def test_in_alt_hold_a_tenth_of_a_stick_climbs_and_turns_and_nothing_is_nothing(rig: Rig) -> None:
    """Without the firmware's dead bands taken out, both would be inside them."""
    rig.autopilot.mode = ALT_HOLD
    rig.engaged()
    assert rig.autopilot.mode == ALT_HOLD and rig.sticks()[-1][2:] == (0, 0, 500, 0)
    rig.values = (0.0, 0.0, -0.02, 0.02)
    rig.run(1)
    before = rig.autopilot.target
    rig.run(5)
    assert before is not None and rig.autopilot.target == pytest.approx(before - 5 * 0.02 * 0.5, rel=0.15), (
        "m at 0.5 m/s"
    )
    assert flight.turn(rig.autopilot.rc[1], 0.5) == pytest.approx(0.02, abs=0.002)


def test_gain_buttons_are_followed(rig: Rig) -> None:
    rig.engaged(surge=0.2)
    rig.autopilot.gain = 1.0
    rig.run(1)
    assert rig.sticks()[-1].x == 200 and rig.link.live


def test_the_autopilot_hears_nothing_late(rig: Rig) -> None:
    """A stick behind the beginning of a long frame that never comes is lost, not acted on when it is history."""
    rig.run(1)
    autopilot, packer = rig.autopilot, Packer(255, OURS)
    stick = packer.pack(common.MAVLink_manual_control_message(1, 500, 0, 500, 0, 0))
    false = b"\xfd\xff" + packer.pack(common.MAVLink_heartbeat_message(6, 8, 0, 0, 4, 3))[2:10]
    for heard in (false + stick, *[packer.pack(common.MAVLink_heartbeat_message(6, 8, 0, 0, 4, 3))] * 20, stick):
        taken = len(autopilot.taken)
        rig.t += TICK
        autopilot.step(rig.t, {"rov": heard, "gcs": b""})
    assert len(autopilot.taken) == taken + 1 == 1


def test_sticks_that_make_no_sense_are_neutral(rig: Rig) -> None:
    rig.engaged()
    for values in ((float("nan"), 0.0, 0.0, 0.0), (1.0,) * 8, ()):
        rig.values = values
        rig.run(0.2)
        assert rig.sticks()[-1][2:] == (0, 0, 500, 0)


# ---- what stands in the way -------------------------------------------------------------------------------------


def pilot_pushes(rig: Rig) -> None:
    rig.station.sticks = (0, 0, 500, 0)


def pilot_unseen(rig: Rig) -> None:
    """His sticks are not forwarded to us, but they show in the channels."""
    rig.autopilot.reports = False
    rig.autopilot.gain = 1.0
    rig.station.sticks = (0, 0, 500, 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rig: rig.autopilot.parameters.update(FS_PILOT_INPUT=0), "FS_PILOT_INPUT is 0; it must be 2"),
        (lambda rig: rig.autopilot.parameters.update(FS_PILOT_INPUT=1), "FS_PILOT_INPUT is 1; it must be 2"),
        (lambda rig: rig.autopilot.parameters.update(FS_PILOT_TIMEOUT=3.0), "FS_PILOT_TIMEOUT is 3 s"),
        (lambda rig: rig.autopilot.parameters.update(FS_PILOT_TIMEOUT=0.6), "FS_PILOT_TIMEOUT is 0.6 s"),
        (lambda rig: rig.autopilot.parameters.pop("FS_PILOT_TIMEOUT"), "parameters not read yet: FS_PILOT_TIMEOUT"),
        (lambda rig: rig.autopilot.parameters.pop("SYSID_MYGCS"), "parameters not read yet: SYSID_MYGCS"),
        (lambda rig: setattr(rig.station, "alive", False), "no heartbeat of the ground station (system 255) for 3 s"),
        (lambda rig: setattr(rig.cable, "there", False), "is not open"),
        (lambda rig: setattr(rig.down, "mute", True), "no heartbeat of the autopilot"),
        (lambda rig: rig.autopilot.switches.update(InputHold=1.0), "input hold is on"),
        (lambda rig: rig.autopilot.switches.update(RollPitch=1.0), "roll and pitch mode is on"),
        (pilot_pushes, "another stick stream is present; to hand over, switch the joystick off"),
    ],
)
def test_engaging_is_refused(rig: Rig, change: Callable[[Rig], object], reason: str) -> None:
    change(rig)
    rig.values = (0.5,) * 4
    rig.run(5)
    assert reason in rig.link.arm(rig.t)
    rig.run(3)
    assert not rig.link.live and not rig.link.testing and not rig.sticks() and not rig.autopilot.armed


def test_sticks_that_are_not_forwarded_show_in_the_channels(rig: Rig) -> None:
    rig.autopilot.reports = False
    rig.run(3)
    for x in (0, 400, 0, 400, 0):
        rig.station.sticks = (x, 0, 500, 0)
        rig.run(0.2)
    assert "RC channels are moving" in rig.link.arm(rig.t)
    rig.station.command(ARM_DISARM, 1.0)
    rig.station.sticks = (400, 0, 500, 0)
    rig.run(3)
    assert "held off its centre" in rig.link.arm(rig.t)
    rig.station.sticks = None
    rig.run(4)
    assert rig.link.arm(rig.t) == ""


def test_channels_of_a_disarmed_vehicle_may_rest_anywhere(rig: Rig) -> None:
    """As in the firmware's own simulation, without a transmitter."""
    rig.autopilot.receiver = (1000.0, 1500.0, 1800.0, 1000.0)
    rig.run(5)
    rig.engaged(surge=0.1)
    rig.run(3)
    assert rig.link.live


def test_another_vehicles_sticks_are_nobodys_business(rig: Rig) -> None:
    rig.engaged()
    other = common.MAVLink_manual_control_message(7, 500, 0, 500, 0, 0)
    rig.cable.inbound += rig.station.packer.pack(other)
    rig.run(0.5)
    assert rig.link.live


def test_what_forbids_to_engage_is_part_of_the_state(rig: Rig) -> None:
    rig.autopilot.parameters["FS_PILOT_TIMEOUT"] = 3.0
    rig.run(4)
    assert rig.link.state is not None and rig.link.state.obstacle.startswith("FS_PILOT_TIMEOUT is 3 s")
    rig.autopilot.parameters["FS_PILOT_TIMEOUT"] = 0.5
    rig.run(8)
    assert rig.link.state.obstacle == "" and not rig.link.state.surfacing


def test_nothing_is_asked_that_the_autopilot_would_write_to_people_about(rig: Rig) -> None:
    rig.engaged()
    rig.run(4)
    assert not [text for _, text in rig.link.connection.last_text if "No ap_message" in text]
    assert rig.link.connection.gain == 0.5


def test_unsafe_parameters_are_a_warning_each_and_the_rest_is_reported(rig: Rig) -> None:
    rig.autopilot.parameters.update(
        FS_PILOT_INPUT=1, FS_PILOT_TIMEOUT=3, FS_GCS_ENABLE=0, FS_LEAK_ENABLE=0, FRAME_CONFIG=1, RC_OVERRIDE_TIME=-1
    )
    rig.run(10)
    warned = sorted(event.text.split()[0] for event in rig.events if event.code == "parameter_unsafe")
    assert warned == sorted(
        ["FS_PILOT_INPUT", "FS_PILOT_TIMEOUT", "FS_GCS_ENABLE", "FS_LEAK_ENABLE", "FRAME_CONFIG", "RC_OVERRIDE_TIME"]
    )
    rig.autopilot.parameters.update(FS_LEAK_ENABLE=1, FS_PILOT_INPUT=2)
    rig.run(8)
    assert "FS_PILOT_INPUT is 2" in [event.text for event in rig.events if event.code == "parameter"]


def test_a_parameter_made_unsafe_ends_control(rig: Rig) -> None:
    rig.engaged(surge=0.2)
    t = rig.t
    rig.autopilot.parameters["FS_PILOT_TIMEOUT"] = 3.0
    rig.run(6)
    assert not rig.link.live and not rig.autopilot.armed
    assert [e.level for e in rig.events if e.code == "parameter_unsafe" and e.level == "alarm"] == [
        "alarm"
    ] and rig.events[-1].t > t


# ---- the pilot wins ---------------------------------------------------------------------------------------------


def test_the_pilots_sticks_end_control(rig: Rig) -> None:
    rig.engaged(surge=0.3)
    t, rig.station.sticks = rig.t, (0, 100, 500, 0)
    rig.run(0.1)
    rig.ended("pilot_sticks", t, 0.06)
    assert rig.autopilot.armed, "his sticks keep it going"


def test_sticks_of_his_that_only_the_channels_show_end_control(rig: Rig) -> None:
    rig.autopilot.reports = False
    rig.engaged(surge=0.3)
    t, rig.station.sticks = rig.t, (-900, 0, 500, 0)
    rig.station.due["sticks"] = 0
    rig.until(lambda: not rig.link.live, 3)
    rig.ended("pilot_sticks", t, 3.0)


@pytest.mark.parametrize("mode", [STABILIZE, MANUAL, POSHOLD])
def test_a_change_of_mode_ends_control(rig: Rig, mode: int) -> None:
    rig.autopilot.position, rig.link.mode = True, Mode.HOLD
    rig.engaged(surge=0.3)
    t = rig.t
    rig.station.command(SET_MODE, 1.0, float(mode))
    rig.run(0.4)
    rig.ended("pilot_mode", t, 0.3)
    assert rig.autopilot.mode == mode


def test_a_disarming_ends_control(rig: Rig) -> None:
    rig.engaged(surge=0.3)
    t = rig.t
    rig.station.command(ARM_DISARM, 0.0)
    rig.run(0.4)
    rig.ended("pilot_disarmed", t, 0.3)
    assert not rig.autopilot.armed


def test_the_pilot_wins_while_engaging(rig: Rig) -> None:
    for _ in range(2):
        rig.autopilot.ignores = {ARM_DISARM}
        rig.run(3)
        assert rig.link.arm(rig.t) == ""
        rig.run(0.6)
        assert rig.link.testing and rig.sticks()[-1][2:] == (0, 0, 500, 0)
        t = rig.t
        rig.station.command(SET_MODE, 1.0, float(STABILIZE if rig.autopilot.mode != STABILIZE else ALT_HOLD))
        rig.run(0.4)
        assert not rig.link.testing and not rig.sticks(t + 300 * MS)
    assert rig.codes("alarm") == ["pilot_mode"] * 2


def test_engaging_again_is_an_explicit_act_and_possible(rig: Rig) -> None:
    for _ in range(3):
        rig.engaged(surge=0.2)
        rig.station.sticks = (0, 0, 500, 0)
        rig.run(1)
        rig.station.sticks = None
        t = rig.t
        rig.run(3)
        assert not rig.link.live and not rig.sticks(t) and not rig.autopilot.armed
    assert rig.codes("alarm") == ["pilot_sticks"] * 3


# ---- losses -----------------------------------------------------------------------------------------------------


def test_no_sticks_without_the_ground_station(rig: Rig) -> None:
    rig.engaged(surge=0.3)
    rig.station.alive = False
    heard = rig.link.connection.gcs_t
    assert heard is not None
    rig.run(4)
    rig.ended("gcs_lost", heard, 3.04)
    assert rig.sticks()[-1].t <= heard + 3040 * MS
    assert "disarmed: pilot input" in rig.autopilot.reasons, "silence is what its own failsafe sees"


def test_a_silent_autopilot_is_lost_after_two_seconds(rig: Rig) -> None:
    rig.engaged(surge=0.3)
    heard = rig.link.connection.heartbeat_t
    assert heard is not None
    rig.down.mute = True
    rig.run(2.5)
    rig.ended("autopilot_lost", heard, 2.04)
    rig.down.mute = False
    rig.engaged(surge=0.1)
    assert rig.sticks()[-1].x == 200


def test_a_loss_is_an_event_also_while_we_do_not_steer(rig: Rig) -> None:
    rig.run(3)
    for _ in range(3):
        rig.down.mute = True
        rig.run(4)
        rig.down.mute = False
        rig.run(4)
    assert rig.codes("alarm") == ["autopilot_lost"] * 3 and rig.codes().count("link_open") == 4


def test_a_crash_of_ours_is_neutral_within_half_a_second(rig: Rig) -> None:
    rig.engaged(surge=0.4)
    t = rig.t
    rig.up.mute = True
    rig.until(lambda: not rig.autopilot.armed)
    assert rig.t - t <= 540 * MS and rig.autopilot.rc == (1500.0,) * 4


def test_the_cable_goes_and_comes(rig: Rig) -> None:
    rig.engaged(surge=0.3)
    rig.cable.there = False
    rig.run(3)
    assert rig.codes("alarm") == ["link_lost"] and rig.codes().count("link_absent") == 1
    rig.cable.there = True
    rig.engaged(surge=0.1)
    assert rig.sticks()[-1].x == 200


def test_a_way_that_is_never_there_is_said_once(rig: Rig) -> None:
    rig.cable.there = False
    rig.run(30)
    assert rig.codes() == ["link_absent"]


def test_a_connection_without_an_autopilot_is_made_anew(rig: Rig) -> None:
    rig.down.mute = True
    rig.run(25)
    assert rig.cable.opened == 3 and rig.codes() == ["link_absent"]


def test_a_restart_ends_control(rig: Rig) -> None:
    rig.engaged(surge=0.3)
    rig.autopilot.restart()
    rig.run(6)  # it sends nothing but its heartbeat until it is asked again
    assert not rig.link.live and rig.codes("alarm") == ["autopilot_restarted"], "and no pilot disarmed it"
    rig.engaged(surge=0.1)


def test_a_blocked_port_loses_its_queue(rig: Rig) -> None:
    rig.engaged(surge=0.3)
    rig.cable.deaf = True
    rig.run(1)
    assert "link_blocked" in rig.codes("alarm")


# ---- commands ---------------------------------------------------------------------------------------------------


def test_a_refused_arming_ends_it_with_the_autopilots_reason(rig: Rig) -> None:
    rig.autopilot.refuses, rig.autopilot.because = {ARM_DISARM}, "Arm: compass not calibrated"
    rig.run(3)
    assert rig.link.arm(rig.t) == ""
    rig.until(lambda: not rig.link.testing)
    [event] = [event for event in rig.events if event.code == "command_refused"]
    assert "arming" in event.text and '"Arm: compass not calibrated"' in event.text and event.level == "alarm"


def test_a_refused_mode_ends_control(rig: Rig) -> None:
    rig.engaged(surge=0.3)
    rig.autopilot.refuses = {SET_MODE}
    rig.link.mode, t = Mode.HOLD, rig.t
    rig.run(0.5)
    assert not rig.link.live and rig.codes("alarm") == ["command_refused"]
    rig.run(1)
    assert not rig.autopilot.armed and not rig.sticks(t + 200 * MS)


def test_a_command_that_is_not_answered_is_refused(rig: Rig) -> None:
    rig.autopilot.ignores = {ARM_DISARM}
    rig.run(3)
    assert rig.link.arm(rig.t) == ""
    took = rig.until(lambda: not rig.link.testing)
    assert took <= 5.0 and rig.codes("alarm") == ["command_refused"]
    rig.run(5)
    assert len([m for m in rig.sent(common.MAVLink_command_long_message) if m.command == ARM_DISARM]) <= 14


@pytest.mark.parametrize(
    ("ours", "before", "theirs"),
    [
        (Mode.MANUAL, STABILIZE, STABILIZE),
        (Mode.MANUAL, SURFACE, ALT_HOLD),
        (Mode.HOLD, MANUAL, ALT_HOLD),
        (Mode.FOLLOW, STABILIZE, ALT_HOLD),
        (Mode.POLICY, ALT_HOLD, ALT_HOLD),
        (Mode.SURFACE, ALT_HOLD, SURFACE),
    ],
)
def test_the_autopilots_mode_fits_ours(rig: Rig, ours: Mode, before: int, theirs: int) -> None:
    rig.autopilot.mode, rig.autopilot.position, rig.link.mode = before, True, ours
    rig.engaged()
    assert rig.autopilot.mode == theirs and rig.autopilot.armed
    rig.link.mode = Mode.HOLD
    rig.run(1)
    assert rig.autopilot.mode == ALT_HOLD and rig.link.live


def test_a_leak_that_makes_the_autopilot_surface_is_not_the_pilot(rig: Rig) -> None:
    rig.autopilot.position, rig.autopilot.vessel.depth = True, 8.0
    rig.engaged()
    rig.autopilot.leak = True
    rig.tick()
    rig.autopilot._set_mode(SURFACE, "leak")
    rig.run(0.3)
    rig.link.mode = Mode.SURFACE  # as the commander does
    rig.run(2)
    assert rig.link.live and rig.autopilot.mode == SURFACE and rig.link.state is not None and rig.link.state.leak


def test_disarming_is_ours_only_while_we_steer(rig: Rig) -> None:
    rig.run(3)
    rig.station.command(ARM_DISARM, 1.0)
    rig.station.sticks = (300, 0, 500, 0)
    rig.run(1)
    rig.frames.clear()
    rig.link.disarm(rig.t)
    rig.run(1)
    assert rig.autopilot.armed
    assert not [m for m in rig.sent(common.MAVLink_command_long_message) if m.command != SET_INTERVAL]

    rig = Rig().engaged(surge=0.3)
    rig.link.disarm(rig.t)
    t = rig.t
    rig.run(0.1)
    assert not rig.autopilot.armed and rig.sticks(t)[-1][2:] == (0, 0, 500, 0)
    t = rig.t
    rig.run(3)
    assert not rig.sticks(t)


def test_a_lost_disarming_is_repeated_until_the_failsafe_has_it(rig: Rig) -> None:
    rig.engaged(surge=0.3)
    rig.autopilot.ignores = {ARM_DISARM}
    rig.link.disarm(rig.t)
    rig.run(0.7)
    assert not rig.autopilot.armed and rig.autopilot.reasons[-1] == "disarmed: pilot input"


# ---- telemetry --------------------------------------------------------------------------------------------------


def test_state_comes_from_the_autopilot(rig: Rig) -> None:
    rig.autopilot.battery_v = 15.25
    rig.run(3)
    state = rig.link.state
    assert state is not None and state.attitude_t is not None and state.depth_t is not None
    assert state.battery_v == pytest.approx(15.25) and state.hull_pressure_kpa == pytest.approx(95.0)
    assert state.hull_temperature_c == pytest.approx(30.0) and not state.leak
    # The autopilot's water: (101325 + 1025 × 9.80665 × depth) Pa; the vessel is buoyant and rises a little.
    assert state.depth == pytest.approx(rig.autopilot.vessel.depth, abs=0.02)
    rig.autopilot.leak = True
    rig.run(0.1)
    assert rig.link.state is not None and rig.link.state.leak


def test_it_begins_in_mavlink_1(rig: Rig) -> None:
    rig.autopilot.version_1 = True
    rig.engaged(surge=0.2)
    assert rig.link.state is not None and rig.link.state.depth_t is not None


def test_rates_are_asked_for_and_checked(rig: Rig) -> None:
    rig.run(3)
    since = rig.t
    rig.run(10)
    state = [m for m in rig.sent(common.MAVLink_command_long_message, since) if m.command == SET_INTERVAL]
    assert {int(m.param1) for m in state} <= {1, 33}, (
        "only SYS_STATUS and GLOBAL_POSITION_INT, which this one never sends"
    )
    slow = Rig()
    slow.autopilot.refuses = {SET_INTERVAL}
    slow.run(16)
    assert slow.sent(common.MAVLink_request_data_stream_message)
    assert slow.codes("warning").count("stream_slow") == 3
    slow.autopilot.refuses = set()
    slow.run(8)
    assert slow.codes("info").count("stream_slow_over") == 3


HANDLED = ("heartbeat", "command_ack", "param_value", "rc_channels", "named_value_float", "statustext", "sys_status")
HANDLED += (
    "battery_status",
    "attitude",
    "scaled_pressure",
    "scaled_pressure2",
    "global_position_int",
    "manual_control",
)


def whole(noise: random.Random, name: str) -> bytes:
    """A frame with a right checksum, from anybody, whose content is random bytes."""
    kind = getattr(common, f"MAVLink_{name}_message")
    sender = noise.choice([(1, 1), (1, OURS), (255, 190), (7, 1)])
    body = bytes([kind.unpacker.size, 0, 0, noise.randrange(256), *sender]) + kind.id.to_bytes(3, "little")
    body += noise.randbytes(kind.unpacker.size)
    crc = common.x25crc(body + bytes([kind.crc_extra])).crc
    return b"\xfd" + body + crc.to_bytes(2, "little")


def test_nothing_that_is_heard_breaks_it() -> None:
    """Whole frames of nonsense, also parameters by their right names."""
    noise = random.Random(0)
    for name in (*PARAMETERS, "PilotGain"):
        rig = Rig()
        rig.run(3)
        rig.link.arm(rig.t)
        for value in (float("nan"), float("inf"), -1e30, 1e30, 0.0, -1.0, 300.0):
            message = common.MAVLink_param_value_message(name.encode(), value, 9, 1, 0)
            named = common.MAVLink_named_value_float_message(0, name.encode()[:10], value)
            rig.cable.inbound += rig.autopilot.packers["rov"].pack(message) + rig.autopilot.packers["rov"].pack(named)
            rig.run(0.1)
    rig = Rig()
    for n in range(1500):
        if n % 100 == 0:
            rig.link.arm(rig.t)
        rig.cable.inbound += whole(noise, noise.choice(HANDLED))
        rig.tick()
    assert not [stick for stick in rig.sticks() if stick[2:] != (0, 0, 500, 0)]


# ---- urls -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["", "tcp:", "tcp:a:b", "serial:/dev/x", "http://x:1", "udp:1"])
def test_a_url_that_cannot_be(url: str) -> None:
    with pytest.raises(UserError, match=r"link\.url"):
        transport_of(url)


def test_an_unknown_host() -> None:
    with pytest.raises(UserError, match="give its IP address"):
        transport_of("tcp:no-such-host.invalid:5760")


def test_a_connection_that_fails_is_an_error_and_not_a_wait() -> None:
    port = transport_of(f"tcp:127.0.0.1:{free_port()}")
    started = time.monotonic()
    with pytest.raises(OSError, match="refused"):
        port.open()
        for _ in range(1000):
            port.read()
            time.sleep(0.001)
    assert time.monotonic() - started < 0.5
    port.close()


def test_pilotd_loads_only_the_kind_of_link_it_needs() -> None:
    kinds = ("rov.link.ardusub", "rov.link.thruster_board", "rov.link.mavlink")
    code = f"import sys, rov.pilotd; print([m for m in sys.modules if m.startswith({kinds})])"
    out = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# ---- sockets ----------------------------------------------------------------------------------------------------


def datagram(sender: tuple[int, int] = (1, 1), *, kind: Any = None) -> bytes:
    kind = kind or common.MAVLink_heartbeat_message(common.MAV_TYPE_SUBMARINE, 3, 0, 19, 4, 3)
    return Packer(*sender).pack(kind)


def spoken(port: NetworkTransport, who: socket.socket, data: bytes) -> bytes:
    who.sendto(data, port.address)
    select.select([port.socket], [], [], 1.0)
    return port.read()


def test_a_udp_peer_is_who_sends_the_vehicles_frames() -> None:
    port = transport_of(f"udp:127.0.0.1:{free_port()}")
    assert isinstance(port, NetworkTransport) and port.open() == ""
    vehicle, stranger = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for each in (vehicle, stranger):
        each.bind(("127.0.0.1", 0))
        each.settimeout(0.2)
    try:
        for nonsense in (b"", b"\xfd", datagram((255, 190)), datagram()[:-1], datagram((1, 191))):
            assert spoken(port, stranger, nonsense) == b"" and not port.write(b"stick")
        assert spoken(port, vehicle, datagram()) == datagram()
        for theft in (b"\xfd", datagram((255, 190)), datagram()):
            assert spoken(port, stranger, theft) == b"" and port.stranger.endswith(str(stranger.getsockname()[1]))
            assert port.write(b"stick") and vehicle.recv(100) == b"stick"
        with pytest.raises(TimeoutError):
            stranger.recv(100)
        port.close()  # as when it has not been heard: another address may be the vehicle's now
        assert port.open() == "" and spoken(port, stranger, datagram()) == datagram() and port.write(b"x")
        assert stranger.recv(100) == b"x"
    finally:
        for each in (vehicle, stranger, port):
            each.close()


def test_a_frame_that_comes_in_pieces_names_the_vehicle_too() -> None:
    port = transport_of(f"udp:127.0.0.1:{free_port()}")
    assert isinstance(port, NetworkTransport) and port.open() == ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as vehicle:
        assert spoken(port, vehicle, datagram()[:7]) == b"" and spoken(port, vehicle, datagram()[7:])
    port.close()


def test_one_read_takes_no_more_than_it_may() -> None:
    port = transport_of(f"udp:127.0.0.1:{free_port()}")
    assert isinstance(port, NetworkTransport) and port.open() == ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as vehicle:
        assert spoken(port, vehicle, datagram())
        for _ in range(60):
            vehicle.sendto(datagram() * 40, port.address)
        assert len(port.read()) <= READ_MAX + 40 * len(datagram())
        assert port.read()
    port.close()


def test_a_stranger_is_one_event(rig: Rig) -> None:
    rig.engaged()
    port = NetworkTransport("udp", "127.0.0.1", 1)
    port.stranger = "10.0.0.9:5"
    for _ in range(50):
        rig.link.port = port
        rig.link._report_stranger(rig.t)
        rig.link.port = rig.cable
        rig.tick()
    assert [event.code for event in rig.events if event.level == "warning"] == ["stranger"]


def test_the_last_words_reach_a_tcp_peer_that_still_talks() -> None:
    """Closed with unread input, a connection is reset, and what the peer had not read is gone."""
    for _ in range(5):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = transport_of(f"tcp:127.0.0.1:{server.getsockname()[1]}")
            assert isinstance(port, NetworkTransport) and port.open() == ""
            peer, _ = server.accept()
            assert port.read() == b""
            peer.sendall(b"telemetry" * 1000)  # not read by us
            assert port.write(b"neutral and disarm")
            closing = threading.Thread(target=lambda port=port: (port.finish(), port.close()))
            closing.start()
            time.sleep(0.05)
            peer.sendall(b"more")
            heard = b""
            while part := peer.recv(100):
                heard += part
            peer.close()
            closing.join(2)
            assert heard == b"neutral and disarm" and not closing.is_alive()


def test_a_tcp_peer_that_never_ends_does_not_hold_us_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = transport_of(f"tcp:127.0.0.1:{server.getsockname()[1]}")
        assert isinstance(port, NetworkTransport) and port.open() == ""
        peer, _ = server.accept()
        port.read()
        started = time.monotonic()
        port.finish()
        port.close()
        assert time.monotonic() - started < 0.7
        peer.close()


# ---- sticks that are not forwarded ------------------------------------------------------------------------------


def overridden(hz: float, phase: int, sticks: tuple[float, ...], pulses: tuple[float, ...]) -> float:
    """Seconds until control ended, the autopilot living in steps of 2.5 ms."""
    rig = Rig().engaged()
    rig.values = sticks
    rig.run(0.5)
    rig.station.override, start, sent = (pulses, hz, 1), rig.t, b""  # type: ignore[assignment]
    rig.station.due["override"] = start + phase * 2_500_000 + MS
    for n in range(1, 1600):
        rig.t += 2_500_000
        if n % 8 == 0:
            rig.events += rig.link.poll(rig.t)
            rig.link.send(rig.values, True, rig.t)
            sent, rig.cable.outbound = rig.cable.outbound, b""
        out = rig.autopilot.step(rig.t, {"rov": sent, "gcs": rig.station.step(rig.t)})
        rig.cable.inbound, sent = rig.cable.inbound + b"".join(out["rov"]), b""
        if not rig.link.live:
            assert rig.codes("alarm") == ["pilot_sticks"]
            return (rig.t - start) / 1e9
    return math.inf


@pytest.mark.parametrize("hz", [10.0, 20.0, 25.0, 50.0])
def test_overrides_to_component_1_end_control_within_a_second(hz: float) -> None:
    """They are not forwarded, and every stick of ours overwrites them."""
    for phase in (0, 2, 7):
        assert overridden(hz, phase, (0.3, 0.0, 0.0, 0.0), (1500, 1500, 1700, 1500)) <= 1.0
    assert overridden(hz, 4, (0.0,) * 4, (1500, 1500, 1500, 1600)) <= 1.0


def test_nothing_but_the_pilot_ends_control(rig: Rig) -> None:
    """Sticks that change at their fastest, on a line that lags and loses, with gains that change now and then."""
    noise = random.Random(3)
    rig.up.delay = rig.down.delay = 0.1
    rig.up.drop = rig.down.drop = 0.1
    rig.autopilot.parameters["FS_PILOT_TIMEOUT"] = 0.5
    rig.engaged()
    for n in range(1500):
        if n % 5 == 0:
            rig.values = tuple(noise.uniform(-0.5, 0.5) for _ in range(4))
        if n % 250 == 249:
            rig.autopilot.gain = noise.choice([0.25, 0.5, 1.0])
        rig.tick()
    assert rig.link.live, [event.text for event in rig.events]


def test_a_failed_depth_sensor_ages_the_depth(rig: Rig) -> None:
    """Its last pressure goes on coming; the autopilot says in its health that it is nothing."""
    rig.engaged()
    rig.autopilot.barometer, t = False, rig.t
    rig.run(3)
    state = rig.link.state
    assert state is not None and state.depth_t is not None and state.depth_t < t + 700 * MS
    assert "not_believed" in rig.codes("warning")
    rig.autopilot.barometer = True
    rig.run(1.5)
    assert (
        rig.link.state is not None and rig.link.state.depth_t is not None and rig.t - rig.link.state.depth_t < 300 * MS
    )
