"""The pilot on recorded time: acts when it acted then, or at its own pace where the recording does not say."""

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
"""A setpoint that is heard came from one of so many last frames."""


class PilotReplay:
    """A pilot with the latest of what it would have heard: setpoint, vehicle state, commands."""

    def __init__(self, config: Config, curve: Curve, source: Recording):
        """Where the source does not say what the pilot was doing when it began, it is armed and follows."""
        self.curve, self.source = curve, source
        self.pilot = Pilot(config, curve, vehicle_expected=source.has_vehicle)
        self.timeline = ConfigTimeline(config, recorded=True)
        self.period = int(1e9 / config.control.rate_hz)
        self.ticks = source.has_ticks
        self.start = source.start
        self.known = not source.has_inputs
        """Whether what the pilot remembers is known: not so in a dive that began in the middle of a run."""
        self.recent_setpoints: deque[Setpoint] = deque(maxlen=WITHIN)
        """Computed now, newest last."""
        self.setpoint: Setpoint | None = None
        self.vehicle: VehicleState | None = None
        self.command: ThrusterCommand | None = None
        self.next_t: int | None = None

    def begin_anew(self) -> None:
        """Forget everything but the settings: what comes next is another run."""
        self.pilot = Pilot(self.pilot.config, self.curve, vehicle_expected=self.source.has_vehicle)
        self.setpoint = self.vehicle = self.command = self.next_t = None
        self.recent_setpoints.clear()

    def receive_setpoint(self, setpoint: Setpoint) -> None:
        """A setpoint computed now. The pilot takes it when it took that frame's then, or else with its next step."""
        self.recent_setpoints.append(setpoint)
        self.setpoint = setpoint

    def receive(self, message: object) -> Iterator[Message]:
        """A recorded message; yields what the pilot says to it, and inputs that the new dive shall hold too."""
        match message:
            case VehicleState():
                self.vehicle = message
                if self.source.has_inputs:
                    self.pilot.receive_state(message)
                yield message
            case ConsumedInput():
                heard = self._with_recomputed_setpoint(message)
                self.apply(heard)
                yield heard
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
        """Act at the pilot's pace up to a time (not including it), where the recording does not say when."""
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

    def apply(self, heard: ConsumedInput) -> None:
        """What the pilot took in then."""
        if heard.by == "pilotd" and heard.what == "start":
            self.pilot = Pilot(self.pilot.config, self.curve, vehicle_expected=self.source.has_vehicle)
            self.vehicle, self.start, self.known = None, None, True
        elif heard.by == "pilotd":
            self.pilot.apply(heard)

    def _with_recomputed_setpoint(self, heard: ConsumedInput) -> ConsumedInput:
        """The same with the setpoint that is computed now from that frame, if it was, made when it was made then."""
        then = heard.setpoint
        now = next((each for each in self.recent_setpoints if then and each.frame_t == then.frame_t), None)
        if then is None or now is None or now.source != then.source:
            return heard
        return msgspec.structs.replace(heard, setpoint=msgspec.structs.replace(now, t=then.t))

    def apply_command(self, command: Command) -> None:
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

    def _restore_start(self, t: int) -> None:
        """Bring the pilot to where it was: it must have heard what a mode needs before the mode is asked for."""
        if self.known and self.source.has_inputs:
            return
        if self.vehicle:
            self.pilot.receive_state(self.vehicle)
        if self.setpoint:
            self.pilot.receive_setpoint(self.setpoint)
        self.pilot.request_mode(self.start.mode if self.start else Mode.FOLLOW, t)
        if self.start is None or self.start.armed:
            self.pilot.arm(t)
