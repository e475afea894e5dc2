"""`sim wrench` against an independent integration of Fossen's matrices, and its complaints."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from rov.errors import UserError
from sim.wrench import OUTPUT, WrenchError, read_forces, read_trial, run, simulate
from tests.commands import python_m

pytestmark = pytest.mark.patient

TRIAL: dict[str, Any] = {
    "mass": 11.5,
    "weight_n": 112.8,
    "buoyancy_n": 114.8,
    "r_g": [0.02, -0.01, 0.03],
    "r_b": [-0.01, 0.005, -0.02],
    "inertia": [0.16, 0.2, 0.3],
    "added_mass": [5.5, 12.7, 14.57, 0.12, 0.13, 0.14],
    "linear_damping": [4.03, 6.22, 5.18, 0.07, 0.08, 0.09],
    "quadratic_damping": [18.18, 21.66, 36.99, 1.55, 1.5, 1.4],
    "current_ned": [0.3, -0.2, 0.1],
    "state0": [1, 2, 3, 0.8, 0.2, -0.4, 0.4, 0.5, -0.3, 0.2, 0.4, -0.2, 0.3],
}


def S(a: Any) -> np.ndarray:
    return np.array([[0, -a[2], a[1]], [a[2], 0, -a[0]], [-a[1], a[0], 0]])


def fossen(trial: dict[str, Any]) -> Any:
    """d(state)/dt by Fossen (2011): M_RB eq. 3.44, C_RB eq. 3.57 of the velocity over ground, C_A eq. 6.43 of the
    relative velocity, M_A on the relative acceleration. Written without the code under test."""
    m, rg, rb = trial["mass"], np.array(trial["r_g"]), np.array(trial["r_b"])
    inertia = np.diag(trial["inertia"]) - m * S(rg) @ S(rg)
    current = np.array(trial["current_ned"])
    rigid = np.block([[m * np.eye(3), -m * S(rg)], [m * S(rg), inertia]])
    added = np.diag(trial["added_mass"])
    linear, quadratic = np.array(trial["linear_damping"]), np.array(trial["quadratic_damping"])
    inverse = np.linalg.inv(rigid + added)

    def coriolis(matrix: np.ndarray, nu: np.ndarray) -> np.ndarray:
        a = matrix[:3, :3] @ nu[:3] + matrix[:3, 3:] @ nu[3:]
        b = matrix[3:, :3] @ nu[:3] + matrix[3:, 3:] @ nu[3:]
        whole = np.zeros((6, 6))
        whole[:3, 3:] = whole[3:, :3] = -S(a)
        whole[3:, 3:] = -S(b)
        return whole

    def slope(_: float, state: np.ndarray, tau: np.ndarray) -> np.ndarray:
        w, x, y, z = state[3:7]
        turn = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )
        nu = state[7:]
        water = turn.T @ current
        relative = nu - np.concatenate([water, np.zeros(3)])
        water_rate = np.concatenate([-S(nu[3:]) @ water, np.zeros(3)])  # of a constant current, seen from the body
        weight = turn.T @ np.array([0, 0, trial["weight_n"]])
        buoyancy = turn.T @ np.array([0, 0, -trial["buoyancy_n"]])
        restoring = np.concatenate([weight + buoyancy, S(rg) @ weight + S(rb) @ buoyancy])
        drag = linear * relative + quadratic * np.abs(relative) * relative
        forces = tau + restoring - drag - coriolis(rigid, nu) @ nu - coriolis(added, relative) @ relative
        rates = inverse @ (forces + added @ water_rate)
        p, q, r = nu[3:]
        quaternion = 0.5 * np.array([[-x, -y, -z], [w, -z, y], [z, w, -x], [-y, x, w]]) @ [p, q, r]
        return np.concatenate([turn @ nu[:3], quaternion, rates])

    return slope


def reference(trial: dict[str, Any], times: Any, wrenches: Any) -> np.ndarray:
    state = np.array(trial["state0"], dtype=float)
    states = [state]
    for start, end, wrench in zip(times, times[1:], wrenches, strict=False):
        options = {"method": "DOP853", "rtol": 1e-9, "atol": 1e-10, "args": (np.array(wrench),)}
        state = solve_ivp(fossen(trial), (start, end), state, **options).y[:, -1]
        states.append(state)
    return np.array(states)


def forces(seed: int, dt: float, seconds: float = 20.0) -> tuple[list[float], list[list[float]]]:
    """Rough: every axis jumps at every row, as far as eight T200 can push."""
    random = np.random.default_rng(seed)
    times = (np.arange(round(seconds / dt) + 1) * dt).tolist()
    return times, (random.uniform(-1, 1, (len(times), 6)) * [80, 80, 80, 12, 12, 12]).tolist()


def trial_file(folder: Path, **changes: Any) -> Path:
    path = folder / "P.json"
    path.write_text(json.dumps({key: value for key, value in (TRIAL | changes).items() if value is not None}))
    return path


def force_file(path: Path, times: Any, wrenches: Any) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["t", "X", "Y", "Z", "K", "M", "N"])
        writer.writerows([t, *wrench] for t, wrench in zip(times, wrenches, strict=True))
    return path


BENZON = {
    "mass": 13.5,
    "weight_n": 132.57,
    "buoyancy_n": 134.88,
    "r_g": [0, 0, 0],
    "r_b": [0, 0, -0.01],
    "inertia": [0.26, 0.23, 0.37],
    "added_mass": [6.36, 7.12, 18.68, 0.189, 0.135, 0.222],
    "linear_damping": [13.7, 0, 33, 0, 0.8, 0],
    "quadratic_damping": [141, 217, 190, 1.19, 0.47, 1.5],
}


@pytest.mark.parametrize(("seed", "dt", "changes"), [(0, 1.0, {}), (1, 2.0, BENZON)])
def test_20_seconds_agree_with_fossen_to_ten_micrometres(seed: int, dt: float, changes: dict[str, Any], tmp_path: Path):
    times, wrenches = forces(seed, dt)
    path = trial_file(tmp_path, **changes)
    got = simulate(read_trial(path), times, wrenches).numpy()
    want = reference(TRIAL | changes, times, wrenches)
    assert np.abs(want[:, :3]).max() > 3, "it goes somewhere"
    assert np.abs(got[:, :3] - want[:, :3]).max() < 1e-5
    assert np.abs(got[:, 3:] - want[:, 3:]).max() < 1e-5


def test_free_in_a_current_it_drifts_with_the_water(tmp_path: Path):
    level = {
        "weight_n": 114.8,
        "state0": [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        "r_g": [0, 0, 0.02],
        "r_b": [0, 0, 0],
    }
    trial = read_trial(trial_file(tmp_path, **level))
    end = simulate(trial, [0.0, 20.0, 21.0], [[0.0] * 6] * 3)
    moved = (end[2, :3] - end[1, :3]).tolist()
    assert moved == pytest.approx(TRIAL["current_ned"], abs=2e-3)


def test_command_writes_the_first_row_and_every_other(tmp_path: Path):
    times, wrenches = forces(0, 0.5, 2.0)
    inputs, out = force_file(tmp_path / "in.csv", times, wrenches), tmp_path / "out.csv"
    done = python_m("sim", "wrench", "--params", trial_file(tmp_path), "--input", inputs, "--out", out)
    assert done.returncode == 0, done.stderr
    head, *rows = csv.reader(out.read_text().splitlines())
    assert head == OUTPUT and [float(row[0]) for row in rows] == times
    length = math.hypot(*TRIAL["state0"][3:7])
    assert [float(each) for each in rows[0][1:]] == pytest.approx(
        [each / length if 3 <= i < 7 else each for i, each in enumerate(TRIAL["state0"])]
    )
    assert all(math.hypot(*map(float, row[4:8])) == pytest.approx(1, abs=1e-12) for row in rows)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"mass": None}, "mass"),
        ({"added_mass": [1, 2, 3]}, "added_mass"),
        ({"state0": [0] * 12}, "state0"),
        ({"state0": [0] * 13}, "quaternion"),
        ({"linear_damping": [-1, 0, 0, 0, 0, 0]}, "must not be negative"),
        ({"mass": 0}, "above 0"),
        ({"inertia": [1, "2", 3]}, "inertia"),
    ],
)
def test_bad_parameters_are_said(changes: dict[str, Any], complaint: str, tmp_path: Path):
    with pytest.raises(UserError, match=complaint):
        read_trial(trial_file(tmp_path, **changes))


def test_not_finite_parameters_are_said(tmp_path: Path):
    path = trial_file(tmp_path)
    path.write_text(path.read_text().replace("11.5", "NaN"))
    with pytest.raises(WrenchError, match="P.json"):
        read_trial(path)
    with pytest.raises(WrenchError, match="cannot be read"):
        read_trial(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "first line"),
        ("t,X,Y,Z,K,M\n0,0,0,0,0,0\n", "lacks N"),
        ("t,X,Y,Z,K,M,N\n", "no rows"),
        ("t,X,Y,Z,K,M,N\n0,0,0,0,0,0,0\n0,0,0,0,0,0,0\n", "t must grow"),
        ("t,X,Y,Z,K,M,N\n0,0,0,nan,0,0,0\n", "row 2 is not finite"),
        ("t,X,Y,Z,K,M,N\n0,0,0,0,0,0\n", "row 2 must have 7 numbers"),
        ("t,X,Y,Z,K,M,N\n0,0,0,a,0,0,0\n", "row 2 must have 7 numbers"),
    ],
)
def test_bad_forces_are_said(text: str, complaint: str, tmp_path: Path):
    path = tmp_path / "in.csv"
    path.write_text(text)
    with pytest.raises(WrenchError, match=complaint):
        read_forces(path)


def test_one_row_and_errors_of_the_command(tmp_path: Path):
    inputs = force_file(tmp_path / "in.csv", [0.0], [[0.0] * 6])

    def mute(_: int) -> Any:
        return lambda: None

    assert run(trial_file(tmp_path), inputs, tmp_path / "out.csv", mute) == 1
    with pytest.raises(WrenchError, match="cannot be written"):
        run(trial_file(tmp_path), inputs, tmp_path / "no" / "out.csv", mute)
