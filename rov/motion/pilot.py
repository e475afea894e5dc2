"""The pilot: setpoints and the vehicle's state in, thruster commands out, one step per tick.

Composes the control loops, allocation, the thruster curve and the guard; owns the mode and the conditions of each mode.
It has no clock and no sockets: the live process steps it on real time, a replay on recorded time, with equal results.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rov.config.schema import Config, ControlConfig
from rov.messages import (
    FROM_FRAMES,
    FUTURE_NS,
    ConsumedInput,
    Event,
    Level,
    Mode,
    Setpoint,
    ThrusterCommand,
    VehicleState,
    Wrench,
)
from rov.motion.allocation import allocate, controllable_axes, effect
from rov.motion.controllers import DEAD_BAND, LoopMemory, LoopState, differentiate, initial_memory, step_loops
from rov.motion.guard import STEP_MAX_S, Guard, GuardResult
from rov.motion.thrusters import Curve

DEPTH_MIN, DEPTH_MAX = -2.0, 12_000.0
"""Limits of plausible depths in m: the deepest sea is 10,935 m, and the weather shifts the surface by 0.6 m (a mountain
lake shifts it more: set link.surface_pa)."""
ANGLE_MAX, RATE_MAX = 7.0, 50.0
"""Limits of plausible angles (rad, a full turn) and rates (rad/s, eight turns a second)."""
DEPTH_GAP_S = 1.0
"""Depths further apart than this, in s, give no rate."""
GAIN_CHANGE_NS = 1_000_000_000
"""Changed gains of the inner loops reach their new values over this time, so that the effort does not jump."""
SURFACE_EFFORT = 0.5
"""Upward effort of `surface`; fades over the last metre, as ArduSub's SURFACE_MAX_THR does."""
SURFACE_LEVEL = (1.0 - SURFACE_EFFORT) / 2
"""Largest effort of roll and of pitch while surfacing: the upward effort stays whole beside both."""

SOURCE = {Mode.MANUAL: "operator", Mode.HOLD: "operator", Mode.FOLLOW: "steer", Mode.POLICY: "policy"}
"""The source of the setpoints that move the vehicle in a mode."""
AXES_DOWN = (0.0, 0.0, 1.0, 0.0)
"""How much surge, sway, heave and yaw push down: they are the outputs where an autopilot allocates."""
CLOSED_LOOP = (Mode.HOLD, Mode.FOLLOW, Mode.POLICY)
"""Modes that need depth and attitude."""

CONDITIONS: dict[str, tuple[Level, str]] = {
    "setpoint_stale": ("warning", "no fresh setpoint for this mode: it moves nothing"),
    "setpoint_bad": ("warning", "a setpoint was not finite, or from the future: it moves nothing"),
    "frame_old": ("warning", "a setpoint came from a frame that was too old when it was made: it moves nothing"),
    "vehicle_lost": ("alarm", "nothing is heard from the vehicle: neutral"),
    "attitude_lost": ("warning", "attitude is unknown or old"),
    "depth_lost": ("warning", "depth is unknown or old"),
    "bad_output": ("alarm", "the computed output was not finite or of the wrong shape: neutral"),
    "too_deep": ("warning", "below vehicle.max_depth: only upward"),
    "tilted": ("alarm", "tilted beyond guard.tilt_deg for guard.tilt_s: neutral and disarmed"),
}
"""Conditions that last. Each gives one event when it begins, and one (info, code + `_over`) when it has been over for
OVER_NS: a condition that comes and goes with every frame is reported once."""
OVER_NS = 1_000_000_000
STOP_REPORTED_NS = 1_000_000_000
"""A stop that changes nothing is reported at most this often."""


class PilotOutput(NamedTuple):
    """The result of one step."""

    wrench: Wrench
    thrusters: ThrusterCommand
    events: tuple[Event, ...]


class Pilot:
    """Modes, arming and the path from a setpoint to the thrusters. Starts disarmed, in `manual`.

    `vehicle_expected=False` is for the replay of a plain video only: there is no vehicle, so no state can be missing
    and no loop can run. Every mode is then open loop, and stale setpoints give neutral.
    """

    def __init__(self, config: Config, curve: Curve, *, vehicle_expected: bool = True):
        self.config = config
        self.curve = curve
        self.vehicle_expected = vehicle_expected
        self.frame = config.vehicle.frame
        self.controlled_axes = np.array(controllable_axes(self.frame), dtype=np.float64)
        self.autopilot = config.link.kind == "ardusub"
        """Does an autopilot hold depth and heading? Then the outputs are axes, and our loops are off."""
        down = AXES_DOWN if self.autopilot else effect(self.frame)[2]
        self.guard = Guard(config.guard, config.vehicle.max_depth, down, None if self.autopilot else curve)
        self.mode = Mode.MANUAL
        self.refused = ""
        """Why the last arming or mode was refused; empty when it was accepted."""
        self.t: int | None = None
        self.stopped_t: int | None = None
        self.stop_reported_t: int | None = None
        self.setpoints: dict[str, Setpoint] = {}
        """The newest setpoint of each source."""
        self.vehicle: VehicleState | None = None
        self.attitude_t: int | None = None
        self.depth_t: int | None = None
        self.state = LoopState(np.zeros(3), np.zeros(3), np.zeros(()), np.zeros(()))
        """The last known state."""
        self.memory: LoopMemory = initial_memory(self.state)
        self.gains = config.control
        """The gains in use: the configured ones, or between the former ones and those."""
        self.gain_change: tuple[int, ControlConfig] | None = None
        """When the gains were changed, and the former ones."""
        self.rebase = False
        """Whether the next depth is measured on another scale: the held depth shifts with it."""
        self.setpoint_faults: dict[str, str] = {}
        """Why the last setpoint of a source was rejected: a code of CONDITIONS."""
        self.unfit: dict[str, str] = {}
        """Why perception says that nothing may steer by its last frames, by source."""
        self.active_conditions: dict[str, int] = {}
        """The CONDITIONS that are not over, and when each was last present."""
        self.pending: list[Event] = []

    @property
    def armed(self) -> bool:
        return self.guard.armed

    def apply_config(self, config: Config, t: int) -> None:
        """Use other live values from `t` on, without a jump. Frame, curve and rate stay as they were at the start."""
        if config.control != self.config.control:
            self.gains = self._gains_at(t)
            self.gain_change = (t, self.gains)
        self.rebase |= config.link != self.config.link
        self.config = config
        self.guard.limit(config.guard, config.vehicle.max_depth)

    # ---- requests ----------------------------------------------------------------------------------------------

    def arm(self, t: int) -> str:
        """Let the thrusters turn. `t`: when that was asked for. Returns the reason for a refusal, or ""."""
        reason = self.refusal(self.mode, t) or self._tilt_reason(t)
        was = self.armed
        self.refused = reason or self.guard.arm(t)
        if self.armed and not was:
            self._event(t, "info", "armed", f"armed in {self.mode.value}")
        return self.refused

    def disarm(self, t: int) -> None:
        """Neutral, then no thrust until armed again."""
        if self.armed:
            self._event(t, "info", "disarmed", "disarmed")
        self.guard.disarm(t)

    def stop(self, t: int) -> None:
        """Disarm at once, end the mode, and void all setpoints, mode changes and armings asked for until now."""
        changed = self.armed or self.mode is not Mode.MANUAL
        self.guard.disarm(t, "stopped")
        self.stopped_t = t if self.stopped_t is None else max(t, self.stopped_t)
        self.setpoints.clear()
        self.setpoint_faults.clear()
        self.unfit.clear()
        self.mode = Mode.MANUAL
        if changed or self.stop_reported_t is None or t - self.stop_reported_t >= STOP_REPORTED_NS:
            self.stop_reported_t = t
            what = "nothing of ours moves the vehicle" if self.autopilot else "neutral"
            self._event(t, "alarm", "stopped", f"stopped: {what} until armed again")

    def request_mode(self, mode: Mode, t: int) -> str:
        """Change the mode. `t`: when that was asked for. Returns the reason for a refusal, or ""."""
        self.refused = self.stop_refusal(t) or self.refusal(mode, t)
        if not self.refused and mode is not self.mode:
            self._change_mode(mode, t, "info", "mode", f"{mode.value}, was {self.mode.value}")
        return self.refused

    def stop_refusal(self, t: int) -> str:
        """Why a request made at `t` is void after a stop, or ""."""
        return (
            "it was asked for before the stop; ask again" if self.stopped_t is not None and t <= self.stopped_t else ""
        )

    def refusal(self, mode: Mode, t: int) -> str:
        """A sentence about what a mode lacks, or ""."""
        t = t if self.t is None else max(t, self.t)
        if reason := self._state_refusal(mode, t):
            return reason
        if mode in FROM_FRAMES and (unfit := self.unfit.get(SOURCE[mode])):
            return f"{mode.value} is not possible now: {unfit}"
        if mode in FROM_FRAMES and not self._fresh_setpoint(mode, t):
            return f"{mode.value} needs fresh setpoints from {SOURCE[mode]}; there are none"
        return ""

    def apply(self, message: ConsumedInput) -> str:
        """Carry out a request, given as the message that is recorded; returns the reason for a refusal, or ""."""
        match message.what:
            case "arm":
                return self.arm(message.asked_t)
            case "disarm":
                self.disarm(message.asked_t)
            case "stop":
                self.stop(message.asked_t)
            case "mode" if message.mode is not None:
                return self.request_mode(message.mode, message.asked_t)
            case "setpoint" if message.setpoint is not None:
                self.receive_setpoint(message.setpoint, message.t)
        return ""

    # ---- one tick ----------------------------------------------------------------------------------------------

    def step(self, setpoint: Setpoint | None, vehicle: VehicleState | None, t: int) -> PilotOutput:
        """Compute the commands at `t`, from the newest inputs. They may be given repeatedly; None: nothing new."""
        if setpoint is not None:
            self.receive_setpoint(setpoint, t)
        if vehicle is not None:
            self.receive_state(vehicle)
        dt = 0.0 if self.t is None else min(max(0, t - self.t) / 1e9, STEP_MAX_S)
        self.t = t
        self._fall_back(t)

        used = self._fresh_setpoint(self.mode, t)
        wrench, loops_on = self._compute_wrench(used, dt, t)
        conditions = self._conditions(used, t)
        because = "vehicle_lost" if "vehicle_lost" in conditions else ""
        if "setpoint_stale" in conditions and not loops_on:
            because = because or "setpoint_stale"
        guarded = self._guard_outputs(wrench, because, t)
        self._report_conditions(conditions | guarded.conditions, t)
        events, self.pending = tuple(self.pending), []
        return PilotOutput(*self._messages(wrench, guarded, used, t), events)

    def _compute_wrench(self, used: Setpoint | None, dt: float, t: int) -> tuple[NDArray[np.float64], bool]:
        """The wrench (6,) of the inner loops, on the axes that the frame has; and whether any loop is on."""
        attitude, depth = self._attitude_known(t), self._depth_known(t)
        on = self.armed and self.vehicle_expected and self.mode is not Mode.MANUAL and not self.autopilot
        loops = np.array([on and depth, on and attitude, on and attitude])
        self.gains = self._gains_at(t)
        wrench, self.memory = step_loops(
            self._sticks(used), self.state, self.memory, loops, self.gains, dt, self.config.vehicle.max_depth
        )
        if self.mode is Mode.SURFACE:  # a flooded vehicle that cannot be levelled must come up all the same
            wrench[3:5] = wrench[3:5].clip(-SURFACE_LEVEL, SURFACE_LEVEL)
        return wrench * self.controlled_axes + 0.0, bool(loops.any())  # no negative zeros in files

    def _axes(self, wrench: NDArray[np.float64]) -> NDArray[np.float64]:
        """(4,) for an autopilot. As on thrusters, 1 is all that the guard lets through, and a small stick of heave or
        yaw holds. Going up is no stick's, and takes what it takes."""
        axes = wrench[[0, 1, 2, 5]]
        if self.mode is Mode.SURFACE:
            return axes
        if self.mode in CLOSED_LOOP:
            axes[2:] = np.where(np.abs(axes[2:]) > DEAD_BAND, axes[2:], 0.0)
        return axes * self.config.guard.gain

    def _guard_outputs(self, wrench: NDArray[np.float64], because: str, t: int) -> GuardResult:
        """Allocate a wrench to the outputs, and pass them through the guard; `because`: a reason for neutral, or ""."""
        volts = None if self.vehicle is None else self.vehicle.battery_v
        if self.autopilot:
            commands = self._axes(wrench)
        else:
            commands = self.curve.command(allocate(wrench, self.frame), volts, self.config.guard.gain)
        was_armed = self.armed
        # While surfacing an autopilot levels the vehicle itself; disarmed for its tilt, the vehicle would sink.
        rights_itself = self.autopilot and self.mode is Mode.SURFACE
        guarded = self.guard.step(
            commands,
            t,
            tilt=self._tilt() if self._attitude_known(t) and not rights_itself else None,
            depth=float(self.state.depth) if self._depth_known(t) else None,
            volts=volts,
            neutral_because=because,
        )
        if was_armed and not self.armed:
            self._event(t, "warning", "disarmed", f"disarmed by the guard: {self.guard.off_because}")
        return guarded

    def _messages(
        self, wrench: NDArray[np.float64], guarded: GuardResult, used: Setpoint | None, t: int
    ) -> tuple[Wrench, ThrusterCommand]:
        """What was asked for and what was sent, with the frame that moved it."""
        frame_id, frame_t = (used.frame_id, used.frame_t) if used else (-1, t)
        surge, sway, heave, roll, pitch, yaw = wrench.tolist()
        asked = Wrench(
            t=t,
            frame_id=frame_id,
            frame_t=frame_t,
            mode=self.mode,
            surge=surge,
            sway=sway,
            heave=heave,
            roll=roll,
            pitch=pitch,
            yaw=yaw,
        )
        sent = ThrusterCommand(
            t=t,
            frame_id=frame_id,
            frame_t=frame_t,
            armed=self.armed,
            mode=self.mode,
            values=guarded.values,
            neutral_because=guarded.neutral_because,
        )
        return asked, sent

    def receive_setpoint(self, setpoint: Setpoint, t: int | None = None) -> None:
        """Take a setpoint at `t` (None: the time when it was made), if it is usable. `step` calls this with its own;
        call it for a second source in the same tick, and before a request for a mode that needs setpoints."""
        t = setpoint.t if t is None else t
        last = self.setpoints.get(setpoint.source)
        if last is not None and (setpoint.frame_t <= last.frame_t or 0 <= setpoint.frame_id == last.frame_id):
            return  # repeated, or of an older frame
        if self.stop_refusal(setpoint.t):
            return
        self.setpoint_faults.pop(setpoint.source, None)
        finite = all(map(math.isfinite, (setpoint.surge, setpoint.sway, setpoint.heave, setpoint.yaw)))
        if not finite or setpoint.frame_t > min(setpoint.t, t + FUTURE_NS):
            self.setpoint_faults[setpoint.source] = "setpoint_bad"
        elif setpoint.t - setpoint.frame_t > self.config.guard.frame_age_ms * 1e6:
            self.setpoint_faults[setpoint.source] = "frame_old"
        elif setpoint.unfit:
            self.unfit[setpoint.source] = setpoint.unfit
        else:
            self.unfit.pop(setpoint.source, None)
            self.setpoints[setpoint.source] = setpoint

    def receive_state(self, vehicle: VehicleState) -> None:
        """Take what is new and plausible from the vehicle's state. `step` calls this with its own; call it for arming
        or a mode that is requested before the first step."""
        self.vehicle = vehicle
        attitude, rates, depth, rate = self.state
        angles = (vehicle.roll, vehicle.pitch, vehicle.yaw, *vehicle.rates)
        limits = (ANGLE_MAX, ANGLE_MAX, ANGLE_MAX, RATE_MAX, RATE_MAX, RATE_MAX)
        likely = all(abs(each) <= limit for each, limit in zip(angles, limits, strict=True))
        if vehicle.attitude_t is not None and likely:  # a NaN is not
            self.attitude_t = vehicle.attitude_t
            attitude, rates = np.array(angles[:3]), np.array(angles[3:])
        believable = DEPTH_MIN <= vehicle.depth <= DEPTH_MAX  # a NaN is not, either
        if vehicle.depth_t is not None and believable and vehicle.depth_t != self.depth_t:
            dt = DEPTH_GAP_S if self.depth_t is None else (vehicle.depth_t - self.depth_t) / 1e9
            new = np.array(vehicle.depth)
            if self.rebase:
                self.memory = self.memory._replace(depth=self.memory.depth + new - depth)
            else:
                rate = differentiate(rate, depth, new, dt) if 0 < dt < DEPTH_GAP_S else np.zeros(())
            self.rebase = False
            self.depth_t, depth = vehicle.depth_t, new
        self.state = LoopState(attitude, rates, depth, rate)

    def _gains_at(self, t: int) -> ControlConfig:
        """The inner loops' gains at `t`."""
        wanted = self.config.control
        if self.gain_change is None:
            return wanted
        since, old = self.gain_change
        share = (t - since) / GAIN_CHANGE_NS
        if not 0 <= share < 1:
            self.gain_change = None
            return wanted
        mixed = {name: (1 - share) * getattr(old, name) + share * value for name, value in wanted}
        return ControlConfig.model_construct(**mixed)

    def _fall_back(self, t: int) -> None:
        """Leave a mode whose inputs are gone; only the operator re-engages it."""
        if self.mode in FROM_FRAMES and (unfit := self.unfit.get(SOURCE[self.mode])):
            text = f"{unfit}: {self.mode.value} ends in hold until engaged again"
            self._change_mode(Mode.HOLD, t, "warning", "disengaged", text)
        if self.mode in FROM_FRAMES:
            last = self.setpoints.get(SOURCE[self.mode])
            limit_s = self.config.guard.perception_gone_s
            if last is None or not _fresh(last.frame_t, t, 1e3 * limit_s):
                text = f"no usable setpoint for {limit_s:g} s: {self.mode.value} ends in hold until engaged again"
                self._change_mode(Mode.HOLD, t, "warning", "perception_gone", text)
        if self.mode in CLOSED_LOOP and (reason := self._state_refusal(self.mode, t)):
            self._change_mode(Mode.MANUAL, t, "alarm", "state_lost", f"{reason}: {self.mode.value} ends in manual")

    def _sticks(self, used: Setpoint | None) -> NDArray[np.float64]:
        """(4,) surge, sway, heave, yaw in −1..1; zero without a fresh setpoint."""
        if self.mode is Mode.SURFACE:
            known = self.t is not None and self._depth_known(self.t)
            depth = float(self.state.depth) if known else 1.0  # without a fresh depth, go up fully
            return np.array([0.0, 0.0, -SURFACE_EFFORT * min(max(depth, 0.0), 1.0), 0.0])
        if used is None:
            return np.zeros(4)
        return np.array([used.surge, used.sway, used.heave, used.yaw]).clip(-1.0, 1.0)

    # ---- what is fresh -----------------------------------------------------------------------------------------

    def _state_refusal(self, mode: Mode, t: int) -> str:
        """What a mode lacks of the vehicle's state, or "". In manual, what the vehicle has measured must be
        fresh; loops need both."""
        if not self.vehicle_expected:
            return ""
        if not self._vehicle_heard(t):
            return f"{mode.value} needs the vehicle, and nothing is heard from it"
        assert self.vehicle is not None
        for what, known, has in (
            ("attitude", self._attitude_known(t), self.vehicle.attitude_t is not None),
            ("depth", self._depth_known(t), self.vehicle.depth_t is not None),
        ):
            if not known and (mode in CLOSED_LOOP or mode is Mode.MANUAL and has):
                return f"{mode.value} needs the {what}, which is {'old or not believable' if has else 'not there'}"
        return ""

    def _vehicle_heard(self, t: int) -> bool:
        return self.vehicle is not None and _fresh(self.vehicle.t, t, self.config.guard.state_stale_ms)

    def _attitude_known(self, t: int) -> bool:
        return _fresh(self.attitude_t, t, self.config.guard.state_stale_ms)

    def _depth_known(self, t: int) -> bool:
        return _fresh(self.depth_t, t, self.config.guard.state_stale_ms)

    def _fresh_setpoint(self, mode: Mode, t: int) -> Setpoint | None:
        """The setpoint that may move the vehicle in a mode at `t`, or None."""
        last = self.setpoints.get(SOURCE.get(mode, ""))
        return last if last is not None and _fresh(last.frame_t, t, self.config.guard.setpoint_stale_ms) else None

    def _tilt(self) -> float:
        """Angle in rad between the body's down and the world's: its cosine is cos(roll) cos(pitch)."""
        roll, pitch = self.state.attitude[:2].tolist()
        return math.acos(min(max(math.cos(roll) * math.cos(pitch), -1.0), 1.0))

    def _tilt_reason(self, t: int) -> str:
        limit = self.config.guard.tilt_deg
        tilt = math.degrees(self._tilt()) if self._attitude_known(t) else 0.0
        return f"the vehicle is tilted by {tilt:.0f} degrees; arming needs less than {limit:g}" if tilt > limit else ""

    # ---- events ------------------------------------------------------------------------------------------------

    def _conditions(self, used: Setpoint | None, t: int) -> frozenset[str]:
        """Codes of the conditions that the pilot sees at `t`. In `hold` no sticks are needed."""
        found = {self.setpoint_faults[source] for source in {SOURCE.get(self.mode, "")} & self.setpoint_faults.keys()}
        if self.armed and used is None and self.mode in (Mode.MANUAL, *FROM_FRAMES):
            found.add("setpoint_stale")
        if self.vehicle is not None and self.vehicle_expected:
            if not self._vehicle_heard(t):
                found.add("vehicle_lost")
            if self.attitude_t is not None and not self._attitude_known(t):
                found.add("attitude_lost")
            if self.depth_t is not None and not self._depth_known(t):
                found.add("depth_lost")
        return frozenset(found)

    def _report_conditions(self, conditions: frozenset[str], t: int) -> None:
        """Report conditions that began, and those that have been over for OVER_NS."""
        for code in sorted(conditions - self.active_conditions.keys()):
            self._event(t, CONDITIONS[code][0], code, CONDITIONS[code][1])
        self.active_conditions |= dict.fromkeys(conditions, t)
        for code in sorted(code for code, last in self.active_conditions.items() if t - last > OVER_NS):
            self._event(t, "info", f"{code}_over", f"over: {CONDITIONS[code][1]}")
            del self.active_conditions[code]

    def _change_mode(self, mode: Mode, t: int, level: Level, code: str, text: str) -> None:
        self.mode = mode
        self._event(t, level, code, text)

    def _event(self, t: int, level: Level, code: str, text: str) -> None:
        self.pending.append(Event(t=t, level=level, source="pilot", code=code, text=text))


def _fresh(stamp: int | None, t: int, limit_ms: float) -> bool:
    """Is a stamp at most `limit_ms` old at `t`? One from the future is not."""
    return stamp is not None and -FUTURE_NS <= t - stamp <= limit_ms * 1e6
