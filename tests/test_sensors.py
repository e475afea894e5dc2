"""The instruments: their noise has its size, their bias stays, their readings come late, and a seed repeats them."""

import math

import pytest
import torch

from sim.sensors import GRAVITY, Suite, euler, quaternion, sense, switch_on
from sim.vehicle import DT, model, rest, step, still

N = 4000
VEHICLE = model("heavy", torch.float64)
PERFECT = Suite()._replace(
    **{name: 0.0 for name in Suite._fields if name.endswith(("noise", "bias", "iron", "scale"))}, depth_grain=1e-9
)
BOTTOM = still(VEHICLE)._replace(seabed=torch.tensor([12.0], dtype=torch.float64))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def posed(n: int, roll: float = 0.0, pitch: float = 0.0, yaw: float = 0.0):
    angles = torch.tensor([[roll, pitch, yaw]], dtype=torch.float64).expand(n, 3)
    return rest(VEHICLE, n, 10.0)._replace(attitude=quaternion(angles))


def test_angles_and_quaternions_agree() -> None:
    angles = (torch.rand(1000, 3, generator=generator(), dtype=torch.float64) - 0.5) * torch.tensor([6.2, 3.1, 6.2])
    assert torch.allclose(euler(quaternion(angles)), angles, atol=1e-12)


def test_perfect_instruments_say_what_is() -> None:
    state = posed(1, 0.2, -0.3, 1.5)._replace(rates=torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64))
    memory = switch_on(PERFECT, state, BOTTOM, generator())
    readings, _ = sense(PERFECT, state, BOTTOM, memory, generator())
    assert readings.attitude[0].tolist() == pytest.approx([0.2, -0.3, 1.5])
    assert readings.rates[0].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert readings.depth.tolist() == pytest.approx([10.0])
    # At rest the accelerometers feel what holds it: one g, up.
    up = [math.sin(-0.3), -math.cos(-0.3) * math.sin(0.2), -math.cos(-0.3) * math.cos(0.2)]
    assert readings.force[0].tolist() == pytest.approx([GRAVITY * each for each in up])
    assert readings.velocity is None and readings.altitude is None and not readings.leak.any()


def test_accelerometers_feel_acceleration() -> None:
    state, water = posed(1, yaw=1.0), still(VEHICLE)
    memory = switch_on(PERFECT, state, water, generator())
    down = torch.tensor([[0.0, 0, 0, 0, 0.5, 0.5, 0.5, 0.5]], dtype=torch.float64)
    for _ in range(5):
        before = state
        state = step(VEHICLE, state, down, water)
        readings, memory = sense(PERFECT, state, water, memory, generator())
    gained = float(state.velocity[0, 2] - before.velocity[0, 2]) / DT
    assert gained > 0.5 and float(readings.force[0, 2]) == pytest.approx(gained - GRAVITY, abs=1e-9)


def test_noise_and_bias_have_their_sizes() -> None:
    suite, state, random = Suite(), posed(N), generator()
    memory = switch_on(suite, state, BOTTOM, random)
    rows = []
    for _ in range(40):
        readings, memory = sense(suite, state, BOTTOM, memory, random)
        rows.append(readings)
    rates, force = (torch.stack([getattr(row, name) for row in rows]) for name in ("rates", "force"))
    assert float(rates.std(0).mean()) == pytest.approx(math.radians(0.004) * 5, rel=0.05)  # 4 mdps/√Hz over 25 Hz
    assert float(rates.mean(0).std()) == pytest.approx(suite.gyro_bias, rel=0.05)
    assert float(force.std(0).mean()) == pytest.approx(100e-6 * GRAVITY * 5, rel=0.05)
    assert float(force[:, :, :2].mean(0).std()) == pytest.approx(suite.accel_bias, rel=0.05)
    depths = torch.stack([row.depth for row in rows])
    assert torch.allclose(depths / 0.002, (depths / 0.002).round(), atol=1e-6), "2 mm is the grain"
    assert float(depths[2::2].std(0).mean()) == pytest.approx(math.sqrt(0.002**2 + 0.002**2 / 12), rel=0.05)
    yaw = torch.stack([row.attitude[:, 2] for row in rows]).mean(0)
    assert float(yaw.std()) == pytest.approx(math.radians(3.0) / math.sqrt(2), rel=0.05)


def test_hard_iron_goes_once_round_with_the_heading() -> None:
    suite = PERFECT._replace(hard_iron=math.radians(3.0))
    errors = []
    for yaw in (0.0, math.pi / 2, math.pi - 1e-9, -math.pi / 2):
        state = posed(N, yaw=yaw)
        readings, _ = sense(suite, state, BOTTOM, switch_on(suite, state, BOTTOM, generator()), generator())
        errors.append(readings.attitude[:, 2] - yaw)
    assert torch.allclose(errors[0], -(torch.remainder(errors[2] + math.pi, 2 * math.pi) - math.pi), atol=1e-6)
    assert torch.allclose(errors[1], -errors[3], atol=1e-6)


def test_slow_readings_come_late_and_stand() -> None:
    """A vehicle that sinks a metre per interval: depth sampled at every 2nd, there 2 later; DVL every 5th, 2 later."""
    suite = PERFECT._replace(dvl=True, altimeter=True)
    state = rest(VEHICLE, 1, 0.0)
    water = BOTTOM._replace(seabed=torch.tensor([25.0], dtype=torch.float64))
    memory = switch_on(suite, state, water, generator())
    depths, ages, speeds, heights = [], [], [], []
    for tick in range(1, 13):
        state = state._replace(
            position=torch.tensor([[0.0, 0.0, tick]], dtype=torch.float64),
            velocity=torch.tensor([[tick / 10, 0.0, 0.0]], dtype=torch.float64),
        )
        readings, memory = sense(suite, state, water, memory, generator())
        depths.append(round(float(readings.depth), 3))
        ages.append(round(readings.depth_age / DT))
        assert readings.velocity is not None and readings.altitude is not None
        speeds.append(round(float(readings.velocity[0, 0]) * 10, 3))
        heights.append(round(float(readings.altitude), 3))
    assert depths == [0, 0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10]
    assert ages == [1, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2]
    assert speeds == [0, 0, 0, 0, 0, 0, 5, 5, 5, 5, 5, 10]
    assert heights == [25, 25, 25, 25, 25, 20, 20, 20, 20, 20, 15, 15]


def test_without_a_bottom_in_range_there_is_no_velocity_and_no_altitude() -> None:
    suite = Suite()._replace(dvl=True, altimeter=True)
    for water, roll, seen in ((BOTTOM, 0.0, True), (BOTTOM, math.pi, False), (still(VEHICLE), 0.0, False)):
        state = posed(3, roll)
        readings, _ = sense(suite, state, water, switch_on(suite, state, water, generator()), generator())
        assert readings.velocity is not None and readings.altitude is not None
        assert bool(readings.velocity.isfinite().all()) == bool(readings.altitude.isfinite().all()) == seen


def test_a_seed_repeats_everything() -> None:
    runs = []
    for seed in (1, 1, 2):
        random, suite, state = generator(seed), Suite()._replace(dvl=True), posed(5)
        memory = switch_on(suite, state, BOTTOM, random)
        for _ in range(7):
            readings, memory = sense(suite, state, BOTTOM, memory, random)
        runs.append(torch.cat([readings.attitude, readings.force, readings.depth[:, None]], dim=1))
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
