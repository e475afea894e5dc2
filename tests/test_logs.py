"""What is read from logs: the right vehicle, depth, battery and sticks, whatever else is in them."""

import itertools
import math
import struct
from pathlib import Path

import pytest
from pymavlink.dialects.v10 import ardupilotmega as old
from pymavlink.dialects.v20 import ardupilotmega as mav

from rov.errors import UserError
from rov.imports import logs
from rov.imports.water import water
from rov.link.vehicle_state import GRAVITY
from rov.messages import Arm, Disarm, SetMode, Sticks
from tests.logs import UTC, BinFile, TlogFile, attitude, heartbeat

pytestmark = pytest.mark.patient

BOOT = 50.0


def sticks(log: logs.Log) -> list[Sticks]:
    return [each for each in log.commands if isinstance(each, Sticks)]


def depth(t: float) -> float:
    """Down to 6 m in 30 s."""
    return 0.2 * t


def dive(
    path: Path,
    *,
    surface: float | None = 101_325.0,
    density: float = 1025.0,
    sensor: int = 2,
    hull: int = 1,
    relative: float | None = 0.0,
    sea_level: float | None = None,
    parameters: tuple[tuple[str, float], ...] = (),
) -> Path:
    """30 s: `surface` pressure (None: no sensor), heights with this zero (None: not sent) and the surface above the
    sea (None: VFR_HUD stays 0)."""
    kinds = {
        1: mav.MAVLink_scaled_pressure_message,
        2: mav.MAVLink_scaled_pressure2_message,
        3: mav.MAVLink_scaled_pressure3_message,
    }
    log = TlogFile()
    for name, value in parameters:
        log.add(0, mav.MAVLink_param_value_message(name.encode(), value, 9, 1, 0))
    for k in range(300):
        t = k / 10
        ms = round((BOOT + t) * 1000)
        if k % 10 == 0:
            log.add(t, heartbeat())
        if relative is not None:
            log.add(
                t, mav.MAVLink_global_position_int_message(ms, 0, 0, 0, round(1000 * (relative - depth(t))), 0, 0, 0, 0)
            )
        log.add(t, mav.MAVLink_vfr_hud_message(0, 0, 0, 0, 0 if sea_level is None else sea_level - depth(t), 0))
        log.add(t, kinds[hull](ms, 1005.0 + k / 100, 0, 3000))
        if surface is not None:
            log.add(t, kinds[sensor](ms, (surface + depth(t) * density * GRAVITY) / 100, 0, 900))
        log.add(t, attitude(BOOT + t))
    return log.write(path)


def errors(log: logs.Log) -> float:
    """The largest error of the depth."""
    return max(abs(state.depth - depth((state.t / 1e9) - BOOT)) for state in log.states)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"surface": 95_000.0, "density": 1000.0, "sea_level": 431.0},
        {"surface": 95_000.0, "density": 1000.0, "sea_level": 8.0},
        {"surface": 60_000.0, "density": 997.0, "sea_level": 4000.0, "relative": None},
        {"surface": 103_300.0, "relative": None},
        {"surface": 101_325.0, "density": 997.0, "sensor": 3, "hull": 2},
        {"surface": 97_000.0, "density": 1000.0, "relative": None, "parameters": (("BARO_SPEC_GRAV", 1.0),)},
        {"surface": None},
        {"surface": None, "relative": 0.0, "sea_level": 431.0},
        {"surface": None, "relative": None, "sea_level": 431.0},
        {"surface": None, "relative": None, "sea_level": 0.0},
        {"surface": 101_325.0, "relative": 12.0},
    ],
    ids=lambda how: " ".join(f"{key}={value}" for key, value in how.items()) or "as always",
)
def test_depth_is_below_the_surface_wherever_that_is(how: dict[str, float], tmp_path: Path) -> None:
    log = logs.read(dive(tmp_path / "l.tlog", **how))  # type: ignore[arg-type]
    assert errors(log) < 0.1
    assert all(math.copysign(1, state.depth) == 1 for state in log.states if state.depth == 0)


def test_the_user_knows_the_water_better(tmp_path: Path) -> None:
    """A log that begins at 3 m: nothing in it shows the surface."""
    begun = dive(tmp_path / "l.tlog", surface=95_000.0 + 3 * 1000 * GRAVITY, density=1000.0, relative=None)
    log = logs.read(begun, surface_pa=95_000.0, density=1000.0)
    assert log.states[-1].depth == pytest.approx(8.96, abs=0.03) and log.about["surface_pa"] == "95000"
    assert "as you say" in " ".join(log.notes)
    assert not math.isclose(logs.read(begun).states[-1].depth, 8.96, abs_tol=0.5)


def test_a_spike_is_no_surface() -> None:
    rising = [(k, 101_325.0 + 100 * k) for k in range(200)]
    rising[120] = (120, 60_000.0)
    assert water({"SCALED_PRESSURE2": rising}, {}, {}).surface_pa == pytest.approx(101_325, abs=300)


def two_vehicles(path: Path, systems: tuple[int, int], boots: tuple[float, float] = (900.0, 100.0)) -> Path:
    log = TlogFile()
    for k in range(600):
        t = k / 10
        for vehicle in (0, 1):
            system = systems[vehicle]
            log.links.setdefault((system, 1, False), None)
            link = log.links[system, 1, False] = mav.MAVLink(None, system, 1)
            link.seq = (2 * k + 100 * vehicle) % 256
            log.add(t, attitude(boots[vehicle] + t, (0.5, -2.0)[vehicle]), system)
            if k % 10 == 0:
                log.add(t, heartbeat(vehicle == 0 and t > 10, (2, 19)[vehicle]), system)
                log.add(t, mav.MAVLink_vfr_hud_message(0, 0, 0, 0, (-5.0, -12.0)[vehicle], 0), system)
                log.add(t, mav.MAVLink_manual_control_message(system, (500, -500)[vehicle], 0, 500, 0, 0), 255, 190)
    return log.write(path)


@pytest.mark.parametrize(("system", "yaw", "deep", "arms"), [(None, 0.5, 5.0, True), (2, -2.0, 12.0, False)])
def test_one_vehicle_of_two_is_taken_and_said(
    system: int | None, yaw: float, deep: float, arms: bool, tmp_path: Path
) -> None:
    log = logs.read(two_vehicles(tmp_path / "l.tlog", (1, 2)), system=system)
    assert len(log.states) == 600 and log.states[-1].t - log.states[0].t == pytest.approx(59.9e9)
    assert {round(state.yaw, 3) for state in log.states} == {yaw} and log.states[-1].depth == pytest.approx(deep)
    assert [(each.t - log.states[0].t) / 1e9 for each in log.commands if isinstance(each, Arm)] == [11.0] * arms
    assert {stick.surge for stick in sticks(log)} == {0.5 if arms else -0.5}
    assert f"1 (600 attitudes), 2 (600 attitudes); taken: {system or 1}" in log.notes[0]


def test_a_system_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no attitude of system 7 .* 1 \(600 attitudes\), 2"):
        logs.read(two_vehicles(tmp_path / "l.tlog", (1, 2)), system=7)


def test_two_vehicles_of_one_number_are_told_apart_by_their_clocks(tmp_path: Path) -> None:
    log = logs.read(two_vehicles(tmp_path / "l.tlog", (1, 1)))
    assert len(log.states) == 600 and log.states[-1].t - log.states[0].t == pytest.approx(59.9e9)
    assert len({round(state.yaw, 3) for state in log.states}) == 1
    assert sum(number for why, number in log.dropped.items() if "another vehicle" in why) == 600
    assert len({state.depth for state in log.states if state.depth_t}) == 1, "what has no stamp goes by its sequence"


def test_others_on_the_line_are_no_vehicle(tmp_path: Path) -> None:
    """A ground station, a camera, a transponder and a companion, all louder than the autopilot."""
    log = TlogFile()
    for k in range(100):
        for system, component, kind in ((255, 190, 6), (1, 100, 30), (66, 156, 27), (1, 191, 18)):
            for _ in range(3):
                log.add(k / 10, heartbeat(armed=True, mode=4, kind=kind), system, component)
        log.add(k / 10, mav.MAVLink_distance_sensor_message(3, 20, 5000, 394, 1, 1, 25, 255), 1, 194)
        log.add(k / 10, attitude(BOOT + k / 10))
    read = logs.read(log.write(tmp_path / "l.tlog"))
    assert len(read.states) == 100 and not read.commands and read.states[-1].altitude == 3.94
    assert not any(state.armed for state in read.states)


def test_an_axis_that_is_not_there_is_not_pushed(tmp_path: Path) -> None:
    log = TlogFile()
    said = [(1, 0, 32767, 500, 0), (1, 1000, -1000, 0, 500), (1, 0, 0, 1000, 0), (0, 0, 0, 32767, -1000),
            (1, 32767, 32767, 32767, 32767), (2, 1000, 0, 500, 0)]  # fmt: skip
    log.add(0, attitude(BOOT))
    for k, each in enumerate(said):
        log.add(0.1 * k, mav.MAVLink_manual_control_message(*each, 0), 255, 190)
        log.add(0.1 * k, attitude(BOOT + 0.1 * k + 0.1))
    read = logs.read(log.write(tmp_path / "l.tlog"))
    axes = [(each.surge, each.sway, each.heave, each.yaw) for each in sticks(read)]
    assert axes == [(0, 0, 0, 0), (1, -1, 1, 0.5), (0, 0, -1, 0), (0, 0, 0, -1)], (
        "none of all missing, none of another's"
    )
    assert any("lack an axis" in note and "2 times" in note for note in read.notes)


def test_a_receivers_channels_are_sticks_where_there_are_no_others(tmp_path: Path) -> None:
    log = TlogFile()
    log.add(0, attitude(BOOT))
    for k, (throttle, yaw, ahead, side) in enumerate(((1500, 1900, 1300, 0), (1100, 1500, 1500, 65535), (0,) * 4)):
        pulses = (0, 0, throttle, yaw, ahead, side, *(0,) * 12)
        log.add(0.1 * k, mav.MAVLink_rc_channels_message(round(1000 * (BOOT + 0.1 * k)), 18, *pulses, 0))
        log.add(0.1 * k, attitude(BOOT + 0.1 * k + 0.05))
    read = logs.read(log.write(tmp_path / "l.tlog"))
    assert [(each.surge, each.sway, each.heave, each.yaw) for each in sticks(read)] == [(-0.5, 0, 0, 1), (0, 0, 1, 0)]


@pytest.mark.parametrize("jump", [None, 86_400.0, -86_400.0, -UTC])
def test_the_clock_of_the_ground_station_may_be_anything(jump: float | None, tmp_path: Path) -> None:
    """It jumps, or shows 0: times are the autopilot's."""
    log = TlogFile()
    for k in range(100):
        if k == 50 and jump is not None:
            log.utc += jump
        log.add(k / 10, attitude(BOOT + k / 10))
        log.add(k / 10, mav.MAVLink_manual_control_message(1, k, 0, 500, 0, 0), 255, 190)
    read = logs.read(log.write(tmp_path / "l.tlog"))
    assert [state.t for state in read.states] == [round((BOOT + k / 10) * 1e9) for k in range(100)]
    assert all(abs(each.t - BOOT * 1e9 - k * 1e8) < 6e7 for k, each in enumerate(sticks(read)))
    assert read.clocks[0].utc_ns == UTC * 1e9 and read.clocks[0].t == BOOT * 1e9
    assert all(each.utc_ns > 1e18 for each in read.clocks)


def test_a_restart_is_a_new_stretch(tmp_path: Path) -> None:
    log = TlogFile()
    for k in range(100):
        boot = 900 + k / 10 if k < 50 else 2 + (k - 50) / 10
        log.add(k / 10 + (20 if k >= 50 else 0), attitude(boot))
    read = logs.read(log.write(tmp_path / "l.tlog"))
    assert len(read.states) == 100 and any("restarted 904.9 s" in note for note in read.notes)
    steps = [b.t - a.t for a, b in itertools.pairwise(read.states)]
    assert steps[49] == pytest.approx(20.1e9) and all(step == 1e8 for k, step in enumerate(steps) if k != 49)


def test_texts_become_events_and_long_ones_are_put_together(tmp_path: Path) -> None:
    log = TlogFile()
    log.add(0, attitude(BOOT))
    said = [
        (6, b"ArduSub V4.5.0", 0, 0),
        (4, b"A" * 50, 7, 0),
        (4, b"B" * 50, 7, 1),
        (4, b"end", 7, 2),
        (2, b"C" * 50, 8, 0),
        (4, b"Leak Detected", 0, 0),
    ]
    for k, each in enumerate(said):
        log.add(0.1 * k, mav.MAVLink_statustext_message(*each))
        log.add(0.1 * k, attitude(BOOT + 0.1 * k + 0.1))
    read = logs.read(log.write(tmp_path / "l.tlog"))
    assert [(each.level, each.text) for each in read.events] == [
        ("info", "ArduSub V4.5.0"),
        ("warning", "A" * 50 + "B" * 50 + "end"),
        ("alarm", "Leak Detected"),
        ("alarm", "C" * 50),
    ]
    assert [state.leak for state in read.states] == [False] * 6 + [True]


@pytest.mark.parametrize("parameters", [{}, {"FRAME_CONFIG": 2}, {f"SERVO{n + 1}_FUNCTION": 40 - n for n in range(8)}])
def test_what_the_autopilot_put_out_is_kept(parameters: dict[str, float], tmp_path: Path) -> None:
    pulses = [1500, 1900, 1100, 1700, 1500, 1500, 1500, 1300]
    log = TlogFile()
    for name, value in parameters.items():
        log.add(0, mav.MAVLink_param_value_message(name.encode(), value, 9, 1, 0))
    for k in range(4):
        log.add(0.1 * k, attitude(BOOT + 0.1 * k))
        log.add(0.1 * k, heartbeat(armed=True, mode=2))
        log.add(0.1 * k, mav.MAVLink_servo_output_raw_message(0, 0, *pulses, *[0] * 8))
    read = logs.read(log.write(tmp_path / "l.tlog"))
    values = (0, 1, -1, 0.5, 0, 0, 0, -0.5)
    assert len(read.thrusters) == 4 and read.thrusters[0].armed and read.thrusters[0].mode == "hold"
    assert read.thrusters[0].values == pytest.approx(values[::-1] if "SERVO1_FUNCTION" in parameters else values)


def test_both_versions_signed_frames_and_unknown_ones(tmp_path: Path) -> None:
    log = TlogFile()
    signed = mav.MAVLink(None, 1, 1)
    signed.signing.secret_key, signed.signing.sign_outgoing = b"k" * 32, True
    log.links[1, 1, False] = signed
    for k in range(60):
        log.add(k / 10, old.MAVLink_attitude_message(round(1000 * (BOOT + k / 10)), 0, 0, 0.3, 0, 0, 0), first=True)
        log.add(k / 10, attitude(BOOT + k / 10 + 0.05))
        if k % 3 == 0:  # a message of a dialect that nobody here knows
            log.data += struct.pack(">Q", int((UTC + k) * 1e6)) + b"\xfd\x04\0\0\0\1\1\xff\xff\x7f" + b"abcdxx"
    read = logs.read(log.write(tmp_path / "l.tlog"))
    assert len(read.states) == 120 and dict(read.dropped) == {"messages of a kind that is not known, of 140": 20}


def test_a_cut_off_end_is_counted(tmp_path: Path) -> None:
    log = TlogFile()
    for k in range(50):
        log.add(k / 10, attitude(BOOT + k / 10))
    whole = len(log.data)
    log.add(5, attitude(BOOT + 5))
    del log.data[-9:]
    read = logs.read(log.write(tmp_path / "l.tlog"))
    why = f"bytes that belong to no message, of {len(log.data)}"
    assert len(read.states) == 50 and dict(read.dropped) == {why: len(log.data) - whole}


# ---- an autopilot's own log --------------------------------------------------------------------------------------


def binary(path: Path, inst: str = "Inst", *, baro: bool = False) -> Path:
    """40 s: a main pack, a payload pack, a leak after 20 s."""
    log = BinFile(BAT=("QBfffffcfB", f"TimeUS,{inst},Volt,VoltR,Curr,CurrTot,EnrgTot,Temp,Res,RemPct"))
    log.add(41.25, "MSG", b"ArduSub V4.5.0 (00000000)")
    log.add(41.25, "MODE", 19, 19, 1)
    for n in range(6):
        log.add(41.25, "PARM", f"SERVO{n + 1}_FUNCTION".encode(), 33.0 + n)
    for k in range(400):
        t = 41.25 + k / 10
        if k == 20:
            log.add(t, "ARM", 1)
        if k == 200:
            log.add(t, "MSG", b"Leak Detected")
        log.add(t, "ATT", 0, 100, 0, -50, 0, 9000)
        down = 2.5 if not baro else k / 100
        log.add(t, "CTUN", 0.0, 0.0, 0.0, 0.0, 0.0, -down, round(-100 * down))
        if baro:
            log.add(t, "BARO", 0, 0.0, 100_900.0, 4000)
            log.add(t, "BARO", 1, -down, 95_000.0 + down * 1000 * GRAVITY, 900)
        log.add(t + 0.001, "BAT", 0, 15.8)
        log.add(t + 0.002, "BAT", 1, 11.1)
        log.add(t + 0.003, "RFND", 0, 394, 4, 25)
        log.add(t + 0.004, "RCIN", 1500, 1500, 1500, 1500, 1900, 1500)
        log.add(t + 0.004, "RCOU", 1500, 1700, 1500, 1500, 1500, 1500)
        log.add(t + 0.005, "GPS", 0, 3, 345_600_000 + k * 100, 2288)
    return log.write(path)


@pytest.mark.parametrize("inst", ["Inst", "Instance"])
def test_an_autopilots_own_log_is_read_by_the_same_rules(inst: str, tmp_path: Path) -> None:
    log = logs.read(binary(tmp_path / "l.BIN", inst))
    assert len(log.states) == 400 and {round(s.battery_v or 0, 3) for s in log.states[1:]} == {15.8}
    state = log.states[-1]
    assert (state.roll, state.pitch, state.yaw) == pytest.approx((math.radians(1), math.radians(-0.5), math.pi / 2))
    assert state.depth == 2.5 and state.altitude == pytest.approx(3.94)
    leaking = [each.t for each in log.states if each.leak]
    assert len(leaking) == 200 and leaking[0] == round(61.25e9)
    assert [(type(each), each.t / 1e9) for each in log.commands if not isinstance(each, Sticks)] == [
        (SetMode, 41.25),
        (Arm, 43.25),
    ]
    assert {stick.surge for stick in sticks(log)} == {1.0}
    assert log.thrusters[-1].values == pytest.approx((0, 0.5, 0, 0, 0, 0))
    assert [(each.level, each.text) for each in log.events] == [
        ("info", "ArduSub V4.5.0 (00000000)"),
        ("alarm", "Leak Detected"),
    ]
    assert len(log.clocks) == 40 and log.clocks[0].utc_ns == (315_964_800 + 2288 * 604_800 + 345_600 - 18) * 10**9


def test_a_barometer_in_a_mountain_lake(tmp_path: Path) -> None:
    log = logs.read(binary(tmp_path / "l.BIN", baro=True))
    assert max(abs(state.depth - k / 100) for k, state in enumerate(log.states)) < 0.05
    assert log.states[-1].hull_pressure_kpa == pytest.approx(100.9) and log.states[-1].water_temperature_c == 9.0


def test_the_leak_failsafe_of_an_error_record(tmp_path: Path) -> None:
    log = BinFile()
    for k in range(30):
        log.add(k / 10, "ATT", 0, 0, 0, 0, 0, 0)
        if k in (10, 20):
            log.add(k / 10, "ERR", 26, k == 10)
    read = logs.read(log.write(tmp_path / "l.BIN"))
    assert [state.leak for state in read.states] == [10 < k <= 20 for k in range(30)]


def test_one_damaged_stamp_is_dropped_and_moves_nothing(tmp_path: Path) -> None:
    log = BinFile()
    for k in range(100):
        log.add({40: 5e6, 41: 1e12, 60: 0.001}.get(k, 100 + k / 10), "ATT", 0, 0, 0, 0, 0, 0)
    read = logs.read(log.write(tmp_path / "l.BIN"))
    assert len(read.states) == 97 and read.dropped["records with a wrong time"] == 3
    assert read.states[-1].t - read.states[0].t == pytest.approx(9.9e9) and not any("anew" in n for n in read.notes)


def test_one_damaged_description_costs_its_own_records_only(tmp_path: Path) -> None:
    whole = binary(tmp_path / "l.BIN").read_bytes()
    at = whole.index(b"QBfffffcfB")
    (tmp_path / "l.BIN").write_bytes(whole[:at] + b"?" + whole[at + 1 :])
    read = logs.read(tmp_path / "l.BIN")
    assert len(read.states) > 350 and read.states[-1].battery_v is None and any("bytes" in why for why in read.dropped)


def test_disarmed_first(tmp_path: Path) -> None:
    log = TlogFile()
    for k in range(20):
        log.add(k / 10, attitude(BOOT + k / 10))
        log.add(k / 10, heartbeat(armed=k > 10, mode=4))
    read = logs.read(log.write(tmp_path / "l.tlog"))
    assert [type(each) for each in read.commands] == [Disarm, Arm]
    assert any("GUIDED has no equivalent" in note for note in read.notes) and read.events[0].code == "autopilot_mode"
