"""Collects one vehicle's messages from a log: states, the pilot's commands, events, thruster outputs, UTC."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from rov.imports.survey import SurveyedVehicle
from rov.link.ardusub.firmware import NAMES
from rov.link.vehicle_state import Telemetry, tells_of_leak
from rov.messages import (
    AnyCommand,
    Arm,
    Clock,
    Disarm,
    Event,
    Mode,
    SetMode,
    Sticks,
    ThrusterCommand,
    VehicleState,
)
from rov.printing import printable

SESSION = "log"
"""Session name of the imported commands."""
MODES = {0: Mode.MANUAL, 1: Mode.MANUAL, 2: Mode.HOLD, 9: Mode.SURFACE, 16: Mode.HOLD, 19: Mode.MANUAL, 21: Mode.HOLD}
"""ArduSub's STABILIZE, ACRO, ALT_HOLD, SURFACE, POSHOLD, MANUAL, SURFTRAK. GUIDED, AUTO and CIRCLE have no equal."""
RC_NEUTRAL, RC_SPAN = 1500.0, 400.0
"""µs."""
PULSES_US = (800, 2200)
"""Range of valid pulses; 0 and 65535 mark absent channels."""
CLOCK_NS = 1_000_000_000


class LogBuilder:
    """All times are the log's, in ns. Values out of range are counted in `dropped`."""

    def __init__(self, vehicle: SurveyedVehicle):
        self.vehicle = vehicle
        self.telemetry = Telemetry(vehicle.water.surface_pa, vehicle.water.density, battery=vehicle.battery)
        self.telemetry.sources, self.telemetry.above = vehicle.water.sources, vehicle.water.above
        self.states: list[VehicleState] = []
        self.commands: list[AnyCommand] = []
        self.events: list[Event] = []
        self.thrusters: list[ThrusterCommand] = []
        self.clocks: list[Clock] = []
        self.dropped: Counter[str] = Counter()
        self.noted: Counter[str] = Counter()
        """Notes for the user, and how often each occurred."""
        self.armed: bool | None = None
        self.mode = -1
        self.buttons = 0

    def state(self, t: int, fits: bool) -> None:
        """Add a state with everything known, at each attitude. `fits`: whether the attitude is valid."""
        if not fits:
            self.dropped["attitudes that are not finite"] += 1
        elif self.states and t <= self.states[-1].t:
            self.dropped["attitudes that are not newer than the one before"] += 1
        elif self.telemetry.state is not None:
            self.telemetry.expire(t)
            known = msgspec.structs.replace(self.telemetry.state, t=t, attitude_t=t, armed=bool(self.armed))
            self.states.append(known)

    def arming(self, t: int, armed: bool) -> None:
        """Add an Arm or Disarm when the armed state changes."""
        if armed != self.armed:
            kind: Any = Arm if armed else Disarm
            self._command(kind(t=t, session=SESSION, seq=0))
            self.armed = armed

    def moding(self, t: int, number: int) -> None:
        """Add a SetMode, or an event for a mode without an equivalent, when the autopilot's mode number changes."""
        if number == self.mode:
            return
        self.mode = number
        if number in MODES:
            self._command(SetMode(t=t, session=SESSION, seq=0, mode=MODES[number]))
        else:
            name = NAMES.get(number, str(number))
            self.noted[f"mode {name} has no equivalent here: left out"] += 1
            self.event(t, "info", "autopilot_mode", f"the autopilot's mode is {name}")

    def stick(self, t: int, axes: Sequence[float | None]) -> None:
        """Add the pilot's surge, sway, heave, yaw in −1..1; None for an axis the joystick lacks."""
        if all(each is None for each in axes):
            return
        if None in axes:
            self.noted["the sticks lack an axis: it is taken as 0"] += 1
        surge, sway, heave, yaw = (min(max(each or 0.0, -1.0), 1.0) + 0.0 for each in axes)
        self._command(Sticks(t=t, session=SESSION, seq=0, surge=surge, sway=sway, heave=heave, yaw=yaw))

    def pressed(self, t: int, buttons: int) -> None:
        """Add an event for each of the pilot's buttons (one bit each) that is newly pressed."""
        new, self.buttons = buttons & ~self.buttons, buttons
        for number in (bit for bit in range(32) if new >> bit & 1):
            self.event(t, "info", "button", f"button {number} is pressed", "pilot")

    def channels(self, t: int, throttle: float, yaw: float, forward: float, lateral: float) -> None:
        """Add the pilot's sticks from the receiver's channels, µs."""
        up, right, ahead, side = (
            (each - RC_NEUTRAL) / RC_SPAN if PULSES_US[0] <= each <= PULSES_US[1] else None
            for each in (throttle, yaw, forward, lateral)
        )
        self.stick(t, (ahead, side, None if up is None else -up, right))

    def drive(self, t: int, pulses: Sequence[float]) -> None:
        """Add the thruster outputs from the autopilot's pulses, µs by channel; only motor channels count."""
        outputs = self.vehicle.outputs or range(8)
        driven = [pulses[each] for each in outputs if each < len(pulses)]
        if not self.vehicle.outputs:  # without parameters: the channels before the first zero
            driven = driven[: next((n for n, us in enumerate(driven) if not us), len(driven))]
        if not driven or not all(PULSES_US[0] <= us <= PULSES_US[1] for us in driven):
            return
        values = tuple(min(max((us - RC_NEUTRAL) / RC_SPAN, -1.0), 1.0) for us in driven)
        mode = MODES.get(self.mode, Mode.MANUAL)
        command = ThrusterCommand(t=t, frame_id=-1, frame_t=t, armed=bool(self.armed), mode=mode, values=values)
        if not self.thrusters or t > self.thrusters[-1].t:
            self.thrusters.append(command)

    def event(self, t: int, level: Any, code: str, text: str, source: str = "autopilot") -> None:
        self.events.append(Event(t=t, level=level, source=source, code=code, text=text))

    def add_text(self, t: int, level: Any, text: str) -> None:
        """Add a text message of the autopilot as an event; one about a leak is always an alarm."""
        text = printable(text)
        self.telemetry.text(text, t)
        self.event(t, "alarm" if tells_of_leak(text) else level, "autopilot_text", text)

    def clock(self, t: int, utc: float | None) -> None:
        """Add the wall clock (s since 1970) at `t`, at most once a second."""
        if utc is not None and (not self.clocks or t - self.clocks[-1].t >= CLOCK_NS):
            self.clocks.append(Clock(t=t, utc_ns=round(utc * 1e9)))

    def _command(self, command: AnyCommand) -> None:
        """Add a command; one that arrived out of order gets the time of the one before it."""
        t = max(command.t, self.commands[-1].t) if self.commands else command.t
        self.commands.append(msgspec.structs.replace(command, t=t))
