"""Simulates N vehicles at once in torch: rigid body, water, thrusters and battery. Differentiable; `step` is pure.

World axes north, east, down; body axes forward, starboard, down; attitude is the quaternion w x y z from body to world.
The public tensors are (N, …); inside, components come first, (13, N), so that each is contiguous.

The equations are Kirchhoff's, in a frame that drifts with the water. There the velocity is ν = (v, ω) relative to
the water, the momentum (p, l) = M ν with M the rigid body and the added mass, and

    d(p)/dt = F − ω × p          d(l)/dt = T − ω × l − v × p

which is M ν̇ + C(ν) ν = τ of Fossen (2011, ch. 6, eq. 8.1) with C_RB and C_A in one: for a current that is uniform and
constant in the world, the rigid body may be written in relative velocity too (property 8.1), its d/dt (Rᵀ v_c) =
−ω × Rᵀ v_c included. Where it is not constant, see `WaterForces`. Velocities in `State` are over ground.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from rov.motion import thrusters
from rov.resources import find_resource
from sim.parameters import Body, Parameters, body, load
from sim.propulsion import CELLS, Tables, draw, tables, voltage

DT = 0.02
"""The control interval in s, over which commands are held. One Runge–Kutta step each is accurate to 0.2 mm in 20 s."""
PROPELLER_M = 0.038
"""Radius of a T200's propeller: thrust fades while this much of it comes out of the water."""
GROUND_N_M, GROUND_NS_M, FRICTION = 10_000.0, 300.0, 0.5
"""Stiffness, damping and friction of the seabed: full thrust sinks in by about 1 cm, and DT is stable. A judgement."""
CREEP_M_S = 0.05
"""Below this speed friction fades."""


class State(NamedTuple):
    """The complete state of N vehicles."""

    position: Tensor
    """(N, 3) north, east, down in m."""
    attitude: Tensor
    """(N, 4) w x y z, body to world, of length 1."""
    velocity: Tensor
    """(N, 3) u v w in body axes, over ground, m/s."""
    rates: Tensor
    """(N, 3) p q r in rad/s."""
    thrust: Tensor
    """(N, motors) in N; lags the commands."""
    current: Tensor
    """(N,) from the battery, A."""
    charge: Tensor
    """(N,) drawn from the battery, C."""
    energy: Tensor
    """(N,) energy taken from the battery, J, hotel load included."""
    gust: Tensor
    """(N, 3) added to the current now: north, east, down, m/s."""

    @property
    def volts(self) -> Tensor:
        """(N,) of the battery."""
        return voltage(self.charge, self.current)


class Tether(NamedTuple):
    """A straight tether from a boat at rest to the vehicle, as long as the vehicle is deep; its drag only."""

    diameter: float = 0.0075
    """m (von Benzon)."""
    across: float = 1.2
    """Drag coefficient of a cylinder across the flow (von Benzon's Cn)."""


class WaterForces(NamedTuple):
    """The water around the vehicles. Tensors may be shared or one per vehicle.

    A gust is an Ornstein–Uhlenbeck process, held during a step. It acts as drag on the vehicle, whose velocity over
    ground is continuous; the force of accelerating water (Froude–Krylov) is left out."""

    current: Tensor
    """(3, 1) or (3, N) north, east, down, m/s."""
    gust: float = 0.0
    """Standard deviation per axis, m/s; gusts are horizontal."""
    gust_s: float = 10.0
    """Time constant of the gusts, s."""
    density: float = 1025.0
    """kg/m³, for the tether only: the hull's parameters include their own water."""
    surface: bool = True
    """Whether there is a surface, at depth 0."""
    seabed: Tensor | None = None
    """(1,) or (N,) its depth in m."""
    tether: Tether | None = None


class Model(NamedTuple):
    """A vehicle's tensors. Those of `body` and the last two may have one more last dimension, N."""

    body: Body
    effect: Tensor
    """(6, motors) wrench per N of each motor."""
    places: Tensor
    """(motors, 3) m."""
    curve: Tables
    height: float
    """m."""
    scale: Tensor
    """(1,) of the curve's thrust."""
    delay: Tensor
    """(1,) time constant of the thrust, s."""


def model(
    parameters: Parameters | str = "heavy", dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Model:
    """A vehicle, by its name or its numbers, with the thruster curve of `calibration/`."""
    parameters = load(parameters) if isinstance(parameters, str) else parameters
    places = torch.tensor([each.position for each in parameters.thruster], dtype=torch.float64)
    forces = torch.tensor([each.direction for each in parameters.thruster], dtype=torch.float64)
    forces = forces / forces.norm(dim=1, keepdim=True)
    effect = torch.cat([forces, torch.linalg.cross(places, forces)], dim=1).T
    return Model(
        body(parameters, dtype, device),
        effect.to(device, dtype),
        places.to(device, dtype),
        tables(thrusters.load(find_resource("calibration/t200.toml"), CELLS), dtype, device),
        parameters.height_m,
        torch.tensor([parameters.thrust_scale], dtype=dtype, device=device),
        torch.tensor([parameters.thrust_delay_s], dtype=dtype, device=device),
    )


def still(model: Model, **options: float | bool) -> WaterForces:
    """Water at rest, without a seabed."""
    zero = torch.zeros(3, 1, dtype=model.effect.dtype, device=model.effect.device)
    return WaterForces(zero, **options)  # type: ignore[arg-type]


def rest(model: Model, n: int, depth: float = 1.0) -> State:
    """N vehicles at rest, upright, heading north, with a full battery."""
    zeros = torch.zeros(n, 3, dtype=model.effect.dtype, device=model.effect.device)
    position = torch.cat([zeros[:, :2], zeros[:, :1] + depth], dim=1)
    attitude = torch.cat([zeros[:, :1] + 1.0, zeros], dim=1)
    alone = zeros[:, 0]
    return State(
        position, attitude, zeros, zeros, zeros.new_zeros(n, model.effect.shape[1]), alone, alone, alone, zeros
    )


def step(
    model: Model, state: State, commands: Tensor, water: WaterForces, dt: float = DT, noise: Tensor | None = None
) -> State:
    """Move on by `dt` s with commands (N, motors) −1..1 held. `noise` (N, 3), standard normal, drives the gusts.

    Use `dt` up to DT; split longer times into several steps."""
    gust = _gusts(state.gust, water, dt, noise)
    current = water.current + gust.T if water.gust else water.current
    wanted, amperes, volts = draw(model.curve, commands.T, state.charge, state.volts)
    turn = rotation(state.attitude.T)
    before, wanted = state.thrust.T, wanted * model.scale
    if water.surface:  # a thruster out of the water gives no thrust
        depths = state.position[:, 2] + model.places @ turn[2]
        wanted = wanted * (depths / (2 * PROPELLER_M) + 0.5).clamp(0.0, 1.0)
    half = torch.exp(-0.5 * dt / model.delay)
    middle = wanted + half * (before - wanted)
    after = wanted + half * (middle - wanted)
    wrenches = [model.effect @ each for each in (before, middle, after)]

    drift = (turn * current[:, None]).sum(0)
    packed = torch.cat([state.position.T, state.velocity.T - drift, state.rates.T, state.attitude.T])
    packed = advance(packed, wrenches, model, water, current, dt)
    drift = (rotation(packed[9:13]) * current[:, None]).sum(0)
    return State(
        packed[0:3].T,
        packed[9:13].T,
        (packed[3:6] + drift).T,
        packed[6:9].T,
        after.T,
        amperes,
        state.charge + amperes * dt,
        state.energy + volts * amperes * dt,
        gust,
    )


def advance(
    packed: Tensor, wrenches: list[Tensor], model: Model, water: WaterForces, current: Tensor, dt: float
) -> Tensor:
    """One Runge–Kutta step (RK4) of `packed` (13, N): position, velocity relative to the water, rates, quaternion.
    `wrenches` (6, N) are the thrusters' at its beginning, middle and end."""
    first, middle, last = wrenches
    a = slope(packed, first, model, water, current)
    b = slope(packed + (dt / 2) * a, middle, model, water, current)
    c = slope(packed + (dt / 2) * b, middle, model, water, current)
    d = slope(packed + dt * c, last, model, water, current)
    moved = packed + (dt / 6) * (a + 2 * (b + c) + d)
    length = moved[9:13].square().sum(0, keepdim=True).rsqrt()
    return torch.cat([moved[:9], moved[9:13] * length])


def slope(packed: Tensor, wrench: Tensor, model: Model, water: WaterForces, current: Tensor) -> Tensor:
    """d(packed)/dt under a wrench (6, N) of the thrusters: see the top of this file."""
    body = model.body
    speed, rates = packed[3:9], packed[6:9]
    both = _turning(packed.dtype, packed.device)[0] @ (packed[9:13, None] * packed[None, 6:13]).reshape(28, -1)
    turn = both[:9].reshape(3, 3, -1)
    over_ground = (turn * packed[None, 3:6]).sum(1) + current

    if water.surface:
        wet = (packed[2:3] / model.height + 0.5).clamp(0.0, 1.0)
        force = wrench + times(body.weight, turn[2]) + wet * times(body.buoyancy, turn[2])
    else:
        force = wrench + times(body.weight + body.buoyancy, turn[2])
    force = force - (body.linear + body.quadratic * speed.abs()) * speed
    momentum = times(body.mass, speed).reshape(2, 3, -1)
    spun = torch.linalg.cross(rates[None].expand(2, 3, -1), momentum, dim=1)
    force = force - torch.cat([spun[0], spun[1] + torch.linalg.cross(packed[3:6], momentum[0], dim=0)])

    if water.seabed is not None or water.tether is not None:
        outside = torch.zeros_like(over_ground)
        if water.seabed is not None:
            outside = outside + _ground(packed[2] + model.height / 2 - water.seabed, over_ground)
        if water.tether is not None:
            outside = outside + _pull(water.tether, packed[2], over_ground, current, water.density)
        pushed = (turn * outside[:, None]).sum(0)
        force = torch.cat([force[:3] + pushed, force[3:]])
    return torch.cat([over_ground, times(body.inverse, force), both[9:]])


def rotation(attitude: Tensor) -> Tensor:
    """Quaternions (4, N) -> matrices (3, 3, N) from body to world."""
    products = (attitude[:, None] * attitude[None]).reshape(16, -1)
    return (_turning(attitude.dtype, attitude.device)[1] @ products).reshape(3, 3, -1)


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """(m, k) or (m, k, N) by (k, N) -> (m, N)."""
    return matrix @ vector if matrix.dim() == 2 else (matrix * vector).sum(1)


def _gusts(gust: Tensor, water: WaterForces, dt: float, noise: Tensor | None) -> Tensor:
    """The gust of the next step: decayed, and driven so that its standard deviation stays `water.gust`."""
    if not water.gust or noise is None:
        return gust
    keep = math.exp(-dt / water.gust_s)
    level = torch.tensor([1.0, 1.0, 0.0], dtype=gust.dtype, device=gust.device)
    return keep * gust + water.gust * math.sqrt(1 - keep * keep) * level * noise


def _ground(deep: Tensor, over_ground: Tensor) -> Tensor:
    """(3, N) force of the seabed in world axes on a frame whose bottom is `deep` (N,) m below it."""
    normal = (GROUND_N_M * deep + GROUND_NS_M * over_ground[2]).clamp(min=0.0) * (deep > 0)
    sideways = over_ground[:2]
    rub = FRICTION * normal / (sideways.square().sum(0) + CREEP_M_S**2).sqrt()
    return torch.cat([-rub * sideways, -normal[None]])


def _pull(tether: Tether, depth: Tensor, over_ground: Tensor, current: Tensor, density: float) -> Tensor:
    """(3, N) force of the tether on the vehicle in world axes.

    A straight rod hinged at the surface moves with s/L of the vehicle's horizontal velocity at the length s; the
    moments about the hinge give the force at its end, ∫ ½ ρ Cn d |u| u s/L ds. Two Gauss points make that exact while
    u keeps its sign. Drag along the tether (Ct 0.01) is left out."""
    whole = 0.5 * density * tether.across * tether.diameter * depth.clamp(min=0.0)
    force = torch.zeros_like(over_ground[:2])
    for share in (0.5 - math.sqrt(1 / 12), 0.5 + math.sqrt(1 / 12)):
        flow = current[:2] - share * over_ground[:2]
        force = force + 0.5 * share * whole * (flow.square().sum(0) + 1e-12).sqrt() * flow
    return torch.cat([force, torch.zeros_like(over_ground[2:])])


@cache
def _turning(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """(13, 28): rotation matrix (9) and q̇ (4) from the products of q w x y z with p q r w x y z, row by row; and
    (9, 16): the rotation matrix alone, from the products of the quaternion with itself."""
    w, x, y, z = range(4)
    table = torch.zeros(13, 4, 7, dtype=torch.float64)

    def put(row: int, *terms: tuple[float, int, int]) -> None:
        for sign, i, j in terms:
            table[row, i, j] += sign

    # Squares on the diagonal: correct up to the factor |q|² also between Runge–Kutta stages, where |q| is not 1.
    put(0, (1, w, w + 3), (1, x, x + 3), (-1, y, y + 3), (-1, z, z + 3))
    put(1, (2, x, y + 3), (-2, w, z + 3))
    put(2, (2, x, z + 3), (2, w, y + 3))
    put(3, (2, x, y + 3), (2, w, z + 3))
    put(4, (1, w, w + 3), (-1, x, x + 3), (1, y, y + 3), (-1, z, z + 3))
    put(5, (2, y, z + 3), (-2, w, x + 3))
    put(6, (2, x, z + 3), (-2, w, y + 3))
    put(7, (2, y, z + 3), (2, w, x + 3))
    put(8, (1, w, w + 3), (-1, x, x + 3), (-1, y, y + 3), (1, z, z + 3))
    # q̇ = ½ q ⊗ (0, ω), Fossen eq. 2.86.
    p, q, r = range(3)
    put(9, (-0.5, x, p), (-0.5, y, q), (-0.5, z, r))
    put(10, (0.5, w, p), (0.5, y, r), (-0.5, z, q))
    put(11, (0.5, w, q), (0.5, z, p), (-0.5, x, r))
    put(12, (0.5, w, r), (0.5, x, q), (-0.5, y, p))
    with torch.inference_mode(False):  # cached: the first caller may be in inference mode, the next may need gradients
        both = table.reshape(13, 28).to(device, dtype, copy=True)
        return both, table[:9, :, 3:].reshape(9, 16).to(device, dtype, copy=True)
