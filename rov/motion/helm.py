"""Between the pilot and those around it: what operators ask for, what the vehicle reports, and what must happen by
itself when the operator, the board or the battery goes. Time is an argument; `pilotd` is the loop around it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol

from rov import tuning
from rov.config import Config
from rov.messages import (
    AnyCommand,
    Arm,
    Disarm,
    Edit,
    Event,
    Heard,
    Message,
    Mode,
    PilotStatus,
    SetMode,
    Setpoint,
    SetTarget,
    Sticks,
    Stop,
    TakeOver,
    Tuning,
    VehicleState,
)
from rov.motion.pilot import SOURCE, STREAMED, Pilot

STATUS_NS = 200_000_000
"""The pilot's status goes out at 5 Hz."""
TUNING_NS = 1_000_000_000
"""What holds is said anew at 1 Hz, for processes that have just started, and for dives."""
RATE_NS, RATE_SHARE = 3_000_000_000, 0.8
"""A stream that brings less than this share of perception.rate_hz over this time is no stream to steer by."""
MIN_CELL_V = 0.5
"""A cell below this is not measured."""
UPWARD = ("leak", "battery_low")
"""Alarms that take the vehicle up. As long as one holds, arming goes straight to `surface`: to forbid it would strand a
vehicle that was disarmed at depth."""


class Link(Protocol):
    """The way to the vehicle. Each tick: `receive`, `poll`, `send`; nothing in it waits. Times are monotonic ns."""

    surface_pa: float
    density: float
    """Of the water in kg/m³; with the pressure at the surface in Pa it makes depths of pressures."""
    mode: Mode
    """What the pilot does, as the helm says it: an autopilot needs a mode of its own that fits."""

    @property
    def state(self) -> VehicleState | None:
        """What the vehicle says of itself; None until it is heard."""

    @property
    def live(self) -> bool:
        """May values leave?"""

    @property
    def testing(self) -> bool:
        """Is an arming under way?"""

    def receive(self) -> None:
        """Take from the port what is there, for the next `poll`, whose time is read after this: or what came between
        the two would look early, and all that follows late."""

    def poll(self, t: int) -> Iterable[Event]:
        """Take in what has arrived; what happened."""

    def arm(self, t: int) -> str:
        """Begin to arm; why not, or nothing."""

    def disarm(self, t: int) -> None:
        """Neutral and disarmed, at once."""

    def send(self, values: Sequence[float], armed: bool, t: int) -> None:
        """The tick's outputs, −1..1."""

    def close(self, t: int) -> None:
        """Neutral and disarmed as far as that is still possible, and nothing more."""


class Helm:
    """The pilot, its link, and the rows of the safety table that neither knows alone."""

    def __init__(self, config: Config, pilot: Pilot, link: Link, classes: tuple[str, ...] = ()):
        """`classes` are those that the detector knows; without any, every target is taken."""
        self.config, self.pilot, self.link, self.classes = config, pilot, link, classes
        self.saved: tuning.Values | None = None
        """What the file said last; None: nothing yet. Only what changes in it is applied, or it would undo what an
        operator has set."""
        self.held: tuning.Values = {}
        """What may be applied only while disarmed."""
        self.tuning_t: int | None = None
        self.arming = False
        self.asked_t = 0
        """When the arming under way was asked for."""
        self.operator = ""
        self.no_operator_t: int | None = None
        self.since: dict[str, int] = {}
        """Since when a reading has been bad, by code."""
        self.alarms: set[str] = set()
        """Codes of the readings that are bad now, and have been for long enough."""
        self.overruled: set[str] = set()
        """What takes the vehicle up, and the operator has said not to, since it was armed: a sensor that comes and goes
        asks once."""
        self.refused = ""
        """Why the last arming, mode or target was refused, by whomever; empty when it was not."""
        self.stick_id = 0
        self.status_t = 0
        self.said: list[Message] = []
        """To be published with this tick."""
        self.stream: dict[str, deque[int]] = {}
        """When the setpoints of each source were heard, over the last RATE_NS."""
        self.engaged_t = 0
        """Since when the mode is the one it is."""

    # ---- what operators ask for --------------------------------------------------------------------------------

    def begin(self, now: int) -> None:
        """Say that this is a pilot without a past."""
        self.said.append(Heard(t=now, by="pilotd", what="start"))

    def hear(self, setpoint: Setpoint, now: int) -> None:
        """A setpoint from perception."""
        heard = self.stream.setdefault(setpoint.source, deque())
        heard.append(now)
        while now - heard[0] > RATE_NS:
            heard.popleft()
        self._tell(now, "setpoint", setpoint=setpoint)

    def obey(self, command: AnyCommand, sent_t: int, now: int) -> str:
        """Carry out a command that was sent at `sent_t` on our clock; returns why not, or nothing."""
        match command:
            case Stop():
                self.arming = False
                self._tell(now, "stop")
                self.link.disarm(now)
            case Disarm():
                self.arming = False
                self._tell(now, "disarm")
                self.link.disarm(now)
            case Arm():
                self.refused = self._begin_arming(sent_t, now)
                return self.refused
            case SetMode():
                self.refused = self._set_mode(command.mode, sent_t, now)
                return self.refused
            case SetTarget():
                self.refused = self._aim(command.label, command.size, now)
                return self.refused
            case Sticks():
                self.stick_id += 1
                axes = {"surge": command.surge, "sway": command.sway, "heave": command.heave, "yaw": command.yaw}
                sticks = Setpoint(t=sent_t, frame_id=-1, frame_t=sent_t, source="operator", **axes)
                self._tell(now, "setpoint", setpoint=sticks)
            case TakeOver():
                self._say(now, "info", "operator", f"the operator is {command.session}")
        return ""

    def lacking(self, mode: Mode, now: int) -> str:
        """A sentence about what a mode lacks, or nothing."""
        if reason := self.pilot.lacking(mode, now):
            return reason
        if mode in STREAMED and (hz := self._rate(mode, now)) < self._rate_min:
            return f"{mode.value} needs {self._rate_min:g} frames looked at per second, over 3 s; there are {hz:.1f}"
        return ""

    def _begin_arming(self, asked_t: int, now: int) -> str:
        """Start the link's arming; returns why not, or nothing."""
        if reason := self.pilot.voided(asked_t) or self._upward(now) or self.lacking(self.pilot.mode, now):
            return reason
        self.overruled.clear()
        self.link.mode = self.pilot.mode  # an autopilot arms in the mode that it will need
        reason = self.link.arm(now)
        self.arming, self.asked_t = not reason, asked_t
        return reason

    def _set_mode(self, mode: Mode, asked_t: int, now: int) -> str:
        """Change the mode as the operator says; returns why not, or nothing. Armed, this may also end a surfacing."""
        before = self.pilot.mode
        if reason := self.lacking(mode, now) or self._tell(now, "mode", asked_t, mode=mode):
            return reason
        if self.pilot.armed and self.urgent and before is Mode.SURFACE is not mode:
            text = f"{', '.join(self.urgent)}: {mode.value} all the same, as the operator says"
            self._say(now, "warning", "surfacing_ended", text)
            self.overruled |= {*self.urgent}
        return ""

    @property
    def urgent(self) -> list[str]:
        """Codes of what takes the vehicle up now."""
        return [code for code in UPWARD if code in self.alarms]

    def _upward(self, now: int) -> str:
        """Before arming: while something is urgent, `surface` is the mode to arm in. Returns why that cannot be, or
        nothing."""
        if not self.urgent or self.pilot.mode is Mode.SURFACE:
            return ""
        if reason := self._tell(now, "mode", mode=Mode.SURFACE):
            return reason
        text = f"{', '.join(self.urgent)}: arming in surface; any other mode must be asked for once armed"
        self._say(now, "warning", "arming_upward", text)
        return ""

    def _aim(self, label: str, size: float | None, now: int) -> str:
        """Follow another class; returns why not, or nothing."""
        if self.classes and label not in self.classes:
            return f"{label} is no class that the detector knows; there are {', '.join(self.classes)}"
        if size is not None and not 0 < size < 1:
            return f"size {size:g} is not between 0 and 1: it is a fraction of the picture's height"
        steering = self.config.steering
        wanted: tuning.Values = {"steering.target": label, "steering.size": steering.size if size is None else size}
        self._apply(tuning.differences(tuning.values(self.config), wanted), now)
        return ""

    # ---- what is tuned -----------------------------------------------------------------------------------------

    def tune(self, edit: Edit, now: int) -> None:
        """Take over what was changed in the saved configuration. While armed, safety keys only tighten: what would
        loosen one is held until the vehicle is disarmed, or the file says otherwise."""
        news = tuning.received(edit.settings)
        if self.saved is None:  # we started from what held, which an operator may have set after the file was saved
            self.saved = tuning.values(self.config) | {key: news[key] for key in edit.overruled if key in news}
        changed = tuning.differences(self.saved, news)
        self.saved = news
        for key in changed:
            self.held.pop(key, None)
        current = tuning.values(self.config)
        if self.pilot.armed:
            self.held |= {key: new for key, new in changed.items() if tuning.looser(key, current[key], new)}
            for key in changed.keys() & self.held.keys():
                text = f"{key} stays {current[key]} while armed; {changed[key]} is less safe, and holds once disarmed"
                self._say(now, "warning", "tuning_held", text)
        self._apply({key: new for key, new in changed.items() if key not in self.held}, now)

    def _apply(self, changes: tuning.Values, now: int) -> None:
        """Let these values hold from now on, everywhere."""
        current = tuning.values(self.config)
        changes = tuning.differences(current, changes)
        if not changes:
            return
        self.config = tuning.tuned(self.config, changes)
        self.pilot.tune(self.config, now)
        self.link.surface_pa, self.link.density = self.config.link.surface_pa, self.config.link.density
        self._publish(now)
        for key, new in changes.items():
            self._say(now, "info", "tuned", f"{key} is {new}, was {current[key]}")

    def _publish(self, now: int) -> None:
        """Say what holds, in the order in which it came to hold."""
        self.tuning_t = now
        self.said.append(Tuning(t=now, settings=tuning.settings(self.config)))

    # ---- one tick ----------------------------------------------------------------------------------------------

    def act(self, operator: str, now: int) -> Iterator[Message]:
        """One step: read the link, decide, send; yields what there is to publish."""
        if self.held and not self.pilot.armed:
            held, self.held = self.held, {}
            self._apply(held, now)
        if self.tuning_t is None or now - self.tuning_t >= TUNING_NS:
            self._publish(now)
        self.link.mode = self.pilot.mode
        self.said += self.link.poll(now)
        vehicle = self.link.state
        if vehicle is not None:
            self.pilot.sense(vehicle)
            self.said.append(vehicle)
            self._watch(vehicle, now)
        self._arm(now)
        self._miss(operator, now)
        self._keep_up(now)
        mode = self.pilot.mode
        output = self.pilot.step(None, vehicle, now)
        self.link.send(output.thrusters.values, self.pilot.armed, now)
        if self.pilot.mode is not mode:
            self.engaged_t = now
        said, self.said = self.said, []
        yield from said  # what it heard before what it did: a replay reads them in this order
        yield output.wrench
        yield output.thrusters
        yield from output.events
        if now - self.status_t >= STATUS_NS:
            self.status_t = now
            yield PilotStatus(
                t=now,
                armed=self.pilot.armed,
                mode=self.pilot.mode,
                operator=operator,
                target=self.config.steering.target,
                refused=self.refused,
            )

    def _arm(self, now: int) -> None:
        """The pilot is armed once the board has been tested; a board that is no longer trusted disarms it."""
        if self.arming and self.link.live:
            self.arming = False
            reason = self.pilot.voided(self.asked_t) or self._upward(now) or self.lacking(self.pilot.mode, now)
            self.refused = reason or self._tell(now, "arm")
            if self.refused:
                self.link.disarm(now)
                self._say(now, "warning", "arming_refused", self.refused)
        elif self.arming and not self.link.testing:
            self.arming = False
            self.refused = next((each.text for each in self._link_trouble()), "")
        if self.pilot.armed and not self.link.live:
            explained = any(each.level == "alarm" for each in self._link_trouble())
            self._tell(now, "disarm")
            if not explained:
                self._say(now, "alarm", "link_lost", "the vehicle is not under our control: disarmed")

    def _link_trouble(self) -> list[Event]:
        """What the link says in this tick and is no good news, the newest first."""
        said = [each for each in reversed(self.said) if isinstance(each, Event) and each.source == "link"]
        return [each for each in said if each.level != "info"]

    def _miss(self, operator: str, now: int) -> None:
        """The operator's heartbeat was lost, or never seen, while armed."""
        if operator:
            self.operator = operator
            return
        if not self.pilot.armed:
            return
        if self.pilot.mode is Mode.SURFACE:  # whatever on_lost says: on its way up it needs nobody
            if self.operator:
                self._say(now, "alarm", "operator_lost", "no heartbeat of the operator: goes on going up")
            self.operator = ""
        elif self.operator:
            self._say(now, "alarm", "operator_lost", f"no heartbeat of the operator: {self.config.operator.on_lost}")
            self.operator = ""
            mode = {"hold": Mode.HOLD, "surface": Mode.SURFACE}.get(self.config.operator.on_lost)
            if self.alarms & {"leak", "battery_low"}:
                mode = Mode.SURFACE
            if mode is None or self._tell(now, "mode", mode=mode):
                self._tell(now, "disarm")
        elif self.pilot.mode is not Mode.HOLD:
            self._tell(now, "disarm")

    def _keep_up(self, now: int) -> None:
        """A streamed mode ends in hold when its stream is too slow to steer by."""
        mode = self.pilot.mode
        if mode in STREAMED and now - self.engaged_t >= RATE_NS and (hz := self._rate(mode, now)) < self._rate_min:
            text = f"{hz:.1f} frames looked at per second over 3 s, not {self._rate_min:g}: {mode.value} ends in hold"
            self._say(now, "warning", "perception_slow", text)
            if self._tell(now, "mode", mode=Mode.HOLD):
                self._tell(now, "mode", mode=Mode.MANUAL)

    def _rate(self, mode: Mode, now: int) -> float:
        """Setpoints per second of a mode's source, over the last RATE_NS."""
        return sum(now - t <= RATE_NS for t in self.stream.get(SOURCE[mode], ())) * 1e9 / RATE_NS

    @property
    def _rate_min(self) -> float:
        return RATE_SHARE * self.config.perception.rate_hz

    def _watch(self, vehicle: VehicleState, now: int) -> None:
        """Leak, battery, hull."""
        limits = self.config.guard
        cell = (vehicle.battery_v or math.inf) / self.config.vehicle.battery_cells
        cell = cell if cell > MIN_CELL_V else math.inf
        hot = vehicle.hull_temperature_c is not None and vehicle.hull_temperature_c > limits.hull_c
        tight = vehicle.hull_pressure_kpa is not None and vehicle.hull_pressure_kpa > limits.hull_kpa
        self._alarm("leak", vehicle.leak, 0.0, now, "water inside the hull: going up", surface=True)
        self._alarm("surfacing", vehicle.surfacing, 0.0, now, "the autopilot goes up, or has to: surface")
        if vehicle.surfacing and self.pilot.armed and self.pilot.mode is not Mode.SURFACE:
            self._tell(now, "mode", mode=Mode.SURFACE)
        self._alarm("battery_warning", cell < limits.battery_warn_v, 0.0, now, f"battery at {cell:.2f} V per cell")
        text = f"battery at {cell:.2f} V per cell: going up"
        self._alarm("battery_low", cell < limits.battery_low_v, limits.battery_low_s, now, text, surface=True)
        self._alarm("hull_hot", hot, limits.hull_s, now, f"{vehicle.hull_temperature_c or 0:.1f} °C inside the hull")
        self._alarm(
            "hull_pressure", tight, limits.hull_s, now, f"{vehicle.hull_pressure_kpa or 0:.1f} kPa inside the hull"
        )

    def _alarm(self, code: str, bad: bool, seconds: float, now: int, text: str, *, surface: bool = False) -> None:
        """An event once a reading has been bad for so long, and again after it was good; `surface` also goes up."""
        if not bad:
            self.since.pop(code, None)
            self.alarms.discard(code)
            return
        if now - self.since.setdefault(code, now) < seconds * 1e9 or code in self.alarms:
            return
        self.alarms.add(code)
        self._say(now, "warning" if code == "battery_warning" else "alarm", code, text)
        if surface and self.pilot.armed and code not in self.overruled:
            self._tell(now, "mode", mode=Mode.SURFACE)

    def _tell(
        self,
        now: int,
        what: Literal["setpoint", "arm", "disarm", "stop", "mode"],
        asked_t: int = 0,
        *,
        mode: Mode | None = None,
        setpoint: Setpoint | None = None,
    ) -> str:
        """Ask something of the pilot, and let the recording know; returns why it is refused, or nothing."""
        heard = Heard(t=now, by="pilotd", what=what, asked_t=asked_t or now, mode=mode, setpoint=setpoint)
        self.said.append(heard)
        before = self.pilot.mode
        refused = self.pilot.take(heard)
        if self.pilot.mode is not before:
            self.engaged_t = now
        return refused

    def _say(self, now: int, level: str, code: str, text: str) -> None:
        assert level in ("info", "warning", "alarm")
        self.said.append(Event(t=now, level=level, source="pilotd", code=code, text=text))  # type: ignore[arg-type]
