"""The vehicle against what can be computed by hand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from rov.motion import thrusters
from rov.motion.allocation import mixer
from rov.resources import find_resource
from sim import parameters
from sim.propulsion import CAPACITY_C, HOTEL_W, RESISTANCE, tables, thrust
from sim.vehicle import DT, Model, State, Tether, WaterForces, advance, model, rest, rotation, step, still

pytestmark = pytest.mark.patient

DOUBLE = torch.float64
HEAVY = parameters.load("heavy")
CURVE = thrusters.load(find_resource("calibration/t200.toml"), cells=4)


def neutral(name: str = "heavy") -> Model:
    """float64, neutrally buoyant."""
    hull = parameters.load(name)
    return model(parameters.msgspec.structs.replace(hull, buoyancy_n=hull.weight_n), DOUBLE)


def push(vehicle: Model, state: Tensor, wrench: Tensor, seconds: float, dt: float = DT, **options) -> Tensor:
    """(13, N) after a constant wrench (6, N)."""
    water = still(vehicle, surface=False)._replace(**options)
    for _ in range(round(seconds / dt)):
        state = advance(state, [wrench] * 3, vehicle, water, water.current, dt)
    return state


def packed(n: int = 1, depth: float = 50.0) -> Tensor:
    state = torch.zeros(13, n, dtype=DOUBLE)
    state[2], state[9] = depth, 1.0
    return state


@torch.inference_mode()
@pytest.mark.parametrize("name", ["heavy", "wu", "standard"])
def test_terminal_velocity_of_each_axis(name: str) -> None:
    # One axis at a time about the centre of gravity: F = l v + q v², so v = (−l + sqrt(l² + 4 q F)) / 2 q.
    hull = parameters.load(name)
    free = parameters.msgspec.structs.replace(hull, buoyancy_n=hull.weight_n, r_g=(0, 0, 0), r_b=(0, 0, 0))
    forces = torch.tensor([40.0, 40.0, 40.0, 3.0, 3.0, 3.0], dtype=DOUBLE)
    end = push(model(free, DOUBLE), packed(6), torch.diag(forces), 40.0)
    for axis in range(6):
        a, b = hull.linear_damping[axis], hull.quadratic_damping[axis]
        want = (-a + math.sqrt(a * a + 4 * b * float(forces[axis]))) / (2 * b)
        assert end[3:9, axis].tolist() == pytest.approx([want if i == axis else 0.0 for i in range(6)], abs=1e-6)


@torch.inference_mode()
def test_neutral_and_trimmed_it_stays_where_it_is() -> None:
    start = packed()
    assert torch.equal(push(neutral(), start, torch.zeros(6, 1, dtype=DOUBLE), 20.0), start)


@torch.inference_mode()
@pytest.mark.parametrize(("axis", "inertia"), [(0, 0.26 + 0.189), (1, 0.23 + 0.135)])
def test_righting_period(axis: int, inertia: float) -> None:
    # CG at the origin, CB 1 cm above: I_total φ̈ = −W 0.01 φ, with the added inertia about the origin. No damping, and
    # no added mass of surge and sway, so that nothing couples.
    hull = parameters.msgspec.structs.replace(
        HEAVY, buoyancy_n=HEAVY.weight_n, linear_damping=(0,) * 6, quadratic_damping=(0,) * 6
    )
    period = 2 * math.pi * math.sqrt(inertia / (hull.weight_n * 0.01))
    start = packed()
    start[9:13, 0] = torch.tensor([math.cos(0.005), 0, 0, 0], dtype=DOUBLE)
    start[10 + axis] = math.sin(0.005)  # 0.01 rad
    halfway = push(model(hull, DOUBLE), start, torch.zeros(6, 1, dtype=DOUBLE), period / 2, period / 400)
    assert float(halfway[10 + axis]) == pytest.approx(-math.sin(0.005), rel=1e-4)
    assert abs(float(halfway[6 + axis])) < 1e-5


@torch.inference_mode()
def test_righting_period_about_a_centre_of_gravity_below_the_origin() -> None:
    # Wu: weight and buoyancy equal here, CG h = 2 cm below the origin, added mass at the origin. Small roll and sway:
    # the free body has no horizontal force, so sway v = m h φ̇ / (m + Y); then I_x + K + m h² − (m h)²/(m + Y) rolls.
    wu = parameters.load("wu")
    hull = parameters.msgspec.structs.replace(
        wu, buoyancy_n=wu.weight_n, linear_damping=(0,) * 6, quadratic_damping=(0,) * 6
    )
    m, h, added = 11.5, 0.02, 12.7
    inertia = 0.16 + 0.12 + m * h * h - (m * h) ** 2 / (m + added)
    period = 2 * math.pi * math.sqrt(inertia / (112.8 * h))
    start = packed()
    start[9], start[10] = math.cos(0.005), math.sin(0.005)
    halfway = push(model(hull, DOUBLE), start, torch.zeros(6, 1, dtype=DOUBLE), period / 2, period / 400)
    assert float(halfway[10]) == pytest.approx(-math.sin(0.005), rel=1e-4)


def energy(vehicle: Model, hull: parameters.Hull, state: Tensor) -> Tensor:
    """(N,) kinetic energy, added mass included, and potential energy of weight and buoyancy, J."""
    speed = state[3:9]
    kinetic = 0.5 * (speed * (vehicle.body.mass @ speed)).sum(0)
    down = rotation(state[9:13])[2]
    lever_g, lever_b = (torch.tensor(each, dtype=DOUBLE) for each in (hull.r_g, hull.r_b))
    return kinetic - hull.weight_n * (state[2] + lever_g @ down) + hull.buoyancy_n * (state[2] + lever_b @ down)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["heavy", "wu"])
def test_energy_never_grows_without_thrust_and_is_kept_without_damping(name: str) -> None:
    hull = parameters.load(name)
    start = packed(50)
    random = torch.Generator().manual_seed(0)
    start[3:9] = torch.randn(6, 50, dtype=DOUBLE, generator=random) * torch.tensor([[1.0]] * 3 + [[2.0]] * 3)
    start[9:13] = torch.nn.functional.normalize(torch.randn(4, 50, dtype=DOUBLE, generator=random), dim=0)
    vehicle, state, none = model(hull, DOUBLE), start, torch.zeros(6, 50, dtype=DOUBLE)
    last = energy(vehicle, hull, state)
    for _ in range(500):
        state = push(vehicle, state, none, DT)
        now = energy(vehicle, hull, state)
        assert bool((now <= last + 1e-9).all())
        last = now
    free = vehicle._replace(
        body=vehicle.body._replace(linear=vehicle.body.linear * 0, quadratic=vehicle.body.linear * 0)
    )
    end = push(free, start, none, 10.0, DT / 4)
    assert torch.allclose(energy(free, hull, end), energy(free, hull, start), atol=1e-4)


def scattered(vehicle: Model, n: int) -> tuple[State, Tensor]:
    """States all over, and commands."""
    random = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=DOUBLE).to(vehicle.effect.dtype)

    state = rest(vehicle, n)._replace(
        position=normal(n, 3) * 5 + torch.tensor([0, 0, 20.0], dtype=vehicle.effect.dtype),
        attitude=torch.nn.functional.normalize(normal(n, 4), dim=1),
        velocity=normal(n, 3) * 0.5,
        rates=normal(n, 3) * 0.5,
    )
    return state, normal(n, vehicle.effect.shape[1]).clamp(-1, 1)


@torch.inference_mode()
@pytest.mark.parametrize(("dtype", "tolerance"), [(DOUBLE, 1e-12), (torch.float32, 2e-4)])
def test_one_is_row_i_of_many(dtype: torch.dtype, tolerance: float) -> None:
    """After 2 s; matrix products of other shapes may round otherwise, nothing else."""
    vehicle = model("heavy", dtype)
    many, commands = scattered(vehicle, 1000)
    one = State(*(each[7:8] for each in many))
    water = still(vehicle)
    for _ in range(100):
        many = step(vehicle, many, commands, water)
        one = step(vehicle, one, commands[7:8], water)
    for alone, row in zip(one[:5], many[:5], strict=True):
        assert torch.allclose(alone[0], row[7], atol=tolerance)


@torch.inference_mode()
def test_halving_the_step_changes_20_seconds_by_less_than_a_millimetre() -> None:
    vehicle = model("heavy", DOUBLE)
    water = WaterForces(
        torch.tensor([[0.3], [0.1], [0.0]], dtype=DOUBLE), tether=Tether(), seabed=torch.tensor([200.0])
    )
    ends = []
    for halves in (1, 2):
        random = torch.Generator().manual_seed(2)
        state = rest(vehicle, 40, 20.0)
        for _ in range(100):  # new commands 5 times a second
            commands = torch.rand(40, 8, generator=random, dtype=DOUBLE) * 1.2 - 0.6
            for _ in range(10 * halves):
                state = step(vehicle, state, commands, water, DT / halves)
        ends.append(state.position)
    moved = (ends[1] - rest(vehicle, 40, 20.0).position).norm(dim=1)
    assert float(moved.mean()) > 3.0
    assert float((ends[1] - ends[0]).abs().max()) < 1e-3


def test_gradients_are_right() -> None:
    vehicle = model("wu", DOUBLE)
    water = still(vehicle)._replace(tether=Tether(), seabed=torch.tensor([20.0], dtype=DOUBLE))
    state, commands = scattered(vehicle, 2)
    state = state._replace(position=torch.tensor([[0.0, 0, 3], [0, 0, 19.9]], dtype=DOUBLE))  # one on the ground
    moving = [each.clone().requires_grad_() for each in state[:5]]
    asked = (commands * 0.5 + 0.033).requires_grad_()

    def two_steps(*inputs: Tensor) -> tuple[Tensor, ...]:
        now = State(*inputs[:5], *state[5:])
        for _ in range(2):
            now = step(vehicle, now, inputs[5], water)
        return (*now[:5], now.energy)

    assert torch.autograd.gradcheck(two_steps, (*moving, asked), eps=1e-7, atol=2e-4, rtol=1e-3)


@torch.inference_mode()
def test_a_free_vehicle_ends_up_moving_with_the_water() -> None:
    vehicle = neutral()
    current = torch.tensor([[0.3], [-0.2], [0.1]], dtype=DOUBLE)
    water = WaterForces(current, surface=False)
    state = rest(vehicle, 1, 50.0)
    # Turned all the while, so that the current turns in the body's axes.
    commands = torch.tensor([[0.15, -0.15, -0.15, 0.15, 0, 0, 0, 0]], dtype=DOUBLE)
    for _ in range(3000):
        state = step(vehicle, state, commands, water)
    assert float(state.rates[0, 2]) > 0.3
    drift = (rotation(state.attitude.T)[..., 0] @ state.velocity[0]).tolist()
    assert drift == pytest.approx([0.3, -0.2, 0.1], abs=5e-3)
    assert float(state.attitude.norm()) == pytest.approx(1.0, abs=1e-12)


@torch.inference_mode()
def test_gusts_have_their_size_and_a_seed_repeats_them() -> None:
    vehicle = model()
    water = still(vehicle)._replace(gust=0.2, gust_s=1.0)
    ends = []
    for _ in range(2):
        random = torch.Generator().manual_seed(3)
        state = rest(vehicle, 4000, 10.0)
        for _ in range(150):
            noise = torch.randn(4000, 3, generator=random)
            state = step(vehicle, state, torch.zeros(4000, 8), water, noise=noise)
        ends.append(state)
    assert torch.equal(ends[0].position, ends[1].position)
    assert float(ends[0].gust[:, :2].std()) == pytest.approx(0.2 * math.sqrt(1 - math.exp(-6)), rel=0.03)
    assert float(ends[0].gust[:, 2].abs().max()) == 0.0
    assert float(ends[0].velocity[:, 0].std()) > 0.02


@torch.inference_mode()
def test_it_floats_at_the_surface_and_its_thrusters_have_nothing_to_push_there() -> None:
    vehicle = model("heavy", DOUBLE)
    state, water = rest(vehicle, 1, 0.5), still(vehicle)
    for _ in range(1500):
        state = step(vehicle, state, torch.zeros(1, 8, dtype=DOUBLE), water)
    # Afloat when wet / height + 1/2 = W / B, over a height of 0.254 m.
    assert float(state.position[0, 2]) == pytest.approx(0.254 * (132.57 / 134.88 - 0.5), abs=1e-3)
    high = state._replace(position=state.position - torch.tensor([0, 0, 0.5], dtype=DOUBLE))
    assert float(step(vehicle, high, torch.ones(1, 8, dtype=DOUBLE), water).thrust.abs().max()) == 0.0


@torch.inference_mode()
def test_the_seabed_holds_it_up_and_slows_it() -> None:
    vehicle = model("heavy", DOUBLE)
    water = still(vehicle)._replace(seabed=torch.tensor([5.0], dtype=DOUBLE))
    state = rest(vehicle, 1, 4.0)
    down = torch.tensor([[0.0, 0, 0, 0, 0.6, 0.6, 0.6, 0.6]], dtype=DOUBLE)
    for _ in range(750):
        state = step(vehicle, state, down, water)
    sunk = float(state.position[0, 2]) + 0.127 - 5.0
    net = float(state.thrust.sum()) + 132.57 - 134.88
    assert sunk == pytest.approx(net / 10_000.0, rel=1e-3)
    assert float(state.velocity.abs().max()) < 1e-6


@torch.inference_mode()
def test_the_tether_drags_by_hand() -> None:
    # Held still at 10 m in 0.5 m/s: moments about the hinge give ½ · ½ ρ Cn d L U² at the end.
    from sim.vehicle import _pull

    current = torch.tensor([[0.5], [0.0], [0.0]], dtype=DOUBLE)
    still_standing = _pull(Tether(), torch.tensor([10.0]), torch.zeros(3, 1, dtype=DOUBLE), current, 1025.0)
    assert float(still_standing[0]) == pytest.approx(0.5 * 0.5 * 1025 * 1.2 * 0.0075 * 10 * 0.25, rel=1e-6)
    # Towed at 1 m/s through still water: ∫ ½ ρ Cn d (s/L)³ ds = ⅛ ρ Cn d L.
    towed = _pull(Tether(), torch.tensor([10.0]), torch.tensor([[1.0], [0], [0]], dtype=DOUBLE), 0 * current, 1025.0)
    assert float(towed[0]) == pytest.approx(-1025 * 1.2 * 0.0075 * 10 / 8, rel=1e-6)


@torch.inference_mode()
def test_thrust_is_that_of_the_measured_curve() -> None:
    table = tables(CURVE, DOUBLE, "cpu")
    commands = torch.linspace(-1.1, 1.1, 441, dtype=DOUBLE)
    for volts in (8.0, 10.0, 11.1, 14.0, 15.7, 16.0, 20.0, 25.0):
        force, current = thrust(table, commands[None, :].T.expand(-1, 1), torch.tensor([volts], dtype=DOUBLE))
        inside = commands.clamp(-1, 1).numpy()
        assert np.abs(force[:, 0].numpy() - CURVE.force(inside, volts)).max() < 1e-9
        assert np.abs(current[:, 0].numpy() - CURVE.current(inside, volts)).max() < 1e-9


@torch.inference_mode()
def test_thrust_lags_and_the_dead_band_is_dead() -> None:
    vehicle = model("heavy", DOUBLE)
    state, water = rest(vehicle, 1, 10.0), still(vehicle)
    full = step(vehicle, state, torch.tensor([[1.0] * 4 + [0.05] * 4], dtype=DOUBLE), water, 0.01)
    wanted = CURVE.force(1.0, float(full.volts))
    assert float(full.thrust[0, 0]) == pytest.approx(wanted * (1 - math.exp(-0.01 / 0.029)), rel=5e-3)
    # (the voltage sags by 4 V here, and one Newton step leaves hundredths of one)
    assert float(full.thrust[0, 4]) == 0.0


@torch.inference_mode()
def test_the_battery_sags_drains_and_counts_joules() -> None:
    vehicle = model("heavy", DOUBLE)
    state, water = rest(vehicle, 1, 10.0), still(vehicle)
    assert float(state.volts) == pytest.approx(16.8, abs=1e-6)
    hard = torch.full((1, 8), 0.8, dtype=DOUBLE)
    first = step(vehicle, state, hard, water).volts
    assert float(first) == pytest.approx(float(step(vehicle, state, hard, water, DT / 4).volts), abs=0.01)
    for _ in range(500):
        state = step(vehicle, state, hard, water)
    amperes = 8 * CURVE.current(0.8, float(state.volts)) + HOTEL_W / float(state.volts)
    assert float(state.current) == pytest.approx(amperes, rel=1e-3)
    assert 16.8 - float(state.volts) == pytest.approx(RESISTANCE * amperes, abs=0.05)
    assert float(state.energy) == pytest.approx(10.0 * float(state.volts) * amperes, rel=0.02)
    empty = state._replace(charge=torch.full((1,), CAPACITY_C, dtype=DOUBLE), current=torch.zeros(1, dtype=DOUBLE))
    assert float(empty.volts) == pytest.approx(4 * 3.2, abs=1e-6)


@pytest.mark.parametrize("name", ["heavy", "wu", "standard"])
def test_positive_outputs_push_as_ardusub_says(name: str) -> None:
    """The sign of each motor's wrench is that of its factors; surge, sway, heave, roll, pitch, yaw."""
    hull = parameters.load(name)
    factors = mixer(hull.frame)  # (motors, 6)
    effect = model(hull, DOUBLE).effect.numpy().T
    used = factors != 0
    used[:, 3:5] &= (np.abs(factors[:, 2]) > 0)[:, None]  # roll and pitch by the vertical ones
    assert np.array_equal(np.sign(effect[used]), np.sign(factors[used]))


def test_vehicles_that_cannot_be_are_refused(tmp_path) -> None:
    text = (parameters.FOLDER / "heavy.toml").read_text()
    path = tmp_path / "odd.toml"
    for old, new, complaint in (
        ("mass = 13.5 ", "mass = -1.0", "above 0"),
        ("141.0", "-141.0", "must not be negative"),
        ('"vectored_6dof"', '"vectored"', "for each motor"),
        ("thrust_scale = 1.0", "thrust_scale = 0.0", "above 0"),
        ("height_m", "hight_m", "hight_m|height_m"),
        ("13.7, ", "", "linear_damping"),
    ):
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(parameters.ParameterError, match=complaint):
            parameters.load(path)
    with pytest.raises(parameters.ParameterError, match="heavy, standard, wu"):
        parameters.load("submarine")
