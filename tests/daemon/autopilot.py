"""A vehicle with a simulated ArduSub and a pilot at its ground station, behind a real but possibly faulty connection.

The other end is the real `pilotd` alone, or a whole daemon. Both ends share this machine's monotonic clock, ns.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import tomli_w

from rov.bus import Entry, inbox
from rov.config.schema import load
from rov.link.ardusub.firmware import MANUAL, STABILIZE, rc_of
from rov.link.ardusub.link import SET_MODE
from rov.link.mavlink import Parser
from rov.link.mavlink_link import ARM_DISARM
from rov.messages import Event, PilotStatus
from sim.ardusub import NEUTRAL, Autopilot, GroundStation, PtyEnd, Stick, TcpEnd, UdpEnd
from sim.wire import NoisyWire
from tests.daemon.harness import GRACE, MS, START_S, Daemon, Operator, environment, free_port, newest_first

OURS = 191
TICK, S = 20 * MS, 1000 * MS
STATUS = 200 * MS
"""Interval between status messages of pilotd."""


class Rover:
    """The autopilot, its ground station and the connection to them, in a thread."""

    def __init__(self, kind: str, folder: Path):
        """`kind`: tcp, udp or pty."""
        folder.mkdir(parents=True, exist_ok=True)
        self.kind = kind
        self.end: TcpEnd | UdpEnd | PtyEnd
        match kind:
            case "tcp":
                self.end = TcpEnd()
                self.url = self.end.url
            case "udp":
                port = free_port()
                self.end, self.url = UdpEnd(port), f"udp:127.0.0.1:{port}"
            case _:
                self.end = PtyEnd(folder / "ardusub")
                self.url = self.end.url
        self.autopilot, self.station = Autopilot(), GroundStation()
        self.up, self.down, self.parser = NoisyWire(), NoisyWire(), Parser()
        self.stalled = 0
        """Total delay of this thread, ns: on a busy machine it reads late what was sent in time."""
        self.closed, self.severed = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._live, daemon=True)
        self.thread.start()

    def _live(self) -> None:
        last = time.monotonic_ns()
        while not self.closed.wait(0.01):
            last, gap = time.monotonic_ns(), time.monotonic_ns() - last
            self.stalled += max(0, gap - TICK)
            t = time.monotonic_ns()
            if self.severed.is_set():
                self._sever()
                self.severed.clear()
            sent = [bytes(frame.message.get_msgbuf()) for frame in self.parser.feed(self.end.read())]
            out = self.autopilot.step(t, {"rov": self.up.carry(sent, t), "gcs": self.station.step(t)})
            self.end.write(self.down.carry(out["rov"], t))

    def sticks(self, since: int = 0) -> list[Stick]:
        """Sticks of rov that the autopilot accepted."""
        recent = itertools.takewhile(lambda stick: stick.t >= since, newest_first(self.autopilot.taken))
        return [stick for stick in recent if stick.component == OURS][::-1]

    def rests(self) -> bool:
        """Whether nobody but the pilot moves the vehicle."""
        pilot, gain = self.station.sticks, self.autopilot.gain
        pilots = NEUTRAL if pilot is None else rc_of(*pilot, gain, self.autopilot.parameters["JS_THR_GAIN"])
        return not self.autopilot.armed or self.autopilot.rc in (NEUTRAL, pilots)

    def within(self, seconds: float, done: Callable[[], bool]) -> None:
        """Wait until `done`, at most `seconds` plus the delays of the autopilot's thread."""
        end, stalled = time.monotonic_ns() + int(seconds * S) + GRACE, self.stalled
        while not done():
            late = time.monotonic_ns() - end - (self.stalled - stalled)
            last = [(time.monotonic_ns() - stick.t) / S for stick in self.sticks()[-1:]]
            assert late < 0, (self.kind, self.autopilot.armed, self.autopilot.rc, self.autopilot.reasons[-3:], last)
            time.sleep(0.01)

    def spoil(self, line: dict[str, float]) -> None:
        """Set the faults of the connection, in both directions; unnamed ones are reset. `sever`: reconnect it once."""
        for each in (self.up, self.down):
            for name in ("delay", "drop", "repeat", "swap", "corrupt", "noise", "cut", "mute"):
                setattr(each, name, line.get(name, 0))
        if line.get("sever"):
            self.severed.set()

    def _sever(self) -> None:
        """Reconnect. Runs in the thread that reads and writes, which would else use a closed port."""
        match self.end:
            case TcpEnd():
                self.end.drop()
            case PtyEnd():
                self.end.unplug()
                self.end.plug()

    def close(self) -> None:
        self.closed.set()
        self.thread.join()
        self.end.close()


class RovEnd(Protocol):
    """The rov end: received messages and an operator."""

    operator: Operator

    @property
    def heard(self) -> list[Entry]: ...
    def close(self) -> None: ...


class PilotAlone:
    """`pilotd` alone, with the front of its command endpoint."""

    def __init__(self, rover: Rover, folder: Path):
        config = {
            "vehicle": {"max_depth": 20.0},
            "link": {"kind": "ardusub", "url": rover.url},
            "bus": {"public": f"tcp://127.0.0.1:{free_port()}", "commands": f"tcp://127.0.0.1:{free_port()}"},
        }
        path = folder / "rover.toml"
        path.write_text(tomli_w.dumps(config))
        self.reader = inbox("public", folder)
        self.heard: list[Entry] = []
        self.process, self.front = (
            subprocess.Popen([sys.executable, "-m", f"rov.{name}", path, folder], env=environment())
            for name in ("pilotd", "commandd")
        )
        self.operator = Operator(load(path).bus.commands)
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        while not self.closed.is_set():
            if self.reader.wait(50):
                self.heard += self.reader.receive(1000)

    def close(self) -> None:
        self.operator.close()
        self.process.terminate()
        self.front.terminate()
        try:
            self.process.wait(10)
            self.front.wait(10)
        finally:
            self.process.kill()
            self.front.kill()
            self.closed.set()
            self.thread.join()
            self.reader.close()


class Whole:
    """The whole of `rov run`; messages come from its public endpoint."""

    def __init__(self, rover: Rover, folder: Path):
        self.daemon = Daemon(folder, link={"kind": "ardusub", "url": rover.url})
        self.operator = self.daemon.operator()

    @property
    def heard(self) -> list[Entry]:
        return self.daemon.heard

    def close(self) -> None:
        self.daemon.close()


class Trouble(NamedTuple):
    """Faults of the connection while the pilot takes over."""

    line: dict[str, float]
    seen_s: float
    """Longest time from the pilot's act to the last stick of rov: the delay both ways, and so many heartbeats that all
    of them are lost in only one of 10,000 rounds (3 in 10 are lost by damage, else 2 in 10)."""
    losses: tuple[str, ...] = ()
    """Events of which one must be published for the fault; none: the event is that of the pilot's act."""


BEAT_S, SHOWN_S = 0.2, 0.06
"""Interval of the autopilot's heartbeats, which show a change; the ticks of both ends."""
TROUBLES = (
    Trouble({"delay": 0.5}, 0.5 + 0.5 + BEAT_S + SHOWN_S),
    Trouble({"drop": 0.2}, 6 * BEAT_S + SHOWN_S),
    Trouble({"repeat": 0.5, "swap": 0.2}, 6 * BEAT_S + SHOWN_S),  # a frame that is overtaken counts as lost
    Trouble({"corrupt": 0.2, "noise": 0.3, "cut": 0.1}, 8 * BEAT_S + SHOWN_S),
    Trouble({"mute": 1}, 2.0, ("autopilot_lost",)),
    Trouble({"sever": 1}, BEAT_S + SHOWN_S, ("link_lost",)),
    Trouble({}, BEAT_S + SHOWN_S),
)
"""Faults, one per round."""
ACTS = ("pilot_sticks", "pilot_mode", "pilot_disarmed")
"""How the pilot takes over, one per round, by the event that reports it."""
SURGE = 0.2
"""The operator's stick; with a gain of 0.5 the autopilot gets x = 400."""


class Round(NamedTuple):
    """One engagement, ended by the pilot."""

    asked: int
    quiet: int
    """From then on no stick of rov may arrive."""
    codes: tuple[str, ...]
    """At least one alarm must have one of these codes."""


class Boat:
    """The vehicle and the rov end."""

    def __init__(self, rover: Rover, end: RovEnd):
        self.rover, self.end = rover, end

    def events(self, since: int) -> list[Event]:
        recent = itertools.takewhile(lambda e: e.message.t >= since - S, newest_first(self.end.heard))
        events = [e.message for e in recent if isinstance(e.message, Event) and e.message.t >= since]
        return events[::-1]

    def armed(self) -> bool:
        """Whether pilotd is armed, by its last status."""
        messages = (e.message for e in newest_first(self.end.heard))
        return next((each.armed for each in messages if isinstance(each, PilotStatus)), False)

    def ended(self, codes: tuple[str, ...], since: int, t: int) -> bool:
        """Whether one of `codes` was published after `since`, and a disarmed status after `t`."""
        status = next((e.message for e in newest_first(self.end.heard) if isinstance(e.message, PilotStatus)), None)
        disarmed = status is not None and status.t > t and not status.armed
        return disarmed and not {*codes}.isdisjoint(event.code for event in self.events(since))

    def engage(self) -> int:
        """Arm repeatedly until rov steers; returns when that was granted, ns."""
        end = time.monotonic() + START_S
        while True:
            t = time.monotonic_ns()
            self.end.operator.take_over()  # again: the heartbeat may have come too late on a busy machine
            reply = self.end.operator.arm()
            engaged_until = time.monotonic() + 5
            while reply.accepted and time.monotonic() < engaged_until:
                if any(stick.x for stick in self.rover.sticks(t)):
                    return t
                time.sleep(0.02)
            assert time.monotonic() < end, f"{self.rover.kind}: {reply.reason} {[e.text for e in self.events(t)]}"
            time.sleep(0.1)

    def round(self, n: int) -> Round:
        """Engage; the pilot takes over on a faulty connection, and hands back. Every second cycle of TROUBLES the fault
        begins before the engagement, except a delay: with a state half a second old nothing is armed."""
        rover, (line, seen_s, losses) = self.rover, TROUBLES[n % len(TROUBLES)]
        asked, bad_before = time.monotonic_ns(), n // len(TROUBLES) % 2 == 1 and not losses and "delay" not in line
        if bad_before:
            rover.spoil(line)
        engaged, before = self.engage(), len(rover.autopilot.reasons)
        if not bad_before:
            rover.spoil(line)
        time.sleep(0.3)
        act, stalled = time.monotonic_ns(), rover.stalled
        match n % len(ACTS):
            case 0:
                rover.station.sticks = (0, 300, 500, 0)
            case 1:
                other = STABILIZE if rover.autopilot.mode != STABILIZE else MANUAL
                rover.station.command(SET_MODE, 1.0, float(other))
            case _:
                rover.station.command(ARM_DISARM, 0.0)
        codes = losses if losses and rover.kind != "udp" or "mute" in line else (ACTS[n % len(ACTS)],)
        if "delay" in line:
            codes += ("pilot_disarmed", "vehicle_lost")  # its start is a gap of 0.5 s, the limit of both ends
        if "cut" in line:
            codes += ("pilot_disarmed", "vehicle_lost")  # a broken frame swallows up to a dozen sticks: the same
        if {"drop", "cut"} & {*line, *TROUBLES[n % len(TROUBLES) - 1].line}:
            codes += ("gcs_lost",)  # three heartbeats of the ground station in a row may be lost

        def due() -> tuple[str, ...]:
            """The codes; where sticks were lost for 0.5 s the autopilot may have disarmed before the pilot acted."""
            own = rover.autopilot.reasons[before : before + 1] == ["disarmed: pilot input"]
            return (*codes, "pilot_disarmed", "vehicle_lost") if own else codes

        rover.within(seen_s + STATUS / S, lambda: self.ended(due(), engaged, act))
        # Sticks may arrive later by the delay or, out of order, after the next heartbeat of rov.
        late_s = 1.0 if "swap" in line else line.get("delay", 0.0)
        quiet = time.monotonic_ns() + int(late_s * S) + GRACE + rover.stalled - stalled
        rover.within(late_s + 0.5, rover.rests)  # FS_PILOT_TIMEOUT
        rover.spoil({})
        while time.monotonic_ns() < quiet:  # sticks on their way arrive
            time.sleep(0.01)
        rover.station.sticks = None  # the pilot hands back by silence
        return Round(asked, quiet, due())


def taken_over(boat: Boat, times: int, seconds: float) -> list[Round]:
    """The pilot takes over and hands back, at least `times` and for `seconds`; asserts that nothing else moved the
    vehicle."""
    boat.end.operator.sticks = {"surge": SURGE}
    end, turns = time.monotonic() + seconds, list[Round]()
    while len(turns) < times or time.monotonic() < end:
        turns.append(boat.round(len(turns)))
    for stick in boat.rover.sticks():
        assert any(turn.asked <= stick.t <= turn.quiet for turn in turns), (boat.rover.kind, stick)
        assert 0 <= stick.x <= 401 and stick[3:] == (0, 500, 0), (boat.rover.kind, stick)
    return turns


def assert_reported(turns: list[Round], events: list[Event]) -> None:
    """Assert that each end of control was reported with the right alarm before the next round."""
    alarms = [event for event in events if event.level == "alarm"]
    for turn, following in itertools.zip_longest(turns, turns[1:]):
        until = following.asked if following else time.monotonic_ns()
        codes = [event.code for event in alarms if turn.asked <= event.t < until]
        assert set(turn.codes) & set(codes), (codes, turn)
