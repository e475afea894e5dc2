"""The commander: carries out operators' commands, steps link and pilot, and acts by itself on a lost operator, a leak,
a low battery or slow perception. Time is an argument, monotonic ns; `pilotd` is the loop around it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from rov.config import live
from rov.config.schema import Config
from rov.messages import (
    FROM_FRAMES,
    ActiveSettings,
    AnyCommand,
    Arm,
    ConfigEdit,
    ConsumedInput,
    Disarm,
    Event,
    Message,
    Mode,
    PilotStatus,
    SetMode,
    Setpoint,
    SetTarget,
    SetTask,
    Sticks,
    Stop,
    TakeOver,
    VehicleState,
)
from rov.motion.pilot import SOURCE, Pilot
from rov.motion.tasks import source_refusal, task_settings

if TYPE_CHECKING:
    from rov.link.interface import Link

STATUS_NS = 200_000_000
"""The pilot's status is published at 5 Hz."""
SETTINGS_NS = 1_000_000_000
"""The active settings are published at 1 Hz, for processes that have just started, and for dives."""
RATE_NS, RATE_SHARE = 3_000_000_000, 0.8
"""A stream below this share of perception.rate_hz over this time is too slow to steer by."""
MIN_CELL_V = 0.5
"""A cell voltage below this means that it is not measured."""
SURFACING_ALARMS = ("leak", "battery_low")
"""Alarms that surface the vehicle. While one is present, arming goes straight to `surface`: to forbid arming would
strand a vehicle that was disarmed at depth."""


class Commander:
    """The pilot, its link, and the failsafes that need both."""

    def __init__(
        self,
        config: Config,
        pilot: Pilot,
        link: Link,
        classes: tuple[str, ...] = (),
        no_policy: Mapping[str, str] | None = None,
    ):
        """`classes`: those that the detector knows; empty accepts every target. `no_policy`: why the policy cannot do
        a task, by task; "" where it can."""
        self.config, self.pilot, self.link, self.classes = config, pilot, link, classes
        self.no_policy = no_policy or {}
        self.saved_values: live.Values | None = None
        """The last values of the configuration file; None: not yet received. Only what changes in the file is applied,
        so that it does not undo what an operator has set."""
        self.held_values: live.Values = {}
        """Values that wait for the vehicle to be disarmed."""
        self.settings_t: int | None = None
        self.arming = False
        self.asked_t = 0
        """When the arming in progress was asked for."""
        self.operator = ""
        self.no_operator_t: int | None = None
        self.bad_since: dict[str, int] = {}
        """Since when a reading has been bad, by code."""
        self.alarms: set[str] = set()
        """Codes of the readings that have been bad for long enough, and still are."""
        self.overruled: set[str] = set()
        """Alarms whose surfacing the operator has ended since arming: an alarm that comes and goes surfaces once."""
        self.refused = ""
        """Why the last arming, mode, target or task was refused, by pilot, commander or link; empty when accepted."""
        self.stick_id = 0
        self.status_t = 0
        self.status_state = (pilot.mode, pilot.armed)
        """Mode and arming of the last status."""
        self.outgoing: list[Message] = []
        """Messages to publish with this tick."""
        self.setpoint_times: dict[str, deque[int]] = {}
        """When the setpoints of each source were received, over the last RATE_NS."""
        self.engaged_t = 0
        """When the mode last changed."""

    # ---- commands ----------------------------------------------------------------------------------------------

    def start(self, now: int) -> None:
        """Publish the start, so that a replay begins with a fresh pilot."""
        self.outgoing.append(ConsumedInput(t=now, by="pilotd", what="start"))

    def handle_setpoint(self, setpoint: Setpoint, now: int) -> None:
        """Take a setpoint from perception."""
        times = self.setpoint_times.setdefault(setpoint.source, deque())
        times.append(now)
        while now - times[0] > RATE_NS:
            times.popleft()
        self._apply_input(now, "setpoint", setpoint=setpoint)

    def handle_command(self, command: AnyCommand, sent_t: int, now: int) -> str:
        """Carry out a command that was sent at `sent_t` on our clock; returns the reason for a refusal, or ""."""
        match command:
            case Stop():
                self.arming = False
                self._apply_input(now, "stop")
                self.link.disarm(now)
            case Disarm():
                self.arming = False
                self._apply_input(now, "disarm")
                self.link.disarm(now)
            case Arm():
                self.refused = self._begin_arming(sent_t, now)
                return self.refused
            case SetMode():
                self.refused = self._set_mode(command.mode, sent_t, now)
                return self.refused
            case SetTarget():
                self.refused = self._set_target(command.label, command.size, now)
                return self.refused
            case SetTask():
                self.refused = self._set_task(command, now)
                return self.refused
            case Sticks():
                self.stick_id += 1
                self._apply_input(now, "setpoint", setpoint=_sticks(command, sent_t))
            case TakeOver():
                self._event(now, "info", "operator", f"the operator is {command.session}")
        return ""

    def refusal(self, mode: Mode, now: int) -> str:
        """A sentence about what a mode lacks, or ""."""
        reason = source_refusal(mode, self.config.task.name, self.no_policy)
        if reason := reason or self.pilot.refusal(mode, now):
            return reason
        if mode in FROM_FRAMES and (hz := self._rate(mode, now)) < self._rate_min:
            return f"{mode.value} needs {self._rate_min:g} frames processed per second, over 3 s; there are {hz:.1f}"
        return ""

    def _begin_arming(self, asked_t: int, now: int) -> str:
        """Start the link's arming; returns the reason for a refusal, or ""."""
        if (
            reason := self.pilot.stop_refusal(asked_t)
            or self._prepare_surfacing(now)
            or self.refusal(self.pilot.mode, now)
        ):
            return reason
        self.overruled.clear()
        self.link.mode = self.pilot.mode  # an autopilot arms in the mode that ours needs
        reason = self.link.arm(now)
        self.arming, self.asked_t = not reason, asked_t
        return reason

    def _set_mode(self, mode: Mode, asked_t: int, now: int) -> str:
        """Change the mode for the operator; returns the reason for a refusal, or "". May end a surfacing."""
        before = self.pilot.mode
        if reason := self.refusal(mode, now) or self._apply_input(now, "mode", asked_t, mode=mode):
            return reason
        if self.pilot.armed and self.must_surface and before is Mode.SURFACE is not mode:
            text = f"{', '.join(self.must_surface)}: {mode.value} at the operator's request"
            self._event(now, "warning", "surfacing_ended", text)
            self.overruled |= {*self.must_surface}
        return ""

    @property
    def must_surface(self) -> list[str]:
        """Codes of the alarms that surface the vehicle now."""
        return [code for code in SURFACING_ALARMS if code in self.alarms]

    def _prepare_surfacing(self, now: int) -> str:
        """Before arming: change to `surface` while an alarm demands that. Returns the reason for a refusal, or ""."""
        if not self.must_surface or self.pilot.mode is Mode.SURFACE:
            return ""
        if reason := self._apply_input(now, "mode", mode=Mode.SURFACE):
            return reason
        text = f"{', '.join(self.must_surface)}: arming in surface; ask for any other mode once armed"
        self._event(now, "warning", "arming_upward", text)
        return ""

    def _set_target(self, label: str, size: float | None, now: int) -> str:
        """Follow another class; returns the reason for a refusal, or ""."""
        if reason := self._class_refusal(label):
            return reason
        if size is not None and not 0 < size < 1:
            return f"size {size:g} is not between 0 and 1: it is a fraction of the picture's height"
        steering = self.config.steering
        self._command_settings(
            {"steering.target": label, "steering.size": steering.size if size is None else size}, now
        )
        return ""

    def _class_refusal(self, label: str) -> str:
        if not self.classes or label in self.classes:
            return ""
        return f"{label} is no class that the detector knows; there are {', '.join(self.classes)}"

    def _set_task(self, command: SetTask, now: int) -> str:
        """Give the policy another task; returns the reason for a refusal, or "". What followed the old one holds."""
        reason = self.no_policy.get(command.task, "")
        if reason := reason or ("" if command.label is None else self._class_refusal(command.label)):
            return reason
        wanted = task_settings(command, self.link.state, self.config.vehicle.max_depth)
        if isinstance(wanted, str):
            return wanted
        self._command_settings(wanted, now)
        return ""

    def _end_streamed_mode(self, now: int, code: str, why: str) -> None:
        """End follow or policy in hold, which needs what they need; without that in manual."""
        self._event(now, "warning", code, f"{why}: {self.pilot.mode.value} ends in hold")
        if self._apply_input(now, "mode", mode=Mode.HOLD):
            self._apply_input(now, "mode", mode=Mode.MANUAL)

    def _command_settings(self, wanted: live.Values, now: int) -> None:
        """Apply settings that an operator's command asks for."""
        if self.saved_values is None:  # the first edit is still to come, and says what was saved before this command
            self.saved_values = live.values(self.config)
        self._apply_settings(live.differences(live.values(self.config), live.values(self.config) | wanted), now)

    # ---- live settings -----------------------------------------------------------------------------------------

    def handle_edit(self, edit: ConfigEdit, now: int) -> None:
        """Apply changes of the configuration file. While armed, safety keys may only tighten: a looser value waits
        until the vehicle is disarmed, or the file changes again."""
        saved = live.values_of(edit.settings)
        before = live.values(self.config) if self.saved_values is None else self.saved_values
        changed = {key: new for key, new in live.differences(before, saved).items() if key not in edit.overruled}
        self.saved_values = saved
        for key in changed:
            self.held_values.pop(key, None)
        current = live.values(self.config)
        if self.pilot.armed:
            self.held_values |= {key: new for key, new in changed.items() if live.is_looser(key, current[key], new)}
            for key in changed.keys() & self.held_values.keys():
                text = f"{key} stays {current[key]} while armed; {changed[key]} is less safe, and applies once disarmed"
                self._event(now, "warning", "tuning_held", text)
        self._apply_settings({key: new for key, new in changed.items() if key not in self.held_values}, now)

    def _apply_settings(self, changes: live.Values, now: int) -> None:
        """Apply these values to pilot and link, and publish them."""
        current = live.values(self.config)
        changes = live.differences(current, changes)
        if not changes:
            return
        if "task.name" in changes:  # the other source's setpoints end, and the new task's must first show themselves
            self.setpoint_times.clear()
            if self.pilot.mode in FROM_FRAMES:
                self._end_streamed_mode(now, "task_changed", f"the task is {changes['task.name']} now")
        self.config = live.with_values(self.config, changes)
        self.pilot.apply_config(self.config, now)
        self.link.surface_pa, self.link.density = self.config.link.surface_pa, self.config.link.density
        self._publish_settings(now)
        for key, new in changes.items():
            self._event(now, "info", "tuned", f"{key} is {new}, was {current[key]}")

    def _publish_settings(self, now: int) -> None:
        """Publish the active settings, in order with what else is consumed."""
        self.settings_t = now
        self.outgoing.append(ActiveSettings(t=now, settings=live.settings(self.config)))

    # ---- one tick ----------------------------------------------------------------------------------------------

    def step(self, operator: str, now: int) -> list[Message]:
        """One step: read the link, decide, send; returns the messages to publish."""
        if self.held_values and not self.pilot.armed:
            held, self.held_values = self.held_values, {}
            self._apply_settings(held, now)
        if self.settings_t is None or now - self.settings_t >= SETTINGS_NS:
            self._publish_settings(now)
        self.link.mode = self.pilot.mode
        self.outgoing += self.link.poll(now)
        vehicle = self.link.state
        if vehicle is not None:
            self.pilot.receive_state(vehicle)
            self.outgoing.append(vehicle)
            self._check_failsafes(vehicle, now)
        self._finish_arming(now)
        self._check_operator(operator, now)
        self._check_perception_rate(now)
        mode = self.pilot.mode
        output = self.pilot.step(None, vehicle, now)
        self.link.send(output.thrusters.values, self.pilot.armed, now)
        if self.pilot.mode is not mode:
            self.engaged_t = now
        consumed, self.outgoing = self.outgoing, []
        # Inputs come before the outputs that they led to: a replay reads them in this order.
        messages = [*consumed, output.wrench, output.thrusters, *output.events]
        state = (self.pilot.mode, self.pilot.armed)
        if now - self.status_t >= STATUS_NS or state != self.status_state:  # perception starts anew when it engages
            self.status_t, self.status_state = now, state
            messages.append(self._status(operator, now))
        return messages

    def _status(self, operator: str, now: int) -> PilotStatus:
        return PilotStatus(
            t=now,
            armed=self.pilot.armed,
            mode=self.pilot.mode,
            operator=operator,
            target=self.config.steering.target,
            task=self.config.task.name,
            refused=self.refused,
        )

    def _finish_arming(self, now: int) -> None:
        """Arm the pilot once the link is live; disarm it when the link no longer is."""
        if self.arming and self.link.live:
            self.arming = False
            reason = (
                self.pilot.stop_refusal(self.asked_t)
                or self._prepare_surfacing(now)
                or self.refusal(self.pilot.mode, now)
            )
            self.refused = reason or self._apply_input(now, "arm")
            if self.refused:
                self.link.disarm(now)
                self._event(now, "warning", "arming_refused", self.refused)
        elif self.arming and not self.link.testing:
            self.arming = False
            self.refused = next((each.text for each in self._link_trouble()), "")
        if self.pilot.armed and not self.link.live:
            explained = any(each.level == "alarm" for each in self._link_trouble())
            self._apply_input(now, "disarm")
            if not explained:
                self._event(now, "alarm", "link_lost", "the vehicle is not under our control: disarmed")

    def _link_trouble(self) -> list[Event]:
        """Warnings and alarms of the link in this tick, the newest first."""
        events = [each for each in reversed(self.outgoing) if isinstance(each, Event) and each.source == "link"]
        return [each for each in events if each.level != "info"]

    def _check_operator(self, operator: str, now: int) -> None:
        """Act on an operator's heartbeat that was lost, or never received, while armed."""
        if operator:
            self.operator = operator
            return
        if not self.pilot.armed:
            return
        if self.pilot.mode is Mode.SURFACE:  # with any on_lost: surfacing needs no operator
            if self.operator:
                self._event(now, "alarm", "operator_lost", "no heartbeat of the operator: surfacing goes on")
            self.operator = ""
        elif self.operator:
            self._event(now, "alarm", "operator_lost", f"no heartbeat of the operator: {self.config.operator.on_lost}")
            self.operator = ""
            mode = {"hold": Mode.HOLD, "surface": Mode.SURFACE}.get(self.config.operator.on_lost)
            if self.alarms & {"leak", "battery_low"}:
                mode = Mode.SURFACE
            if mode is None or self._apply_input(now, "mode", mode=mode):
                self._apply_input(now, "disarm")
        elif self.pilot.mode is not Mode.HOLD:
            self._apply_input(now, "disarm")

    def _check_perception_rate(self, now: int) -> None:
        """End a streamed mode in hold when its stream is too slow to steer by."""
        mode = self.pilot.mode
        if mode in FROM_FRAMES and now - self.engaged_t >= RATE_NS and (hz := self._rate(mode, now)) < self._rate_min:
            why = f"{hz:.1f} frames processed per second over 3 s, not {self._rate_min:g}"
            self._end_streamed_mode(now, "perception_slow", why)

    def _rate(self, mode: Mode, now: int) -> float:
        """Setpoints per second of a mode's source, over the last RATE_NS."""
        return sum(now - t <= RATE_NS for t in self.setpoint_times.get(SOURCE[mode], ())) * 1e9 / RATE_NS

    @property
    def _rate_min(self) -> float:
        return RATE_SHARE * self.config.perception.rate_hz

    def _check_failsafes(self, vehicle: VehicleState, now: int) -> None:
        """Check leak, battery and hull, and whether the autopilot surfaces."""
        limits = self.config.guard
        cell = (vehicle.battery_v or math.inf) / self.config.vehicle.battery_cells
        cell = cell if cell > MIN_CELL_V else math.inf
        hot = vehicle.hull_temperature_c is not None and vehicle.hull_temperature_c > limits.hull_c
        tight = vehicle.hull_pressure_kpa is not None and vehicle.hull_pressure_kpa > limits.hull_kpa
        self._check_alarm("leak", vehicle.leak, 0.0, now, "water inside the hull: surfacing", surface=True)
        self._check_alarm("surfacing", vehicle.surfacing, 0.0, now, "the autopilot surfaces, or must: mode surface")
        if vehicle.surfacing and self.pilot.armed and self.pilot.mode is not Mode.SURFACE:
            self._apply_input(now, "mode", mode=Mode.SURFACE)
        self._check_alarm(
            "battery_warning", cell < limits.battery_warn_v, 0.0, now, f"battery at {cell:.2f} V per cell"
        )
        text = f"battery at {cell:.2f} V per cell: surfacing"
        self._check_alarm("battery_low", cell < limits.battery_low_v, limits.battery_low_s, now, text, surface=True)
        self._check_alarm(
            "hull_hot", hot, limits.hull_s, now, f"{vehicle.hull_temperature_c or 0:.1f} °C inside the hull"
        )
        self._check_alarm(
            "hull_pressure", tight, limits.hull_s, now, f"{vehicle.hull_pressure_kpa or 0:.1f} kPa inside the hull"
        )

    def _check_alarm(self, code: str, bad: bool, seconds: float, now: int, text: str, *, surface: bool = False) -> None:
        """Report a reading once it has been bad for `seconds`, and again after it was good; `surface` also surfaces the
        vehicle."""
        if not bad:
            self.bad_since.pop(code, None)
            self.alarms.discard(code)
            return
        if now - self.bad_since.setdefault(code, now) < seconds * 1e9 or code in self.alarms:
            return
        self.alarms.add(code)
        self._event(now, "warning" if code == "battery_warning" else "alarm", code, text)
        if surface and self.pilot.armed and code not in self.overruled:
            self._apply_input(now, "mode", mode=Mode.SURFACE)

    def _apply_input(
        self,
        now: int,
        what: Literal["setpoint", "arm", "disarm", "stop", "mode"],
        asked_t: int = 0,
        *,
        mode: Mode | None = None,
        setpoint: Setpoint | None = None,
    ) -> str:
        """Pass a request to the pilot, and publish it for the recording; returns the reason for a refusal, or ""."""
        consumed = ConsumedInput(t=now, by="pilotd", what=what, asked_t=asked_t or now, mode=mode, setpoint=setpoint)
        self.outgoing.append(consumed)
        before = self.pilot.mode
        refused = self.pilot.apply(consumed)
        if self.pilot.mode is not before:
            self.engaged_t = now
        return refused

    def _event(self, now: int, level: str, code: str, text: str) -> None:
        assert level in ("info", "warning", "alarm")
        self.outgoing.append(Event(t=now, level=level, source="pilotd", code=code, text=text))  # type: ignore[arg-type]


def _sticks(command: Sticks, sent_t: int) -> Setpoint:
    return Setpoint(
        t=sent_t,
        frame_id=-1,
        frame_t=sent_t,
        source="operator",
        surge=command.surge,
        sway=command.sway,
        heave=command.heave,
        yaw=command.yaw,
    )
