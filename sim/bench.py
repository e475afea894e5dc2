"""Speed of the simulator: control intervals of N vehicles per second, with every substep and every sensor."""

from __future__ import annotations

import statistics
import time
from typing import NamedTuple

import torch

from rov.config.schema import load
from rov.motion import thrusters
from rov.resources import find_resource
from sim.loops import RovLoops, inverse, start_rov_loops, step_rov_loops
from sim.sensors import Suite, sense, switch_on
from sim.vehicle import model, rest, step, still

CELLS = 4


class StepSpeed(NamedTuple):
    """Env-steps per second of N vehicles: a step is 20 ms of a vehicle with thrusters, battery, motion, sensors."""

    n: int
    vehicles: float
    """With given commands."""
    with_loops: float
    """With sticks, through the inner loops of `rov`."""


@torch.inference_mode()
def bench(n: int, seconds: float = 2.0, device: str = "cpu", name: str = "heavy") -> StepSpeed:
    """Median of three rounds of `seconds`, float32, all instruments on, with seabed and surface."""
    vehicle = model(name, torch.float32, device)
    water = still(vehicle)._replace(seabed=torch.full((1,), 30.0, device=device))
    random = torch.Generator(device).manual_seed(0)
    suite = Suite()._replace(dvl=True, altimeter=True)
    state = rest(vehicle, n, 10.0)
    memory = switch_on(suite, state, water, random)
    readings, memory = sense(suite, state, water, memory, random)
    config = load(find_resource("rover.toml"))
    curve = thrusters.load(find_resource(config.vehicle.thrusters), CELLS)
    pilot = RovLoops(config, inverse(curve, config.guard.gain, torch.float32, device))
    loops = start_rov_loops(pilot, readings)
    commands = torch.full((n, vehicle.effect.shape[1]), 0.3, device=device)
    sticks = torch.full((n, 4), 0.3, device=device)
    rates: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(3):
        for looped in rates:
            done, start = 0, _now(device)
            while (spent := _now(device) - start) < seconds:
                for _ in range(max(1, 200 // n)):
                    if looped:
                        commands, loops = step_rov_loops(pilot, sticks, readings, loops)
                    state = step(vehicle, state, commands, water)
                    readings, memory = sense(suite, state, water, memory, random)
                    done += n
            rates[looped].append(done / spent)
    return StepSpeed(n, statistics.median(rates[False]), statistics.median(rates[True]))


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()
