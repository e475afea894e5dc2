"""Runs the pilot on recorded time: at the recorded steps, or at its own rate where none were recorded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec

from rov.config.live import with_values
from rov.config.schema import Config
from rov.config.timeline import ConfigTimeline
from rov.messages import (
    ActiveSettings,
    Arm,
    Clock,
    Command,
    ConsumedInput,
    Disarm,
    Message,
    Mode,
    SetMode,
    Setpoint,
    Stop,
    ThrusterCommand,
    VehicleState,
)
from rov.motion.pilot import Pilot
from rov.motion.thrusters import Curve
from rov.offline.source import Recording

WITHIN = 100
"""A consumed setpoint is looked for among this many of the last frames."""


class PilotReplay:
    """A pilot with the inputs it would have received: setpoint, vehicle state, commands."""

    def __init__(self, config: Config, curve: Curve, source: Recording):
        """The pilot begins as the source recorded it, or else armed and in `follow`."""
        self.curve, self.source = curve, source
        self.pilot = Pilot(config, curve, vehicle_expected=source.has_vehicle)
        self.timeline = ConfigTimeline(config, recorded=True)
        self.period = int(1e9 / config.control.rate_hz)
        self.ticks = source.has_ticks
        self.start = source.start
        self.known = not source.has_inputs
        """Whether the pilot's state is known; it is not in a dive that began in the middle of a run."""
        self.recent_setpoints: deque[Setpoint] = deque(maxlen=WITHIN)
        """Setpoints computed now, newest last."""
        self.setpoint: Setpoint | None = None
        self.vehicle: VehicleState | None = None
        self.command: ThrusterCommand | None = None
        self.next_t: int | None = None

    def restart(self) -> None:
        """Forget everything but the settings, because what follows is another run."""
        self.pilot = Pilot(self.pilot.config, self.curve, vehicle_expected=self.source.has_vehicle)
        self.setpoint = self.vehicle = self.command = self.next_t = None
        self.recent_setpoints.clear()

    def receive_setpoint(self, setpoint: Setpoint) -> None:
        """Take a setpoint computed now. The pilot uses it when it consumed that frame's setpoint in the dive; in a dive
        without inputs, in its next step."""
        self.recent_setpoints.append(setpoint)
        self.setpoint = setpoint

    def receive(self, message: object) -> Iterator[Message]:
        """Take a recorded message; yields the pilot's output, and the inputs to be recorded in the new dive."""
        match message:
            case VehicleState():
                self.vehicle = message
                if self.source.has_inputs:
                    self.pilot.receive_state(message)
                yield message
            case ConsumedInput():
                consumed = self._with_recomputed_setpoint(message)
                self.apply(consumed)
                yield consumed
            case Command():
                if not self.source.has_inputs:
                    self.apply_command(message)
                yield message
            case ActiveSettings():
                if changed := self.timeline.add(message.settings, message.t):
                    self.pilot.apply_config(with_values(self.pilot.config, changed), message.t)
                yield message
            case Clock():
                yield message
            case ThrusterCommand() if self.ticks:
                yield from self.step(message.t)

    def run_until(self, until: int) -> Iterator[Message]:
        """Step at the pilot's own rate until before this time (ns), if the recording has no steps of it."""
        if self.ticks:
            return
        self.next_t = until if self.next_t is None else self.next_t
        while self.next_t < until:
            yield from self.step(self.next_t)
            self.next_t += self.period

    def step(self, t: int) -> Iterator[Message]:
        """One step of the pilot."""
        if self.command is None:
            self._restore_start(t)
        output = self.pilot.step(None if self.source.has_inputs else self.setpoint, self.vehicle, t)
        self.command = output.thrusters
        yield output.wrench
        yield output.thrusters
        yield from output.events

    def apply(self, consumed: ConsumedInput) -> None:
        """Give the pilot an input that it consumed in the dive."""
        if consumed.by == "pilotd" and consumed.what == "start":
            self.pilot = Pilot(self.pilot.config, self.curve, vehicle_expected=self.source.has_vehicle)
            self.vehicle, self.start, self.known = None, None, True
        elif consumed.by == "pilotd":
            self.pilot.apply(consumed)

    def _with_recomputed_setpoint(self, consumed: ConsumedInput) -> ConsumedInput:
        """The input with the setpoint computed now from the same frame, if any, at the recorded time."""
        then = consumed.setpoint
        now = next((each for each in self.recent_setpoints if then and each.frame_t == then.frame_t), None)
        if then is None or now is None or now.source != then.source:
            return consumed
        return msgspec.structs.replace(consumed, setpoint=msgspec.structs.replace(now, t=then.t))

    def apply_command(self, command: Command) -> None:
        """Give the pilot an operator's command, at the time it was sent."""
        match command:
            case Arm():
                self.pilot.arm(command.t)
            case Disarm():
                self.pilot.disarm(command.t)
            case Stop():
                self.pilot.stop(command.t)
            case SetMode():
                self.pilot.request_mode(command.mode, command.t)

    def _restore_start(self, t: int) -> None:
        """Bring the pilot into its recorded state. Its inputs come first, because a mode without them is refused."""
        if self.known and self.source.has_inputs:
            return
        if self.vehicle:
            self.pilot.receive_state(self.vehicle)
        if self.setpoint:
            self.pilot.receive_setpoint(self.setpoint)
        self.pilot.request_mode(self.start.mode if self.start else Mode.FOLLOW, t)
        if self.start is None or self.start.armed:
            self.pilot.arm(t)
