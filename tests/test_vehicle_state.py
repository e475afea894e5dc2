"""One translation of MAVLink into VehicleState: units, signs, references, and what is not believed."""

import math
import struct
from pathlib import Path

import msgspec
import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav
from pymavlink.dialects.v20 import common

from rov.imports import logs
from rov.link.ardusub.link import ArdusubLink
from rov.link.mavlink import Packer
from rov.link.vehicle_state import GRAVITY, LEAK_OVER_NS, Telemetry, level_of
from rov.messages import VehicleState

S = 1_000_000_000
FRESH, SALT = 997.0, 1025.0


def pressure(kind: int, pascal: float, celsius: float = 9.0) -> object:
    make = {
        1: mav.MAVLink_scaled_pressure_message,
        2: mav.MAVLink_scaled_pressure2_message,
        3: mav.MAVLink_scaled_pressure3_message,
    }
    return make[kind](1000, pascal / 100, 0, round(celsius * 100))


def home(up: float) -> object:
    return mav.MAVLink_global_position_int_message(1000, 0, 0, 431_000, round(up * 1000), 0, 0, 0, 0)


def known(telemetry: Telemetry) -> VehicleState:
    assert telemetry.state is not None
    return telemetry.state


def battery(number: int, cells: list[int], more: tuple[int, ...] = (0, 0, 0, 0)) -> object:
    volts = [*cells, *[0xFFFF] * (10 - len(cells))]
    return mav.MAVLink_battery_status_message(number, 0, 1, 32767, volts, -1, -1, -1, -1, 0, 0, list(more), 0, 0)


@pytest.mark.parametrize("sensor", [2, 3])
@pytest.mark.parametrize(("surface", "density"), [(101_325.0, SALT), (95_000.0, FRESH)])
def test_depth_is_the_water_above_the_surface_pressure(sensor: int, surface: float, density: float) -> None:
    telemetry = Telemetry(surface, density)
    assert telemetry.update(pressure(sensor, surface + 7.25 * density * GRAVITY), 10 * S, 9 * S)
    state = known(telemetry)
    assert state.depth == pytest.approx(7.25) and state.depth_t == 9 * S and state.water_temperature_c == 9.0
    assert state.hull_pressure_kpa is None


def test_the_hull_is_no_water_and_the_sea_level_is_no_surface() -> None:
    telemetry = Telemetry()
    telemetry.update(pressure(1, 100_650, 29.3), S)
    telemetry.update(mav.MAVLink_ahrs2_message(0, 0, 0, 431.0, 0, 0), S)
    state = known(telemetry)
    assert state.hull_pressure_kpa == pytest.approx(100.65) and state.hull_temperature_c == pytest.approx(29.3)
    assert state.depth_t is None and state.water_temperature_c is None


def test_heights_count_only_without_a_pressure_and_have_the_other_sign() -> None:
    telemetry = Telemetry()
    telemetry.update(home(-3.5), S)
    assert known(telemetry).depth == pytest.approx(3.5)
    telemetry.update(pressure(2, 101_325 + 5 * SALT * GRAVITY), 2 * S)
    telemetry.update(home(-3.5), 2 * S + S // 2)
    assert known(telemetry).depth == pytest.approx(5.0), "the pressure was heard half a second ago"
    telemetry.update(home(-3.5), 4 * S)
    assert known(telemetry).depth == pytest.approx(3.5)
    telemetry.update(home(0.0), 5 * S)
    assert math.copysign(1, known(telemetry).depth) == 1, "no negative zero"


def test_a_second_sensor_that_gets_wet_is_the_one_in_the_water() -> None:
    """Two barometers in the hull and the depth sensor third: the second reads the hull's air all the time."""
    telemetry = Telemetry()
    for t in range(20):
        deep = 101_325 + t * SALT * GRAVITY
        telemetry.update(pressure(2, 100_900), t * S)
        telemetry.update(pressure(3, deep), t * S + 1)
    assert known(telemetry).depth == pytest.approx(19.0)
    telemetry.update(pressure(2, 100_900), 30 * S)
    telemetry.update(home(-19.5), 30 * S + 1)
    assert known(telemetry).depth == pytest.approx(19.5), "the hull's air is not even second best"


@pytest.mark.parametrize(
    ("message", "volts"),
    [
        (battery(0, [15_800]), 15.8),
        (battery(0, [4000, 3950, 3900, 4010]), 15.86),
        (battery(0, [65_534, 9_466]), 75.0),
        (battery(0, [4000] * 10, (4000, 4000, 0, 0)), 48.0),
        (battery(0, [4000] * 10, (4000, 0xFFFF, 0xFFFF, 0xFFFF)), 44.0),
        (battery(0, []), None),
        (battery(1, [11_100]), None),
        (mav.MAVLink_sys_status_message(0, 0, 0, 0, 15_233, 0, 0, 0, 0, 0, 0, 0, 0), 15.233),
        (mav.MAVLink_sys_status_message(0, 0, 0, 0, 0xFFFF, 0, 0, 0, 0, 0, 0, 0, 0), None),
        (mav.MAVLink_sys_status_message(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), None),
    ],
)
def test_the_vehicles_own_battery(message: object, volts: float | None) -> None:
    telemetry = Telemetry()
    telemetry.receive(S)
    assert telemetry.update(message, S)
    assert known(telemetry).battery_v == (None if volts is None else pytest.approx(volts))


def test_a_voltage_gets_old_and_an_unknown_one_replaces_none() -> None:
    telemetry = Telemetry()
    telemetry.update(battery(0, [15_800]), S)
    telemetry.update(battery(0, []), 2 * S)
    telemetry.update(mav.MAVLink_sys_status_message(0, 0, 0, 0, 11_000, 0, 0, 0, 0, 0, 0, 0, 0), 3 * S)
    telemetry.expire(30 * S)
    assert known(telemetry).battery_v == 15.8
    telemetry.expire(32 * S)
    assert known(telemetry).battery_v is None


def test_a_leak_that_was_written_of_is_over_after_a_while_and_one_that_is_reported_when_it_says_so() -> None:
    telemetry = Telemetry()
    for text, leaks in ((b"Leak1 pin is 27", False), (b"Leak Detected", True)):
        telemetry.update(mav.MAVLink_statustext_message(4, text), S)
        telemetry.receive(S)
        assert known(telemetry).leak is leaks
    telemetry.expire(S + LEAK_OVER_NS)
    assert known(telemetry).leak
    telemetry.expire(S + LEAK_OVER_NS + 1)
    assert not known(telemetry).leak
    telemetry.update(mav.MAVLink_named_value_int_message(1, b"LEAK", 1), S)
    telemetry.expire(900 * S)
    assert known(telemetry).leak
    telemetry.update(mav.MAVLink_named_value_int_message(1, b"LEAK", 0), 901 * S)
    assert not known(telemetry).leak


def test_what_else_is_kept() -> None:
    telemetry = Telemetry()
    sounder = (1, 20, 5000, 394, 1, 1)
    for message in (
        mav.MAVLink_distance_sensor_message(*sounder, 25, 255),
        mav.MAVLink_distance_sensor_message(1, 20, 5000, 120, 1, 2, 0, 255),
        mav.MAVLink_distance_sensor_message(1, 20, 5000, 5001, 1, 1, 25, 255),
        mav.MAVLink_local_position_ned_message(1, 1.5, -2.5, 4.0, 0, 0, 0),
        mav.MAVLink_global_position_int_message(1, 483_861_421, -1_246_305_728, 0, -1000, 0, 0, 0, 0),
        mav.MAVLink_global_position_int_message(1, 0, 0, 0, -1000, 0, 0, 0, 0),
        *(mav.MAVLink_named_value_float_message(1, n, v) for n, v in ((b"Lights1", 0.25), (b"CamTilt", 0.75))),
        mav.MAVLink_named_value_float_message(1, b"PilotGain", 0.5),
        mav.MAVLink_named_value_float_message(1, b"TetherTrn", 3.0),
        mav.MAVLink_vision_position_delta_message(0, 100_000, [0, 0, 0], [0.05, -0.01, 0.0], 90.0),
        mav.MAVLink_vision_position_delta_message(0, 100_000, [0, 0, 0], [9.0, 9.0, 9.0], 0.0),
        mav.MAVLink_vision_position_delta_message(0, 0, [0, 0, 0], [9.0, 9.0, 9.0], 90.0),
    ):
        assert telemetry.update(message, S)
    state = known(telemetry)
    assert (state.altitude, state.range_ahead, state.position) == (3.94, 1.2, (1.5, -2.5))
    assert state.velocity == pytest.approx((0.5, -0.1, 0.0)) and state.velocity_t == S
    assert (state.latitude, state.longitude) == pytest.approx((48.3861421, -124.6305728))
    assert (state.lights, state.camera_tilt, state.pilot_gain) == (0.25, 0.75, 0.5)


@pytest.mark.parametrize(
    "message",
    [
        mav.MAVLink_attitude_message(1, math.nan, 0, 0, 0, 0, 0),
        mav.MAVLink_attitude_message(1, 0, 0, 0, 0, 0, math.inf),
        pressure(2, math.nan),
        pressure(2, -1.0),
        pressure(2, 2e8),
        pressure(1, -1.0),
        mav.MAVLink_vfr_hud_message(0, 0, 0, 0, 431.0, 0),
        mav.MAVLink_vfr_hud_message(0, 0, 0, 0, math.nan, 0),
        mav.MAVLink_named_value_float_message(1, b"PilotGain", math.nan),
        mav.MAVLink_local_position_ned_message(1, math.nan, 0, 0, 0, 0, 0),
        mav.MAVLink_global_position_int_message(1, 950_000_000, 0, 0, 0, 0, 0, 0, 0),
        mav.MAVLink_rangefinder_message(math.inf, 0),
    ],
    ids=lambda message: str(message.get_type()),
)
def test_what_makes_no_sense_changes_nothing(message: object) -> None:
    telemetry = Telemetry()
    telemetry.receive(S)
    before = telemetry.state
    assert not telemetry.update(message, 2 * S)
    assert message.get_type() == "GLOBAL_POSITION_INT" or telemetry.state == before  # type: ignore[attr-defined]


class Cable:
    """A port from which these bytes come."""

    path, unsent, is_open = "cable", b"", True

    def __init__(self) -> None:
        self.coming = b""

    def read(self) -> bytes:
        data, self.coming = self.coming, b""
        return data

    def write(self, data: bytes) -> bool:
        return True


def test_a_live_link_and_a_log_say_the_same(tmp_path: Path) -> None:
    """The same frames through the link to an ArduSub, and as a ground station's log."""
    link, cable, packer = ArdusubLink("udp:127.0.0.1:14550", "vectored"), Cable(), Packer(1, 1)
    link.port = cable  # type: ignore[assignment]
    link.surface_pa, link.density = 95_000.0, 1000.0
    recorded = bytearray()
    messages: list[object] = []
    for k in range(40):
        ms = 50_000 + 100 * k
        hectopascal = (95_000 + k / 20 * 1000 * GRAVITY) / 100
        messages += [
            common.MAVLink_heartbeat_message(12, 3, 81 | 128, 19, 4, 3),
            common.MAVLink_scaled_pressure_message(ms, 1009.0, 0, 3000),
            common.MAVLink_scaled_pressure3_message(ms, hectopascal, 0, 800),
            common.MAVLink_global_position_int_message(ms, 0, 0, 0, -50 * k, 0, 0, 0, 0),
            common.MAVLink_battery_status_message(1, 0, 1, 0, [11_100] + [0xFFFF] * 9, -1, -1, -1, -1),
            common.MAVLink_battery_status_message(0, 0, 1, 0, [15_800] + [0xFFFF] * 9, -1, -1, -1, -1),
            common.MAVLink_named_value_float_message(ms, b"Lights1", 0.5),
            common.MAVLink_local_position_ned_message(ms, k / 10, 0, 0, 0, 0, 0),
            common.MAVLink_attitude_message(ms, 0.1, 0.2, 0.3 + k / 100, 0, 0, 0.1),
        ]
    messages.append(common.MAVLink_statustext_message(4, b"Leak Detected"))
    messages.append(common.MAVLink_attitude_message(54_100, 0.1, 0.2, 0.7, 0, 0, 0.1))
    for n, message in enumerate(messages):
        t = 10**12 + n * 12_000_000
        frame = packer.pack(message)
        recorded += struct.pack(">Q", (1_700_000_000 * 10**9 + t) // 1000) + frame
        cable.coming = frame
        link.poll(t)
    (tmp_path / "l.tlog").write_bytes(recorded)
    log = logs.read(tmp_path / "l.tlog", surface_pa=95_000.0, density=1000.0)
    live, read = link.state, log.states[-1]
    assert live is not None and live.depth == pytest.approx(1.95, abs=1e-3) and live.battery_v == 15.8
    apart = {"t", "attitude_t", "depth_t", "position_t", "obstacle"}  # their clocks, and what is in the way of a link
    said, written = (msgspec.structs.asdict(state) for state in (live, read))
    assert {name: said[name] for name in said if name not in apart} == {
        name: written[name] for name in written if name not in apart
    }


def test_severities() -> None:
    assert [level_of(each) for each in range(8)] == ["alarm"] * 4 + ["warning"] + ["info"] * 3
