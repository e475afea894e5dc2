"""The two inner loops that a policy meets, batched: sticks and readings in, thruster commands out.

`step_rov_loops` is the path of `rov.motion.pilot` in mode hold: controllers, `allocate`, the curve's inverse, gain and
slew; without arming, staleness and the guard's tilt limit. `step_ardusub_loops` approximates ArduSub's ALT_HOLD. Both
are pure; sticks are (N, 4) surge, sway, heave, yaw in −1..1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rov.config.schema import Config
from rov.motion.allocation import allocate, groups, mixer
from rov.motion.controllers import DEAD_BAND, LoopMemory, LoopState, differentiate, initial_memory, step_loops, wrapped
from rov.motion.thrusters import Curve
from sim.sensors import GRAVITY, Readings, quaternion
from sim.vehicle import DT, rotation

FRACTIONS = 801
"""Points of the inverse curve over −1..1; in between the error is less than one point (4 µs) of the tables."""
VOLTS_STEP = 0.1


class Inverse(NamedTuple):
    """A curve's inverse as a table: commands for fractions of its reference thrust, by voltage."""

    commands: Tensor
    """(V, FRACTIONS)."""
    lowest: float
    """Voltage of the first row, V."""


def inverse(curve: Curve, gain: float, dtype: torch.dtype, device: torch.device | str) -> Inverse:
    """Table `Curve.command` for commands within ±`gain`."""
    low, high = float(curve.voltages[0]), float(curve.voltages[-1])
    rows = [low + VOLTS_STEP * i for i in range(round((high - low) / VOLTS_STEP) + 1)]
    fractions = torch.linspace(-1.0, 1.0, FRACTIONS, dtype=torch.float64).numpy()
    table = torch.stack([torch.tensor(curve.command(fractions, volts, gain)) for volts in rows])
    return Inverse(table.to(device, dtype), low)


def command(table: Inverse, fraction: Tensor, volts: Tensor) -> Tensor:
    """Fractions (N, motors) −1..1 at volts (N,) -> commands (N, motors); as `Curve.command`, batched."""
    row = ((volts - table.lowest) / VOLTS_STEP).round().long().clamp(0, len(table.commands) - 1)
    place = (fraction.clamp(-1.0, 1.0) + 1.0) * ((FRACTIONS - 1) / 2)
    column = place.detach().long().clamp(max=FRACTIONS - 2)
    flat = table.commands.reshape(-1)
    index = column + (row * FRACTIONS)[:, None]
    low = flat[index]
    return low + (place - column) * (flat[index + 1] - low)


class Depth(NamedTuple):
    """The depth and its rate, from a sensor slower than the loop."""

    depth: Tensor
    rate: Tensor
    """(N,) m/s."""
    sampled: float
    """When the depth was sampled, s."""


def follow_depth(known: Depth, readings: Readings, now: float) -> Depth:
    """The depth and its rate after `readings` at `now` s; unchanged unless the reading is new."""
    sampled = now - readings.depth_age
    if sampled - known.sampled < DT / 2:
        return known
    rate = differentiate(known.rate, known.depth, readings.depth, sampled - known.sampled)
    return Depth(readings.depth, rate, sampled)


# ---- rov -------------------------------------------------------------------------------------------------------


class RovLoops(NamedTuple):
    """The pilot's settings."""

    config: Config
    inverse: Inverse


class RovLoopsMemory(NamedTuple):
    """The pilot's state between ticks."""

    now: float
    depth: Depth
    held: LoopMemory
    commands: Tensor
    """(N, motors) of the last tick."""


def start_rov_loops(pilot: RovLoops, readings: Readings) -> RovLoopsMemory:
    """Hold the present depth and attitude, from neutral commands."""
    zero = torch.zeros_like(readings.depth)
    state = LoopState(readings.attitude, readings.rates, readings.depth, zero)
    motors = mixer(pilot.config.vehicle.frame).shape[0]
    commands = zero.new_zeros(len(zero), motors)
    return RovLoopsMemory(0.0, Depth(readings.depth, zero, -readings.depth_age), initial_memory(state), commands)


def step_rov_loops(
    pilot: RovLoops, sticks: Tensor, readings: Readings, memory: RovLoopsMemory
) -> tuple[Tensor, RovLoopsMemory]:
    """One tick of DT: commands (N, motors) −1..1."""
    config, now = pilot.config, memory.now + DT
    depth = follow_depth(memory.depth, readings, now)
    state = LoopState(readings.attitude, readings.rates, depth.depth, depth.rate)
    on = torch.ones(len(sticks), 3, dtype=torch.bool, device=sticks.device)
    wrench, held = step_loops(sticks, state, memory.held, on, config.control, DT, config.vehicle.max_depth)
    wanted = command(pilot.inverse, allocate(wrench, config.vehicle.frame), readings.volts)
    change = config.guard.slew * DT
    limit = config.guard.gain
    commands = torch.clamp(wanted.clamp(-limit, limit), memory.commands - change, memory.commands + change)
    return commands, RovLoopsMemory(now, depth, held, commands)


# ---- ArduSub ---------------------------------------------------------------------------------------------------


class ArdusubLoops(NamedTuple):
    """ALT_HOLD of ArduSub at its defaults, at 50 Hz instead of its 400: no jerk and acceleration limits, no EKF
    (the depth rate is differentiated, the acceleration is the accelerometers'), no thrust linearisation.

    Attitude gains: AC_AttitudeControl_Sub.h. Depth gains: AC_PosControl.cpp, for ArduSub."""

    frame: str = "vectored_6dof"
    gain: float = 0.5
    """JS_GAIN_DEFAULT: a full stick commands half of the range."""
    angle_p: float = 6.0
    rate_p: tuple[float, float, float] = (0.135, 0.135, 0.180)
    rate_i: tuple[float, float, float] = (0.090, 0.090, 0.018)
    rate_d: tuple[float, float, float] = (0.0036, 0.0036, 0.0)
    rate_imax: tuple[float, float, float] = (0.444, 0.444, 0.222)
    yaw_rate: float = math.radians(45.0 * 3.375)
    """At a full RC stick, rad/s: 45° times ACRO_YAW_P (ArduSub's config.h; Attitude.cpp)."""
    climb: float = 5.0
    """At a full RC stick, m/s: PILOT_SPEED_UP, config.h; the leash limits it to what the vehicle can do."""
    leash: float = 0.5
    """The target leads the depth by no more than this, m. A judgement."""
    depth_p: float = 3.0
    """Climb rate per m: PSC_POSZ_P."""
    climb_p: float = 8.0
    """Acceleration per m/s: PSC_VELZ_P."""
    accel_p: float = 0.5 * 0.1 * 2
    """Throttle −1..1 per m/s²: PSC_ACCZ_P 0.5 per 1000 cm/s², and 0..1 is −1..1."""
    accel_i: float = 0.1 * 0.1 * 2
    """PSC_ACCZ_I 0.1."""
    dead_band: float = DEAD_BAND
    """Smaller sticks hold depth and heading. It is our pilot's: the link passes the firmware's (`past_dead_bands`)."""


class ArdusubLoopsMemory(NamedTuple):
    """The autopilot's state between ticks."""

    now: float
    depth: Depth
    target: Tensor
    """(N,) depth setpoint, m."""
    heading: Tensor
    """(N,) heading setpoint, rad."""
    throttle: Tensor
    """(N,) integrator of the vertical acceleration, positive down."""
    trim: Tensor
    """(N, 3) integrators of the rate loops."""
    error: Tensor
    """(N, 3) last errors of the rate loops."""


def start_ardusub_loops(readings: Readings) -> ArdusubLoopsMemory:
    zero, three = torch.zeros_like(readings.depth), torch.zeros_like(readings.rates)
    known = Depth(readings.depth, zero, -readings.depth_age)
    return ArdusubLoopsMemory(0.0, known, readings.depth, readings.attitude[:, 2], zero, three, three)


def step_ardusub_loops(
    autopilot: ArdusubLoops,
    sticks: Tensor,
    readings: Readings,
    memory: ArdusubLoopsMemory,
    vertical: Tensor | None = None,
) -> tuple[Tensor, ArdusubLoopsMemory]:
    """One tick of DT: commands (N, motors) −1..1. Sticks pass through MANUAL_CONTROL and its gain, as a pilot's do.
    `vertical` (N,), −1..1, positive down: an effort instead of the depth loop's, as in STABILIZE."""
    now = memory.now + DT
    surge, sway, heave, yaw = (autopilot.gain * sticks.clamp(-1.0, 1.0)).unbind(1)
    turn = rotation(quaternion(readings.attitude).T)

    depth = follow_depth(memory.depth, readings, now)
    moved = heave.abs() > autopilot.dead_band * autopilot.gain
    climb = torch.where(moved, autopilot.climb * heave, 0.0)
    target = memory.target + climb * DT
    target = torch.clamp(target, depth.depth - autopilot.leash, depth.depth + autopilot.leash)
    wanted = autopilot.climb_p * (autopilot.depth_p * (target - depth.depth) + climb - depth.rate)
    error = wanted - ((turn[2] * readings.force.T).sum(0) + GRAVITY)
    effort = autopilot.accel_p * error + memory.throttle
    growth = torch.where((effort.abs() < 1.0) | (effort * error < 0.0), autopilot.accel_i * error * DT, 0.0)
    effort = effort.clamp(-1.0, 1.0)
    if vertical is not None:  # the depth loop begins where the vehicle is when it is asked again
        target, effort, growth = depth.depth, vertical, torch.zeros_like(growth)

    turning = yaw.abs() > autopilot.dead_band * autopilot.gain
    heading = torch.where(turning, readings.attitude[:, 2], memory.heading)
    angles = torch.stack(
        [-readings.attitude[:, 0], -readings.attitude[:, 1], wrapped(heading - readings.attitude[:, 2])]
    )
    rates = autopilot.angle_p * angles.T
    rates = torch.cat([rates[:, :2], torch.where(turning, autopilot.yaw_rate * yaw, rates[:, 2])[:, None]], dim=1)
    off = rates - readings.rates
    p, i, d, most = (off.new_tensor(each) for each in autopilot[3:7])
    trim = torch.clamp(memory.trim + i * off * DT, -most, most)
    turned = (p * off + trim + d * (off - memory.error) / DT).clamp(-1.0, 1.0)

    wrench = torch.cat([torch.stack([surge, sway, effort], dim=1), turned], dim=1)
    commands = mixed(wrench, autopilot.frame)
    return commands, ArdusubLoopsMemory(now, depth, target, heading, memory.throttle + growth, trim, off)


def mixed(wrench: Tensor, frame: str) -> Tensor:
    """Wrench (N, 6) -> motors (N, n) as AP_Motors6DOF.cpp does it: on vectored_6dof the horizontal and the vertical
    motors are each scaled down as a group; on other frames each motor is clipped. Nothing gives roll and pitch
    priority."""
    matrix = wrench.new_tensor(mixer(frame).T)
    if frame != "vectored_6dof":
        return (wrench @ matrix).clamp(-1.0, 1.0)
    parts = [(wrench * wrench.new_tensor(axes)) @ matrix for axes in groups(frame)]
    return torch.stack([part / part.abs().amax(1, keepdim=True).clamp(min=1.0) for part in parts]).sum(0)
