"""The stages of `perceptiond` and `pilotd` in one process, on simulated time, with a board that always obeys."""

from __future__ import annotations

import msgspec

from rov.bus import OperatorRegistry
from rov.config import live
from rov.config.schema import Config, parse
from rov.config.timeline import ConfigTimeline
from rov.messages import (
    ActiveSettings,
    ConfigEdit,
    Detection,
    Event,
    Frame,
    Heartbeat,
    Message,
    Mode,
    Setpoint,
    Sticks,
    ThrusterCommand,
    VehicleState,
    Wrench,
)
from rov.motion.commander import Commander
from rov.motion.pilot import Pilot
from rov.motion.thrusters import load as load_curve
from rov.perception import Perception, least_score
from rov.resources import find_resource

MS = 1_000_000
S = 1_000_000_000
TICK = 20 * MS
CURVE = load_curve(find_resource("calibration/t200.toml"), 4)
CONFIG = parse(
    "[vehicle]\nmax_depth = 30.0\n[operator]\nlost_s = 1.2\n[guard]\ntilt_s = 0.4\nhull_s = 0.4\nbattery_low_s = 0.4\n"
)
GRAVITY = 9.80665


class Link:
    """A link to a board that arms at once and measures `pascal`, unless `blind`."""

    def __init__(self, config: Config):
        self.surface_pa, self.density = config.link.surface_pa, config.link.density
        self.live = self.testing = False
        self.mode = Mode.MANUAL
        self.state: VehicleState | None = None
        self.pascal: float | None = 101_325.0 + 5 * 1025.0 * GRAVITY
        self.sent: list[tuple[float, ...]] = []
        self.more: dict[str, object] = {}
        self.blind = False

    def poll(self, t: int) -> tuple[Event, ...]:
        if self.pascal is not None:
            measured = {} if self.blind else {"attitude_t": t, "depth_t": t}
            depth = (self.pascal - self.surface_pa) / (self.density * GRAVITY)
            state = self.state or VehicleState(t=t)
            self.state = msgspec.structs.replace(state, t=t, armed=self.live, depth=depth, **measured, **self.more)
        return ()

    def send(self, values: tuple[float, ...], armed: bool, t: int) -> None:
        self.live &= armed
        self.sent.append(values if self.live and armed else (0.0,) * len(values))

    def arm(self, t: int) -> str:
        self.live = True
        return ""

    def disarm(self, t: int) -> None:
        self.live = False

    def close(self, t: int) -> None:
        self.disarm(t)


class World:
    """All stages that a live key affects, composed as in the processes."""

    def __init__(self, config: Config):
        self.link = Link(config)
        self.commander = Commander(config, Pilot(config, CURVE), self.link, ("buoy_red", "buoy_green"))
        self.operators = OperatorRegistry(config.operator.lost_s)
        self.perception, self.schedule = Perception(config), ConfigTimeline(config)
        self.t, self.seq, self.frame = 1000 * S, 0, 0
        self.trace: list[object] = []
        self.events: list[str] = []
        self.last: dict[type, Message] = {}
        self.heads = (0.0, 0.0, 0.0, 0.0)
        self.beating = True

    def tune(self, config: Config) -> None:
        self.commander.handle_edit(ConfigEdit(t=self.t, settings=live.settings(config)), self.t)
        self.operators.timeout_ns = int(self.commander.config.operator.lost_s * 1e9)

    def tell(self, kind: type, **more: object) -> str:
        self.seq += 1
        command = kind(t=self.t, session="ann", seq=self.seq, **more)
        sent_t, reason = self.operators.check(command, self.t)
        return reason or self.commander.handle_command(command, sent_t, self.t)

    def see(self, *found: tuple[str, float, tuple[float, float, float, float]], age: int = 60 * MS) -> Setpoint:
        """A frame with these objects, `age` ns old when perception has processed it; returns the setpoint."""
        self.frame += 1
        frame_t = self.t - age
        self.perception.apply_config(self.schedule.at(frame_t))
        least = least_score(self.perception.config)
        items = tuple(Detection(*each) for each in found if each[1] >= least)
        frame = Frame(t=frame_t, frame_id=self.frame, frame_t=frame_t, width=640, height=480)
        _, tracks, observation, _, setpoint = self.perception.step(frame, items, self.t)
        assert setpoint is not None
        self.trace += [items, tracks.items, observation, setpoint]
        self.commander.handle_setpoint(setpoint, self.t)
        return setpoint

    def run(self, seconds: float, sticks: tuple[float, ...] | None = None) -> None:
        for _ in range(round(seconds * 50)):
            self.t += TICK
            if sticks is not None:
                self.tell(Sticks, **dict(zip(("surge", "sway", "heave", "yaw"), sticks, strict=True)))
            if self.beating and self.t % (S // 5) < TICK:
                self.tell(Heartbeat)
            for message in self.commander.step(self.operators.operator(self.t), self.t):
                self.last[type(message)] = message
                if isinstance(message, ActiveSettings):
                    self.schedule.add(message.settings, message.t)
                elif isinstance(message, Event):
                    self.events.append(message.code)
                    if message.code not in ("tuned",):
                        self.trace.append((self.t, message.code))
                elif isinstance(message, Wrench | ThrusterCommand):
                    self.trace.append(message)

    def codes(self) -> list[str]:
        events, self.events = self.events, []
        return events
