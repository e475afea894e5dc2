"""ArduSub's own loops on a vehicle of the simulator: what `sim.ardusub` steers in a world. Its hulls pitch and turn on
after a push; the loops of a simple vehicle would tumble them.

How a channel becomes a climb and a turn: Attitude.cpp (get_pilot_desired_climb_rate), mode_althold.cpp, RC_Channel.cpp,
radio.cpp, at default parameters.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from rov.link.ardusub.firmware import ALT_HOLD, MANUAL, Rc
from sim.board import Vehicle
from sim.loops import ArdusubLoops, mixed, start_ardusub_loops, step_ardusub_loops
from sim.sensors import Readings
from sim.vehicle import DT

LOW_US, MIDDLE_US, HIGH_US = 1100.0, 1500.0, 1900.0
THROTTLE_DEAD_US = 30.0
"""Dead zone of the throttle's channel, at its lower end."""
THROTTLE_DEAD = 100.0
"""THR_DZ: thousandths of the throttle's range around its middle, times the pilot's gain."""
YAW_DEAD_US = 40.0
"""Dead zone of the yaw's channel around its middle, times the pilot's gain."""
SLOWING_S = 0.25
"""After a turn by stick it first stops, then holds the heading that it has."""


class SensingVehicle(Vehicle, Protocol):
    """A vehicle with an autopilot's instruments."""

    @property
    def readings(self) -> Readings:
        """Of this one vehicle."""


class Flight:
    """The loops of one vehicle, tick by tick. Disarmed and in MANUAL they begin anew."""

    def __init__(self, vehicle: SensingVehicle, frame: str):
        self.vehicle, self.loops = vehicle, ArdusubLoops(frame, gain=1.0, dead_band=0.0)
        self.memory = start_ardusub_loops(vehicle.readings)
        self.behind_s = self.slowing_s = 0.0

    def step(self, mode: int, rc: Rc, gain: float, volts: float, dt: float, *, armed: bool) -> None:
        """Move on by `dt` s, in whole ticks, with these channels and the pilot's `gain`."""
        self.behind_s += dt
        while self.behind_s >= DT:
            self.behind_s -= DT
            self.vehicle.step(self._commands(mode, rc, gain, armed)[0].double().numpy(), volts, DT)

    @torch.inference_mode()
    def _commands(self, mode: int, rc: Rc, gain: float, armed: bool) -> Tensor:
        """(1, motors) −1..1."""
        readings = self.vehicle.readings
        throttle, yaw, surge, sway = ((us - MIDDLE_US) / (HIGH_US - MIDDLE_US) for us in rc)
        if not armed or mode == MANUAL:
            self.memory = start_ardusub_loops(readings)
            wrench = (surge, sway, -throttle, 0.0, 0.0, yaw)
            return mixed(readings.depth.new_tensor([wrench]) * float(armed), self.loops.frame)
        sticks = readings.depth.new_tensor([[surge, sway, -climb(rc[0], gain), self._turn(rc[1], gain)]])
        vertical = None if mode == ALT_HOLD else readings.depth.new_tensor([-throttle])
        commands, self.memory = step_ardusub_loops(self.loops, sticks, readings, self.memory, vertical)
        return commands

    def _turn(self, us: float, gain: float) -> float:
        """The share of its fastest turn; next to nothing, which is a turn as well, while it slows down after one."""
        asked = turn(us, gain)
        self.slowing_s = SLOWING_S if asked else self.slowing_s - DT
        return asked or (1e-9 if self.slowing_s > 0.0 else 0.0)


def climb(us: float, gain: float) -> float:
    """The share of its fastest climb, −1..1, up positive, that the pilot of `gain` asks for by a pulse of `us` µs."""
    low = LOW_US + THROTTLE_DEAD_US
    control = min(max(1000.0 * (us - low) / (HIGH_US - low), 0.0), 1000.0)
    middle = 1000.0 * (MIDDLE_US - low) / (HIGH_US - low)
    top, bottom = middle + THROTTLE_DEAD * gain, middle - THROTTLE_DEAD * gain
    if control < bottom:
        return (control - bottom) / bottom
    return (control - top) / (1000.0 - top) if control > top else 0.0


def turn(us: float, gain: float) -> float:
    """The share of its fastest turn, −1..1, to starboard positive, that the pilot of `gain` asks for."""
    dead = YAW_DEAD_US * gain
    beyond = max(abs(us - MIDDLE_US) - dead, 0.0) / (HIGH_US - MIDDLE_US - dead)
    return beyond if us > MIDDLE_US else -beyond
