"""Simulated instruments with noise, bias, rate and delay; batched, and reproducible from a seed.

Call `sense` once per control interval. A slow sensor samples every few intervals, and its reading arrives some
intervals later; until then the previous reading holds, with its age. Figures come from data sheets where there are any.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rov.messages import VehicleState
from sim.vehicle import DT, State, WaterForces, rotation

GRAVITY = 9.80665
BANDWIDTH_HZ = 0.5 / DT
"""White noise given as a density is integrated up to half the rate of the control interval."""


class Suite(NamedTuple):
    """The figures of the instruments. Biases are standard deviations over vehicles, constant over a run."""

    gyro_noise: float = math.radians(0.004) * math.sqrt(BANDWIDTH_HZ)
    """rad/s: ICM-20602, 4 mdps/√Hz."""
    gyro_bias: float = 0.002
    """rad/s: after the calibration at rest. A judgement; Centrale Nantes' Gazebo model has 0.005."""
    accel_noise: float = 100e-6 * GRAVITY * math.sqrt(BANDWIDTH_HZ)
    """m/s²: ICM-20602, 100 µg/√Hz."""
    accel_bias: float = 0.0075
    """m/s²: Centrale Nantes' Gazebo model."""
    tilt_bias: float = math.radians(0.5)
    """Of roll and pitch as an autopilot estimates them. A judgement."""
    angle_noise: float = math.radians(0.1)
    """Of roll, pitch and heading as estimated. A judgement."""
    hard_iron: float = math.radians(3.0)
    """Amplitude of the compass' error, one period per turn: 2 to 5° in the field. A judgement."""
    depth_noise: float = 0.002
    depth_grain: float = 0.002
    """m: MS5837-30BA, 0.2 mbar; its finest resolution is about its noise."""
    depth_every: int = 2
    """Intervals: two conversions of 20 ms at OSR 8192, 24 a second."""
    depth_late: int = 2
    dvl: bool = False
    dvl_scale: float = 0.01
    """Water Linked A50, standard model: 1 % of the velocity."""
    dvl_noise: float = 0.01
    """m/s. A judgement; HoloOcean has 0.026."""
    dvl_every: int = 5
    """Intervals: 10 Hz, its range mode 1; it is 4 to 26 Hz by altitude."""
    dvl_late: int = 2
    """A judgement."""
    dvl_range: tuple[float, float] = (0.05, 50.0)
    """m of altitude."""
    altimeter: bool = False
    altimeter_noise: float = 0.01
    """m. A judgement; Ping resolves 1 mm."""
    altimeter_every: int = 5
    altimeter_late: int = 1
    altimeter_range: tuple[float, float] = (0.3, 30.0)
    """m: Ping's first manual; the near end is a judgement."""


class Readings(NamedTuple):
    """The readings that have arrived."""

    attitude: Tensor
    """(N, 3) roll, pitch, yaw as an autopilot estimates them, rad; yaw is the compass heading."""
    rates: Tensor
    """(N, 3) gyroscopes, rad/s."""
    force: Tensor
    """(N, 3) accelerometers: acceleration less gravity, mean over the interval, m/s²."""
    depth: Tensor
    """(N,) m."""
    depth_age: float
    """Since it was sampled, s."""
    velocity: Tensor | None
    """(N, 3) over ground, body axes, m/s; NaN where the DVL sees no bottom. None without a DVL."""
    velocity_age: float
    altitude: Tensor | None
    """(N,) above the seabed along the body's down axis, m; NaN out of range. None without an altimeter."""
    altitude_age: float
    volts: Tensor
    """(N,) of the battery."""
    leak: Tensor
    """(N,) bool."""


class Slow(NamedTuple):
    """A slow sensor: the reading that has arrived, and the sample on its way."""

    value: Tensor
    pending: Tensor
    sampled: int
    """Tick of `value`'s sample."""
    waiting: int
    """Tick of `pending`'s sample; −1: none is on its way."""


class Memory(NamedTuple):
    """State of the instruments between intervals."""

    tick: int
    gyro_bias: Tensor
    accel_bias: Tensor
    tilt_bias: Tensor
    """(N, 2)."""
    iron: Tensor
    """(N, 2) hard iron ahead and to starboard, relative to the horizontal field."""
    scale: Tensor
    """(N, 1) scale error of the DVL."""
    velocity: Tensor
    """(N, 3) over ground in world axes, one interval ago."""
    depth: Slow
    dvl: Slow | None
    altimeter: Slow | None


def switch_on(suite: Suite, state: State, water: WaterForces, random: torch.Generator) -> Memory:
    """Draw the biases of the vehicles' instruments, and take the first sample of each."""
    n = len(state.position)

    def normal(columns: int, scale: float) -> Tensor:
        return scale * torch.randn(n, columns, generator=random, dtype=state.position.dtype, device=random.device)

    scale = normal(1, suite.dvl_scale)
    dvl = Slow(velocity := _dvl(suite, state, water, scale, None), velocity, 0, -1) if suite.dvl else None
    altimeter = Slow(high := _altitude(suite, state, water, None), high, 0, -1) if suite.altimeter else None
    depth = _depth(suite, state, None)
    return Memory(
        0,
        normal(3, suite.gyro_bias),
        normal(3, suite.accel_bias),
        normal(2, suite.tilt_bias),
        normal(2, suite.hard_iron / math.sqrt(2)),
        scale,
        _over_ground(state),
        Slow(depth, depth, 0, -1),
        dvl,
        altimeter,
    )


def sense(
    suite: Suite, state: State, water: WaterForces, memory: Memory, random: torch.Generator, leak: Tensor | None = None
) -> tuple[Readings, Memory]:
    """The readings at the end of an interval of DT that led to `state`. `leak` (N,) bool: water inside."""
    n = len(state.position)
    noise = torch.randn(n, 14, generator=random, dtype=state.position.dtype, device=random.device)
    tick = memory.tick + 1
    over_ground = _over_ground(state)
    turn = rotation(state.attitude.T)
    felt = (over_ground - memory.velocity) / DT
    felt = (turn * (felt.T - _down(felt) * GRAVITY)[:, None]).sum(0).T

    angles = euler(state.attitude)
    heading = angles[:, 2]
    iron = memory.iron[:, 1] * heading.cos() - memory.iron[:, 0] * heading.sin()
    error = torch.cat([memory.tilt_bias, iron[:, None]], dim=1) + suite.angle_noise * noise[:, 0:3]
    depth = _next(memory.depth, tick, suite.depth_every, suite.depth_late, lambda: _depth(suite, state, noise[:, 9]))
    dvl, altimeter = memory.dvl, memory.altimeter
    if dvl is not None:
        dvl = _next(
            dvl,
            tick,
            suite.dvl_every,
            suite.dvl_late,
            lambda: _dvl(suite, state, water, memory.scale, noise[:, 10:13]),
        )
    if altimeter is not None:
        altimeter = _next(
            altimeter,
            tick,
            suite.altimeter_every,
            suite.altimeter_late,
            lambda: _altitude(suite, state, water, noise[:, 13]),
        )
    readings = Readings(
        attitude=torch.remainder(angles + error + math.pi, 2 * math.pi) - math.pi,
        rates=state.rates + memory.gyro_bias + suite.gyro_noise * noise[:, 3:6],
        force=felt + memory.accel_bias + suite.accel_noise * noise[:, 6:9],
        depth=depth.value,
        depth_age=(tick - depth.sampled) * DT,
        velocity=None if dvl is None else dvl.value,
        velocity_age=0.0 if dvl is None else (tick - dvl.sampled) * DT,
        altitude=None if altimeter is None else altimeter.value,
        altitude_age=0.0 if altimeter is None else (tick - altimeter.sampled) * DT,
        volts=state.volts,
        leak=torch.zeros(n, dtype=torch.bool, device=heading.device) if leak is None else leak,
    )
    return readings, memory._replace(tick=tick, velocity=over_ground, depth=depth, dvl=dvl, altimeter=altimeter)


def vehicle_state(readings: Readings, row: int, t: int, *, armed: bool) -> VehicleState:
    """The readings of the vehicle `row` as the daemon's message at `t` ns."""
    roll, pitch, yaw = readings.attitude[row].tolist()
    p, q, r = readings.rates[row].tolist()
    velocity = [math.nan] * 3 if readings.velocity is None else readings.velocity[row].tolist()
    seen = all(map(math.isfinite, velocity))
    return VehicleState(
        t=t,
        armed=armed,
        attitude_t=t,
        roll=roll,
        pitch=pitch,
        yaw=yaw,
        rates=(p, q, r),
        depth_t=t - round(readings.depth_age * 1e9),
        depth=float(readings.depth[row]),
        velocity_t=t - round(readings.velocity_age * 1e9) if seen else None,
        velocity=(velocity[0], velocity[1], velocity[2]) if seen else (0.0, 0.0, 0.0),
        battery_v=float(readings.volts[row]),
        leak=bool(readings.leak[row]),
    )


def euler(attitude: Tensor) -> Tensor:
    """Quaternions (N, 4) -> roll, pitch, yaw (N, 3) in rad, yaw first, then pitch, then roll."""
    w, x, y, z = attitude.unbind(1)
    roll = torch.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = torch.asin((2 * (w * y - z * x)).clamp(-1.0, 1.0))
    yaw = torch.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return torch.stack([roll, pitch, yaw], dim=1)


def quaternion(angles: Tensor) -> Tensor:
    """Roll, pitch, yaw (N, 3) in rad -> quaternions w x y z (N, 4)."""
    (cr, cp, cy), (sr, sp, sy) = ((angles / 2).cos().unbind(1), (angles / 2).sin().unbind(1))
    return torch.stack(
        [
            cr * cp * cy + sr * sp * sy,
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
        ],
        dim=1,
    )


def _next(slow: Slow, tick: int, every: int, late: int, sample: Callable[[], Tensor]) -> Slow:
    """The sensor at `tick`: it samples every `every` ticks, and a sample arrives `late` ticks later. `late` is at most
    `every`, so that at most one sample is pending."""
    if slow.waiting >= 0 and tick - slow.waiting >= late:
        slow = slow._replace(value=slow.pending, sampled=slow.waiting, waiting=-1)
    if tick % every == 0:
        slow = slow._replace(pending=sample(), waiting=tick)
        if late == 0:
            slow = slow._replace(value=slow.pending, sampled=tick, waiting=-1)
    return slow


def _over_ground(state: State) -> Tensor:
    """(N, 3) velocity in world axes."""
    return (rotation(state.attitude.T) * state.velocity.T[None]).sum(1).T


def _down(like: Tensor) -> Tensor:
    """(3, 1) unit vector down in world axes."""
    return torch.tensor([[0.0], [0.0], [1.0]], dtype=like.dtype, device=like.device)


def _depth(suite: Suite, state: State, noise: Tensor | None) -> Tensor:
    depth = state.position[:, 2]
    depth = depth if noise is None else depth + suite.depth_noise * noise
    return (depth / suite.depth_grain).round() * suite.depth_grain


def _above_ground(state: State, water: WaterForces) -> Tensor:
    """(N,) range to the seabed along the body's down axis, m; NaN where that axis does not meet it."""
    if water.seabed is None:
        return torch.full_like(state.position[:, 2], math.nan)
    slant = rotation(state.attitude.T)[2, 2]
    height = (water.seabed - state.position[:, 2]) / slant
    return torch.where(slant > 0.1, height, math.nan)


def _dvl(suite: Suite, state: State, water: WaterForces, scale: Tensor, noise: Tensor | None) -> Tensor:
    velocity = state.velocity * (1 + scale)
    velocity = velocity if noise is None else velocity + suite.dvl_noise * noise
    low, high = suite.dvl_range
    altitude = _above_ground(state, water)[:, None]
    return torch.where((altitude > low) & (altitude < high), velocity, math.nan)


def _altitude(suite: Suite, state: State, water: WaterForces, noise: Tensor | None) -> Tensor:
    altitude = _above_ground(state, water)
    low, high = suite.altimeter_range
    seen = (altitude > low) & (altitude < high)
    altitude = altitude if noise is None else altitude + suite.altimeter_noise * noise
    return torch.where(seen, altitude, math.nan)
