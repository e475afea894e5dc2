"""A simulated dive that shakes a vehicle on every axis: what `sim fit` wants to see, and what it is tested on."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from rov.dives.dive import DiveWriter
from rov.messages import Mode, ThrusterCommand, VehicleState
from rov.motion.allocation import allocate
from sim.parameters import Parameters
from sim.sensors import Readings, Suite, sense, switch_on
from sim.vehicle import DT, model, rest, rotation, step, still

DEPTH_M = 10.0
START_NS = 1_000_000_000
LEVELS = (0.7, 0.7, 0.7, 0.35, 0.35, 0.5)
"""Largest effort of surge, sway, heave, roll, pitch, yaw."""
HOLDS_S = (0.3, 2.0)
"""How long a step is held: short ones show the inertia, long ones the damping."""


@torch.inference_mode()
def excite(vehicle: Parameters, path: Path, *, seed: int = 0, seconds: float = 120.0, dvl: bool = False) -> None:
    """Write a dive with `vehicle` and `thrusters` at 50 Hz: pseudo-random steps, each axis on its own, still water.

    The steps of heave, roll and pitch are biased back to 10 m and level. `dvl` adds its velocity to the state."""
    random = torch.Generator().manual_seed(seed)
    moving = model(vehicle, torch.float64)
    water = still(moving)._replace(seabed=torch.tensor([2 * DEPTH_M], dtype=torch.float64))
    state = rest(moving, 1, DEPTH_M)
    suite = Suite()._replace(dvl=dvl)
    memory = switch_on(suite, state, water, random)
    efforts, until = torch.zeros(6, dtype=torch.float64), [0.0] * 6
    with DiveWriter(path, {"source": f"simulated: {vehicle.source}", "seed": str(seed)}, overwrite=True) as dive:
        for tick in range(round(seconds / DT)):
            readings, memory = sense(suite, state, water, memory, random)
            t = START_NS + round(tick * DT * 1e9)
            for axis in range(6):
                if tick * DT >= until[axis]:
                    level, hold = torch.rand(2, generator=random, dtype=torch.float64).tolist()
                    efforts[axis] = LEVELS[axis] * (2 * level - 1)
                    until[axis] = tick * DT + HOLDS_S[0] + hold * (HOLDS_S[1] - HOLDS_S[0])
            turn = rotation(state.attitude.T)[..., 0]
            wanted = efforts.clone()
            wanted[2] -= 0.15 * (float(state.position[0, 2]) - DEPTH_M) * float(turn[2, 2])
            wanted[3] -= 0.3 * float(turn[2, 1])
            wanted[4] += 0.3 * float(turn[2, 0])
            commands = allocate(wanted, vehicle.frame)
            dive.write("vehicle", said(readings, t))
            dive.write(
                "thrusters",
                ThrusterCommand(
                    t=t, frame_id=-1, frame_t=t, armed=True, mode=Mode.MANUAL, values=tuple(commands.tolist())
                ),
            )
            state = step(moving, state, commands[None], water)


def said(readings: Readings, t: int) -> VehicleState:
    """The readings of the first vehicle, as the daemon hears them at `t` ns."""
    roll, pitch, yaw = readings.attitude[0].tolist()
    p, q, r = readings.rates[0].tolist()
    velocity = (math.nan,) * 3 if readings.velocity is None else tuple(readings.velocity[0].tolist())
    seen = all(map(math.isfinite, velocity))
    return VehicleState(
        t=t,
        armed=True,
        attitude_t=t,
        roll=roll,
        pitch=pitch,
        yaw=yaw,
        rates=(p, q, r),
        depth_t=t - round(readings.depth_age * 1e9),
        depth=float(readings.depth[0]),
        velocity_t=t - round(readings.velocity_age * 1e9) if seen else None,
        velocity=(velocity[0], velocity[1], velocity[2]) if seen else (0.0, 0.0, 0.0),
        battery_v=float(readings.volts[0]),
        leak=bool(readings.leak[0]),
    )
