"""The pilot on recorded time: acts when it acted then, or at its own pace where the recording does not say."""

from __future__ import annotations

from collections.abc import Iterator

from rov.config import Config
from rov.messages import (
    Arm,
    Command,
    Disarm,
    Message,
    Mode,
    SetMode,
    Setpoint,
    Stop,
    ThrusterCommand,
    Tuning,
    VehicleState,
)
from rov.motion.pilot import Pilot
from rov.motion.thrusters import Curve
from rov.tuning import Schedule, tuned


class Rover:
    """A pilot with the latest of what it would have heard: setpoint, vehicle state, commands."""

    def __init__(self, config: Config, curve: Curve, has_vehicle: bool, ticks: bool, start: ThrusterCommand | None):
        """`ticks`: the recording says when the pilot acted. `start`: what it was doing when the recording began;
        without that it is armed and follows."""
        self.pilot = Pilot(config, curve, vehicle_expected=has_vehicle)
        self.tunings = Schedule(config, recorded=True)
        self.period = int(1e9 / config.control.rate_hz)
        self.ticks = ticks
        self.start = start
        self.setpoint: Setpoint | None = None
        self.vehicle: VehicleState | None = None
        self.command: ThrusterCommand | None = None
        self.next_t: int | None = None

    def hear(self, message: object) -> Iterator[Message]:
        """A recorded message; yields what the pilot says to it, and inputs that the new dive shall hold too."""
        match message:
            case VehicleState():
                self.vehicle = message
                yield message
            case Command():
                self.obey(message)
                yield message
            case Tuning():
                if changed := self.tunings.hear(message.settings, message.t):
                    self.pilot.tune(tuned(self.pilot.config, changed), message.t)
                yield message
            case ThrusterCommand() if self.ticks:
                yield from self.act(message.t)

    def sail(self, until: int) -> Iterator[Message]:
        """Act at the pilot's pace up to a time (not including it), where the recording does not say when."""
        if self.ticks:
            return
        self.next_t = until if self.next_t is None else self.next_t
        while self.next_t < until:
            yield from self.act(self.next_t)
            self.next_t += self.period

    def act(self, t: int) -> Iterator[Message]:
        """One step of the pilot."""
        if self.command is None:
            self._begin(t)
        output = self.pilot.step(self.setpoint, self.vehicle, t)
        self.command = output.thrusters
        yield output.wrench
        yield output.thrusters
        yield from output.events

    def obey(self, command: Command) -> None:
        """What an operator said then."""
        match command:
            case Arm():
                self.pilot.arm(command.t)
            case Disarm():
                self.pilot.disarm(command.t)
            case Stop():
                self.pilot.stop(command.t)
            case SetMode():
                self.pilot.request_mode(command.mode, command.t)

    def _begin(self, t: int) -> None:
        """Bring the pilot to where it was: it must have heard what a mode needs before the mode is asked for."""
        if self.vehicle:
            self.pilot.sense(self.vehicle)
        if self.setpoint:
            self.pilot.hear(self.setpoint)
        self.pilot.request_mode(self.start.mode if self.start else Mode.FOLLOW, t)
        if self.start is None or self.start.armed:
            self.pilot.arm(t)
