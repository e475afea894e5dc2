"""ArduSub's own loops on a vehicle of the simulator: what `sim.ardusub` steers in a world. Its hulls pitch and turn on
after a push; the loops of a simple vehicle would tumble them."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from rov.link.ardusub.firmware import ALT_HOLD, MANUAL
from sim.board import Vehicle
from sim.loops import ArdusubLoops, mixed, start_ardusub_loops, step_ardusub_loops
from sim.sensors import Readings
from sim.vehicle import DT


class SensingVehicle(Vehicle, Protocol):
    """A vehicle with an autopilot's instruments."""

    @property
    def readings(self) -> Readings:
        """Of this one vehicle."""


class Flight:
    """The loops of one vehicle, tick by tick. Disarmed and in MANUAL they begin anew."""

    def __init__(self, vehicle: SensingVehicle, frame: str):
        self.vehicle, self.loops = vehicle, ArdusubLoops(frame)
        self.memory = start_ardusub_loops(vehicle.readings)
        self.behind_s = 0.0

    def step(
        self, mode: int, pulses: tuple[float, float, float, float], gain: float, volts: float, dt: float, *, armed: bool
    ) -> None:
        """Move on by `dt` s, in whole ticks. `pulses`: surge, sway, heave, yaw, −1..1 of the RC channels' range, after
        the pilot's `gain`; heave positive down."""
        self.behind_s += dt
        while self.behind_s >= DT:
            self.behind_s -= DT
            commands = self._commands(mode, pulses, gain, armed)
            self.vehicle.step(commands[0].double().numpy(), volts, DT)

    @torch.inference_mode()
    def _commands(self, mode: int, pulses: tuple[float, float, float, float], gain: float, armed: bool) -> Tensor:
        """(1, motors) −1..1."""
        readings = self.vehicle.readings
        asked = readings.depth.new_tensor([pulses])
        if not armed or mode == MANUAL:
            self.memory = start_ardusub_loops(readings)
            wrench = asked.new_zeros(1, 6)
            wrench[:, [0, 1, 2, 5]] = asked if armed else 0.0
            return mixed(wrench, self.loops.frame)
        vertical = None if mode == ALT_HOLD else asked[:, 2]
        commands, self.memory = step_ardusub_loops(
            self.loops._replace(gain=gain), asked / gain, readings, self.memory, vertical
        )
        return commands
