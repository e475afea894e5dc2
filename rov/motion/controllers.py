"""The inner control loops for depth, heading, roll and pitch: sticks and the vehicle's state in, a wrench out.

Written once in array-API style: numpy arrays of shape (…) in the pilot, torch tensors (N, …) in a batched world.
Pure: the memory of the loops goes in and comes out as `LoopMemory`. Axes, signs and units as in `rov.messages`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from array_api_compat import array_namespace

from rov.config.schema import ControlConfig
from rov.types import Array

DEAD_BAND = 0.05
"""A stick within this counts as released: the axis is held."""
TRIM_MAX = 0.5
"""Largest effort of an integrator. A BlueROV2's net buoyancy needs less than 0.1."""
LEAD_MAX_S = 5.0
"""A target is captured at most this many s ahead: no vehicle of this class coasts for longer."""
RATE_TAU = 0.2
"""Time constant of the depth rate's filter in s: a Bar30 resolves 2 mm, which unfiltered is 0.1 m/s at 50 Hz."""
DEPTH_RATE_MAX = 2.0
"""No vehicle of this class dives faster than this, m/s: a steeper step of the depth is an error of the sensor."""


class LoopState(NamedTuple):
    """The vehicle's state for the loops. Must be finite also where unknown: `loops` switches off what needs it."""

    attitude: Array
    """(…, 3) roll, pitch, yaw in rad."""
    rates: Array
    """(…, 3) body rates p, q, r in rad/s."""
    depth: Array
    """(…) m, down."""
    depth_rate: Array
    """(…) m/s, down; see `differentiate`."""


class LoopMemory(NamedTuple):
    """What the loops remember from step to step, each of shape (…)."""

    depth: Array
    """The depth to hold, m."""
    heading: Array
    """The heading to hold, rad."""
    depth_trim: Array
    """Integrator of the depth loop, as effort: the heave that balances the vehicle."""
    heading_trim: Array


def initial_memory(state: LoopState) -> LoopMemory:
    """The memory to start from: hold the present depth and heading, without trim."""
    xp = array_namespace(state.attitude)
    heading = state.attitude[..., 2]
    return LoopMemory(state.depth, heading, xp.zeros_like(heading), xp.zeros_like(heading))


def step_loops(
    sticks: Array, state: LoopState, memory: LoopMemory, loops: Array, gains: ControlConfig, dt: float, max_depth: float
) -> tuple[Array, LoopMemory]:
    """One step of `dt` s: sticks (…, 4) surge, sway, heave, yaw in −1..1 -> wrench (…, 6) surge, sway, heave, roll,
    pitch, yaw in −1..1.

    `loops` (…, 3) bool: is the depth, the heading, the level loop on? Where one is off its stick passes through, and
    its memory follows the vehicle without trim, so that switching it on starts from zero effort. Where it is on, a
    stick outside DEAD_BAND moves the vehicle open loop, on top of the trim; when it is released, the loop captures the
    point where the vehicle will stop, and holds that. Below `max_depth` (m) heave is only upward, with any loops.
    """
    xp = array_namespace(sticks)
    surge, sway, heave, yaw = (sticks[..., i] for i in range(4))
    roll, pitch, heading = (state.attitude[..., i] for i in range(3))
    p, q, r = (state.rates[..., i] for i in range(3))
    depth_on, heading_on, level_on = (loops[..., i] for i in range(3))

    depth_held = depth_on & (xp.abs(heave) <= DEAD_BAND)
    stopping = state.depth + _lead(gains.depth_kp, gains.depth_kd) * state.depth_rate
    depth_goal = xp.where(depth_held, memory.depth, stopping).clip(max=max_depth)
    error = depth_goal - state.depth
    effort = gains.depth_kp * error - gains.depth_kd * state.depth_rate
    growth = gains.depth_ki * error * dt
    heave = xp.where(depth_held, effort, heave)
    heave, depth_trim = _trimmed(xp, heave, memory.depth_trim, growth, depth_on, depth_held)
    heave = xp.where(state.depth > max_depth, heave.clip(max=0.0), heave)

    heading_held = heading_on & (xp.abs(yaw) <= DEAD_BAND)
    stopping = heading + _lead(gains.heading_kp, gains.heading_kd) * r
    heading_goal = xp.where(heading_held, memory.heading, stopping)
    error = wrapped(heading_goal - heading)
    effort = gains.heading_kp * error - gains.heading_kd * r
    growth = gains.heading_ki * error * dt
    # A turn by stick is damped like the held heading: otherwise a vehicle with little drag in yaw would spin up, and a
    # visual servo with its delay would turn past the target.
    yaw = xp.where(heading_held, effort, yaw - xp.where(heading_on, gains.heading_kd * r, 0.0))
    yaw, heading_trim = _trimmed(xp, yaw, memory.heading_trim, growth, heading_on, heading_held)

    rolling = xp.where(level_on, -gains.attitude_kp * roll - gains.attitude_kd * p, 0.0)
    pitching = xp.where(level_on, -gains.attitude_kp * pitch - gains.attitude_kd * q, 0.0)
    wrench = xp.stack([surge, sway, heave, rolling, pitching, yaw], axis=-1).clip(min=-1.0, max=1.0)
    return wrench, LoopMemory(depth_goal, wrapped(heading_goal), depth_trim, heading_trim)


def differentiate(rate: Array, before: Array, now: Array, dt: float) -> Array:
    """The next estimate of the depth rate, from two depths `dt` > 0 s apart: a difference through a first-order filter.

    Of the measurement, not of the loop's error, so that a new target gives no kick."""
    slope = ((now - before) / dt).clip(min=-DEPTH_RATE_MAX, max=DEPTH_RATE_MAX)
    return rate + dt / (dt + RATE_TAU) * (slope - rate)


def wrapped(angle: Array) -> Array:
    """The same angle in −π..π, so that an error is the short way round."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


def _lead(kp: float, kd: float) -> float:
    """How far ahead, in s, to capture a target: from kp · lead · rate = kd · rate, so that the first effort of a moving
    vehicle is zero, and it coasts to the target instead of coming back to it."""
    if kp <= 0:
        return 0.0
    return kd / kp if kd < LEAD_MAX_S * kp else LEAD_MAX_S  # a tiny kp must not divide into infinity


def _trimmed(xp: Any, effort: Array, trim: Array, growth: Array, on: Array, held: Array) -> tuple[Array, Array]:
    """Add the trim to an axis' effort, then integrate. Anti-windup: the trim is bounded, and does not change
    while a stick moves the axis, or while the axis is saturated and would go further into saturation."""
    trim = xp.where(on, trim, 0.0)
    total = effort + trim
    free = held & ((xp.abs(total) < 1.0) | (total * growth < 0.0))
    return total, xp.where(free, trim + growth, trim).clip(min=-TRIM_MAX, max=TRIM_MAX)
