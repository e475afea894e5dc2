"""One vehicle in one realised world, moved command by command: for lockstep dives and the live simulator."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from rov.messages import VehicleState
from rov.motion.allocation import mixer
from rov.types import Floats
from sim import sensors, vehicle
from sim.parameters import load
from sim.vehicle import DT, State, WaterForces
from sim.world import RealisedWorld

CLEARANCE_M = 0.25
"""From the middle of the vehicle to a wall: half its length."""


class SingleVehicle:
    """The vehicle `name` of `sim/vehicles` in a world; deterministic, given the world, its seed and the commands."""

    def __init__(self, place: RealisedWorld, name: str = "heavy"):
        self.model = vehicle.model(name, torch.float64)
        self.random = torch.Generator().manual_seed(place.seed)
        north, east, down = place.start
        start = vehicle.rest(self.model, 1)
        half = place.heading / 2
        self.state = start._replace(
            position=torch.tensor([[north, east, down]], dtype=torch.float64),
            attitude=torch.tensor([[math.cos(half), 0.0, 0.0, math.sin(half)]], dtype=torch.float64),
        )
        self.water = WaterForces(
            current=torch.tensor(place.current, dtype=torch.float64)[:, None],
            gust=place.gust,
            gust_s=place.gust_s,
            density=place.density,
            seabed=torch.tensor([place.bottom], dtype=torch.float64),
        )
        low_n, high_n, low_e, high_e = place.walls
        self.low = torch.tensor([low_n + CLEARANCE_M, low_e + CLEARANCE_M, -math.inf], dtype=torch.float64)
        self.high = torch.tensor([high_n - CLEARANCE_M, high_e - CLEARANCE_M, math.inf], dtype=torch.float64)
        self.mixer = mixer(load(name).frame)
        self.behind_s = 0.0
        self.suite = sensors.Suite()
        self.memory = sensors.switch_on(self.suite, self.state, self.water, self.random)
        self.readings, self.memory = sensors.sense(self.suite, self.state, self.water, self.memory, self.random)

    @property
    def motors(self) -> int:
        return len(self.mixer)

    # ---- for a thruster board: the readings of the vehicle's own instruments -----------------------------------

    @property
    def attitude(self) -> Floats:
        """(3,) roll, pitch, yaw in rad."""
        return self.readings.attitude[0].numpy()

    @property
    def speed(self) -> Floats:
        """(6,) zeros for the velocities, which are not measured, then the rates in rad/s."""
        return np.concatenate([np.zeros(3), self.readings.rates[0].numpy()])

    @property
    def depth(self) -> float:
        """m."""
        return float(self.readings.depth[0])

    def step(self, outputs: Floats, volts: float | None, dt: float) -> None:
        """Move on by `dt` s, in whole intervals of DT; the remainder waits for the next call. `volts` is not used: the
        vehicle simulates its own battery."""
        self.behind_s += dt
        while self.behind_s >= DT:
            self.behind_s -= DT
            self.advance(outputs.tolist())

    # ---- for the simulator -------------------------------------------------------------------------------------

    @torch.inference_mode()
    def advance(self, commands: Sequence[float]) -> None:
        """Hold these commands −1..1 for one interval of DT, then read the instruments."""
        values = torch.tensor([list(commands)], dtype=torch.float64)
        noise = torch.randn(1, 3, generator=self.random, dtype=torch.float64)
        moved = vehicle.step(self.model, self.state, values, self.water, DT, noise)
        self.state = self._inside(moved)
        self.readings, self.memory = sensors.sense(self.suite, self.state, self.water, self.memory, self.random)

    def vehicle_state(self, t: int, armed: bool) -> VehicleState:
        """The readings as a message at `t` ns."""
        return sensors.vehicle_state(self.readings, 0, t, armed=armed)

    @property
    def volts(self) -> float:
        """Of the battery."""
        return float(self.readings.volts)

    def target(self) -> None:
        """The world's things move by themselves."""

    def pose(self) -> State:
        """For the camera."""
        return self.state

    def _inside(self, state: State) -> State:
        """Stop a vehicle that runs into the walls of the basin."""
        inside = torch.minimum(torch.maximum(state.position, self.low), self.high)
        if torch.equal(inside, state.position):
            return state
        return state._replace(position=inside, velocity=torch.zeros_like(state.velocity))
