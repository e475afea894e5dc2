"""The T200's curve and its inverse."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rov.motion.thrusters import COMMANDS, CREEP_N, CurveError, load

FILE = Path(__file__).parent.parent / "calibration/t200.toml"
CURVE = load(FILE, cells=4)
VOLTAGES = [10.0, 11.1, 12.0, 14.0, 15.3, 16.0, 16.8, 18.0, 20.0]
fractions = st.floats(-1, 1)
voltages = st.floats(8, 24)


@pytest.mark.parametrize(
    ("volts", "command", "newtons"),
    [(16, 1.0, 51.44), (16, -1.0, -39.91), (16, 0.5, 17.88), (12, -0.25, -3.11), (20, 1.0, 65.92), (10, -1.0, -22.65)],
)
def test_published_points(volts, command, newtons):
    assert CURVE.force(command, volts) == pytest.approx(newtons, abs=0.006)


def test_current_and_voltages_between_and_beyond():
    assert CURVE.current(1.0, 16) == pytest.approx(23.83, abs=0.006)
    assert CURVE.force(1.0, 15.0) == pytest.approx((44.36 + 51.44) / 2, abs=0.02)
    assert CURVE.force(1.0, 25.0) == CURVE.force(1.0, 20.0)
    assert CURVE.force(1.0, 5.0) == CURVE.force(1.0, 10.0)
    for unknown in (None, float("nan"), 0.0):
        assert CURVE.force(1.0, unknown) == CURVE.force(1.0, 16.8)  # 4 cells of 4.2 V
    assert load(FILE, cells=3).force(1.0, None) == pytest.approx(CURVE.force(1.0, 12.6))


def test_reference_is_the_weaker_way():
    assert CURVE.reference(16) == pytest.approx(39.91, abs=0.006)
    assert CURVE.reference(16, 0.5) == pytest.approx(14.10, abs=0.006)  # 1300 us
    assert CURVE.command(-1.0, 16, 0.5) == -0.5
    assert 0.4 < CURVE.command(1.0, 16, 0.5) < 0.5
    assert CURVE.force(CURVE.command(np.array([-1.0, 1.0]), 16), 16) == pytest.approx([-39.91, 39.91], abs=0.01)


@pytest.mark.parametrize("volts", VOLTAGES)
@pytest.mark.parametrize("limit", [1.0, 0.5])
def test_round_trip(volts, limit):
    wanted = np.linspace(-1, 1, 2001)
    commands = CURVE.command(wanted, volts, limit)
    error = CURVE.force(commands, volts) - wanted * CURVE.reference(volts, limit)
    assert np.abs(error).max() < 0.005 * CURVE.reference(volts)
    assert np.abs(error).max() <= CREEP_N
    assert np.all(np.diff(commands) > 0)
    assert np.abs(commands).max() <= limit
    assert commands[1000] == 0.0 and np.all(np.sign(commands) == np.sign(wanted))


@given(fractions, fractions, voltages)
@example(0.0, -2.886436119799805e-278, 10.7890625)
def test_monotone_and_bounded(a, b, volts):
    low, high = CURVE.command(np.array(sorted((a, b))), volts)
    assert -1 <= low <= high <= 1
    assert low * min(a, b) >= 0 and high * max(a, b) >= 0
    assert CURVE.force(low, volts) <= CURVE.force(high, volts)


def test_scatter_is_made_monotone():
    assert np.all(np.diff(CURVE.forces, axis=1) >= 0)
    assert CURVE.forces.shape == CURVE.currents.shape == (6, COMMANDS.size)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"force_n": [-1.0, 0.0]}, "same number"),
        ({"pwm_us": [1100.0, 1500.0, 1400.0]}, "must rise"),
        ({"pwm_us": [1200.0, 1500.0, 1900.0]}, "cover 1100"),
        ({"force_n": [1.0, 0.0, 1.0]}, "negative below"),
        ({"voltage_v": -1.0}, "lowest up"),
        ({"volts": 3.0}, "unknown field"),
        ({"current_a": [1.0, float("inf"), 1.0]}, "finite"),
    ],
)
def test_bad_files_are_refused_with_the_reason(tmp_path, change, complaint):
    table = {"voltage_v": 12.0, "pwm_us": [1100, 1500, 1900], "force_n": [-1, 0, 1], "current_a": [1, 0, 1]}
    path = tmp_path / "curve.toml"
    path.write_bytes(msgspec.toml.encode({"source": "a bench", "table": [table]}))
    assert load(path, 4).force(0.5, 12) == pytest.approx(0.5)
    path.write_bytes(msgspec.toml.encode({"source": "a bench", "table": [table | change]}))
    with pytest.raises(CurveError, match=complaint):
        load(path, 4)


def test_missing_file(tmp_path):
    with pytest.raises(CurveError, match="cannot be read"):
        load(tmp_path / "none.toml", 4)
