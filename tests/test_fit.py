"""`sim fit` finds a vehicle again, says what it cannot know, and refuses dives that show nothing."""

import random
from pathlib import Path

import msgspec
import pytest
import torch

from rov.dives.dive import Dive, DiveWriter
from rov.messages import Mode, ThrusterCommand, VehicleState
from sim import parameters
from sim.excite import DEPTH_M, excite
from sim.fit import NAMES, FitError, Result, compared, fit, pose, spreads, write
from sim.parameters import Parameters
from sim.sensors import Suite, switch_on
from sim.vehicle import model, rest, still
from tests.commands import python_m

# torch's forward differentiation scripts its own helpers when it is first used.
pytestmark = [
    pytest.mark.patient,
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
]
SEED = 3
WU = parameters.load("wu")
INSTRUMENTS = Suite()._replace(dvl=True)
"""With all that is wrong with them: noise, biases, a pull at the compass, a scale, rates, delays and grain."""


@pytest.fixture(scope="module")
def dives(tmp_path_factory) -> list[Path]:
    """Eight dives of 15 s."""
    folder = tmp_path_factory.mktemp("dives")
    paths = [folder / f"{i}.mcap" for i in range(8)]
    excite(WU, paths, seed=SEED, seconds=15.2, suite=INSTRUMENTS)
    return paths


def perturbed(truth: Parameters, seed: int) -> Parameters:
    """Every damping and added mass, thrust and delay 40 % too large or too small."""
    chance = random.Random(seed)

    def lists(values) -> tuple[float, ...]:
        return tuple(value * chance.choice([0.6, 1.4]) for value in values)

    return msgspec.structs.replace(
        truth,
        added_mass=lists(truth.added_mass),
        linear_damping=lists(truth.linear_damping),
        quadratic_damping=lists(truth.quadratic_damping),
        thrust_scale=0.6,
        thrust_delay_s=0.029 * 1.4,
    )


@pytest.fixture(scope="module")
def result(dives: list[Path]) -> Result:
    return fit(dives, perturbed(WU, 0))


def test_forty_percent_off_it_comes_back_to_within_five(result: Result, tmp_path: Path) -> None:
    for name, truth, found in compared(WU, result.parameters):
        assert found == pytest.approx(truth, rel=0.05), f"{name} ± {result.spread[name]}"
    assert all(result.after[kind] < 0.1 * result.before[kind] for kind in result.before)
    assert result.verdict("thrust_scale") == result.verdict("quadratic_damping surge") == "well"
    write(result, tmp_path / "vehicle.toml")
    again = parameters.load(tmp_path / "vehicle.toml")
    assert again == result.parameters
    assert (tmp_path / "vehicle.png").stat().st_size > 20_000
    said = (tmp_path / "vehicle.toml").read_text()
    assert "thrust_scale: " in said and "dive 8: gyro " in said


def test_what_the_instruments_are_off_by_is_found_too(dives: list[Path], result: Result) -> None:
    """Level and compass as they were drawn for these dives, to a third; the gyro's 0.1 degrees a second only to a half,
    and not the DVL's scale: more thrust and less drag look like it."""
    moving = model(WU, torch.float64)
    random = torch.Generator().manual_seed(SEED)
    drawn = switch_on(INSTRUMENTS, rest(moving, len(dives), DEPTH_M), still(moving), random)
    truth = torch.cat([drawn.tilt_bias, drawn.iron], dim=1)
    off = torch.tensor(result.flaws[:, 3:7]) - truth
    assert (off.square().mean(0) < (truth / 3).square().mean(0)).all(), (off, truth)


@torch.no_grad()
def known(dives: list[Path], start: Parameters) -> dict[str, float]:
    """The spread of each number at the truth."""
    problem = pose(dives, start)
    return dict(zip(NAMES, spreads(problem, torch.zeros_like(problem.prior)).tolist(), strict=False))


def test_it_says_what_a_dive_does_not_show(tmp_path: Path) -> None:
    """Up, down and around, without a DVL: next to nothing is learnt of surge and sway, near their prior of 50 %."""
    paths = [tmp_path / f"{i}.mcap" for i in range(4)]
    excite(WU, paths, seed=4, seconds=15.2, suite=Suite(), levels=(0.0, 0.0, 0.6, 0.0, 0.0, 0.4))
    spread = known(paths, WU)
    for what in ("linear_damping", "quadratic_damping"):
        assert spread[f"{what} surge"] > 0.4 and spread[f"{what} sway"] > 0.4
    assert spread["quadratic_damping heave"] < 0.15 and spread["quadratic_damping yaw"] < 0.15


def test_the_dives_say_what_the_vehicle_did(dives: list[Path]) -> None:
    depths = []
    for path in dives:
        with Dive(path) as dive:
            states = [each.data for each in dive.messages({"vehicle"})]
        assert len(states) == 760
        seen = [isinstance(state, VehicleState) and state.velocity_t is not None for state in states]
        assert sum(seen) > 500, "the DVL sees the bottom while the vehicle is not on its side"
        depths += [state.depth for state in states if isinstance(state, VehicleState)]
    assert 3.0 < min(depths) < 9.9 and 10.1 < max(depths) < 20.0


def test_dives_that_show_nothing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "idle.mcap"

    def dive(armed: bool, motors: int, vehicle: bool = True) -> Path:
        with DiveWriter(path, {}, overwrite=True) as writer:
            for t in range(0, 2_000_000_000, 20_000_000):
                if vehicle:
                    writer.write("vehicle", VehicleState(t=t, attitude_t=t, depth_t=t, depth=5.0))
                values = (0.1,) * motors
                command = ThrusterCommand(t=t, frame_id=-1, frame_t=t, armed=armed, mode=Mode.HOLD, values=values)
                writer.write("thrusters", command)
        return path

    for options, complaint in (
        ((False, 8), "never armed"),
        ((True, 6), "commands for 8 motors"),
        ((True, 8), "fewer than three windows"),
    ):
        with pytest.raises(FitError, match=complaint):
            fit([dive(*options)], WU)
    done = python_m("sim", "fit", dive(True, 8, vehicle=False), "--out", tmp_path / "v.toml")
    assert done.returncode == 2 and "nothing on the topic vehicle" in done.stderr
