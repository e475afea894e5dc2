"""Simulated dives that excite every axis of a vehicle: input of `sim fit`, and of its tests."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import torch

from rov.dives.dive import DiveWriter
from rov.messages import Mode, ThrusterCommand
from rov.motion.allocation import allocate
from sim.parameters import Parameters
from sim.sensors import Suite, sense, switch_on, vehicle_state
from sim.vehicle import DT, model, rest, rotation, step, still

DEPTH_M = 10.0
START_NS = 1_000_000_000
LEVELS = (0.5, 0.5, 0.6, 0.2, 0.2, 0.4)
"""Largest effort of surge, sway, heave, roll, pitch, yaw."""
HOLDS_S = (0.3, 2.0)
"""Shortest and longest duration of a step: short ones show the inertia, long ones the damping."""

_SUITE = Suite()


@torch.inference_mode()
def excite(
    vehicle: Parameters,
    paths: list[Path],
    *,
    seed: int = 0,
    seconds: float = 60.0,
    suite: Suite = _SUITE,
    levels: tuple[float, ...] = LEVELS,
) -> None:
    """Write dives with `vehicle` and `thrusters` at 50 Hz: pseudo-random steps, each axis independent, still water.

    All dives are simulated at once. The steps of heave, roll and pitch are biased back to 10 m and level. A DVL in the
    suite adds its velocity."""
    random = torch.Generator().manual_seed(seed)
    moving = model(vehicle, torch.float64)
    n, double = len(paths), torch.float64
    water = still(moving)._replace(seabed=torch.tensor([2 * DEPTH_M], dtype=double))
    state = rest(moving, n, DEPTH_M)
    memory = switch_on(suite, state, water, random)
    efforts, until = torch.zeros(n, 6, dtype=double), torch.zeros(n, 6, dtype=double)
    about = {"source": f"simulated: {vehicle.source}", "seed": str(seed)}
    with ExitStack() as stack:
        dives = [stack.enter_context(DiveWriter(path, about, overwrite=True)) for path in paths]
        for tick in range(round(seconds / DT)):
            readings, memory = sense(suite, state, water, memory, random)
            level, hold = torch.rand(2, n, 6, generator=random, dtype=double)
            over = tick * DT >= until
            efforts = torch.where(over, efforts.new_tensor(levels) * (2 * level - 1), efforts)
            until = torch.where(over, tick * DT + HOLDS_S[0] + hold * (HOLDS_S[1] - HOLDS_S[0]), until)
            down = rotation(state.attitude.T)[2]
            wanted = efforts.clone()
            wanted[:, 2] -= 0.15 * (state.position[:, 2] - DEPTH_M) * down[2]
            wanted[:, 3] -= 0.5 * down[1] + 0.1 * state.rates[:, 0]
            wanted[:, 4] += 0.5 * down[0] - 0.1 * state.rates[:, 1]
            commands = allocate(wanted, vehicle.frame)
            t = START_NS + round(tick * DT * 1e9)
            for row, (dive, values) in enumerate(zip(dives, commands.tolist(), strict=True)):
                dive.write("vehicle", vehicle_state(readings, row, t, armed=True))
                dive.write(
                    "thrusters",
                    ThrusterCommand(t=t, frame_id=-1, frame_t=t, armed=True, mode=Mode.MANUAL, values=tuple(values)),
                )
            state = step(moving, state, commands, water)
