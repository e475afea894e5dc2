"""A rover with an ArduSub autopilot, and a pilot at its ground station, at the other end of a real way that may be bad.

In front of it stands the real `pilotd` alone, or a whole daemon. Both ends share this machine's monotonic clock, ns.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

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
from tests.daemon.harness import GRACE, MS, Daemon, Operator, environment, free_port

T = TypeVar("T")
OURS = 191
TICK, S = 20 * MS, 1000 * MS
STATUS = 200 * MS
"""Between two things that pilotd says of itself."""


class Rover:
    """The autopilot, its ground station, and the way to them, in a thread."""

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
        """How long this thread was kept waiting, ns, in all: on a busy machine what was sent in time is taken late."""
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
        """Ours that the autopilot took."""
        recent = itertools.takewhile(lambda stick: stick.t >= since, newest_first(self.autopilot.taken))
        return [stick for stick in recent if stick.component == OURS][::-1]

    def rests(self) -> bool:
        """Does nothing move the vehicle but its pilot?"""
        pilot, gain = self.station.sticks, self.autopilot.gain
        his = NEUTRAL if pilot is None else rc_of(*pilot, gain, self.autopilot.parameters["JS_THR_GAIN"])
        return not self.autopilot.armed or self.autopilot.rc in (NEUTRAL, his)

    def within(self, seconds: float, done: Callable[[], bool]) -> None:
        """Wait for it, for so long at most by the time that this thread had."""
        end, stalled = time.monotonic_ns() + int(seconds * S) + GRACE, self.stalled
        while not done():
            late = time.monotonic_ns() - end - (self.stalled - stalled)
            last = [(time.monotonic_ns() - stick.t) / S for stick in self.sticks()[-1:]]
            assert late < 0, (self.kind, self.autopilot.armed, self.autopilot.rc, self.autopilot.reasons[-3:], last)
            time.sleep(0.01)

    def spoil(self, line: dict[str, float]) -> None:
        """Make the way so, both ways; what is not named is whole. `sever`: it breaks, and is there again."""
        for each in (self.up, self.down):
            for name in ("delay", "drop", "repeat", "swap", "corrupt", "noise", "cut", "mute"):
                setattr(each, name, line.get(name, 0))
        if line.get("sever"):
            self.severed.set()

    def _sever(self) -> None:
        """In the thread that reads and writes there: another one would take the port from under it."""
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


class Ours(Protocol):
    """Our side, as it is heard and commanded."""

    operator: Operator

    @property
    def heard(self) -> list[Entry]: ...
    def close(self) -> None: ...


class PilotAlone:
    """`pilotd`, and nothing around it."""

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
        self.process = subprocess.Popen([sys.executable, "-m", "rov.pilotd", path, folder], env=environment())
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
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.closed.set()
            self.thread.join()
            self.reader.close()


class Whole:
    """`rov run` with all that belongs to it; what is heard comes from its public endpoint."""

    def __init__(self, rover: Rover, folder: Path):
        self.daemon = Daemon(folder, link={"kind": "ardusub", "url": rover.url})
        self.operator = self.daemon.operator()

    @property
    def heard(self) -> list[Entry]:
        return self.daemon.heard

    def close(self) -> None:
        self.daemon.close()


class Trouble(NamedTuple):
    """What the way is like while the pilot takes over."""

    line: dict[str, float]
    seen_s: float
    """From the pilot's act until the last of our sticks may arrive: lag there and back, and as many heartbeats as do
    not get lost in a row in one of 10,000 turns (3 in 10 are lost by damage, else 2 in 10)."""
    losses: tuple[str, ...] = ()
    """Events of which one must say what broke; none: what is said is what the pilot did."""


BEAT_S, SHOWN_S = 0.2, 0.06
"""The autopilot's heartbeat, which shows a change; both ends' ticks and our own."""
TROUBLES = (
    Trouble({"delay": 0.5}, 0.5 + 0.5 + BEAT_S + SHOWN_S),
    Trouble({"drop": 0.2}, 6 * BEAT_S + SHOWN_S),
    Trouble({"repeat": 0.5, "swap": 0.2}, 6 * BEAT_S + SHOWN_S),  # what is overtaken counts as lost
    Trouble({"corrupt": 0.2, "noise": 0.3, "cut": 0.1}, 8 * BEAT_S + SHOWN_S),
    Trouble({"mute": 1}, 2.0, ("autopilot_lost",)),
    Trouble({"sever": 1}, BEAT_S + SHOWN_S, ("link_lost",)),
    Trouble({}, BEAT_S + SHOWN_S),
)
"""In turn."""
ACTS = ("pilot_sticks", "pilot_mode", "pilot_disarmed")
"""What the pilot does to take over, in turn: the event that says so."""
SURGE = 0.2
"""The operator's stick; with a gain of 0.5 the autopilot gets x = 400."""


class Turn(NamedTuple):
    """Once engaged and taken over."""

    asked: int
    quiet: int
    """From then on no stick of ours may arrive."""
    codes: tuple[str, ...]
    """One alarm must be one of these."""


class Boat:
    """A rover and our side of it."""

    def __init__(self, rover: Rover, ours: Ours):
        self.rover, self.ours = rover, ours

    def said(self, since: int) -> list[Event]:
        recent = itertools.takewhile(lambda e: e.message.t >= since - S, newest_first(self.ours.heard))
        events = [e.message for e in recent if isinstance(e.message, Event) and e.message.t >= since]
        return events[::-1]

    def armed(self) -> bool:
        """As pilotd says."""
        said = (e.message for e in newest_first(self.ours.heard))
        return next((each.armed for each in said if isinstance(each, PilotStatus)), False)

    def ended(self, codes: tuple[str, ...], since: int, t: int) -> bool:
        """Did it say after `since` why, and after `t` that it is not armed?"""
        status = next((e.message for e in newest_first(self.ours.heard) if isinstance(e.message, PilotStatus)), None)
        disarmed = status is not None and status.t > t and not status.armed
        return disarmed and not {*codes}.isdisjoint(event.code for event in self.said(since))

    def engage(self) -> int:
        """Ask until it is granted, and steers; returns when that was granted."""
        end = time.monotonic() + 20
        while True:
            t = time.monotonic_ns()
            self.ours.operator.take_over()  # again: its heartbeat may have got lost on a busy machine
            reply = self.ours.operator.arm()
            with_us = time.monotonic() + 5
            while reply.accepted and time.monotonic() < with_us:
                if any(stick.x for stick in self.rover.sticks(t)):
                    return t
                time.sleep(0.02)
            assert time.monotonic() < end, f"{self.rover.kind}: {reply.reason} {[e.text for e in self.said(t)]}"
            time.sleep(0.1)

    def turn(self, n: int) -> Turn:
        """Engage; the pilot takes over on a bad way, and hands back. Every second round the way is bad before, but for
        a lag: with a state that is half a second old nothing is armed."""
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
            codes += ("pilot_disarmed", "vehicle_lost")  # where it begins it is a gap of 0.5 s: both ends' own limit
        if "cut" in line:
            codes += ("pilot_disarmed", "vehicle_lost")  # a broken frame takes up to a dozen sticks with it: the same
        if {"drop", "cut"} & {*line, *TROUBLES[n % len(TROUBLES) - 1].line}:
            codes += ("gcs_lost",)  # three of the ground station's heartbeats in a row may be among what is lost

        def due() -> tuple[str, ...]:
            """Where sticks were lost for 0.5 s the autopilot disarmed by itself before the pilot did anything."""
            own = rover.autopilot.reasons[before : before + 1] == ["disarmed: pilot input"]
            return (*codes, "pilot_disarmed", "vehicle_lost") if own else codes

        rover.within(seen_s + STATUS / S, lambda: self.ended(due(), engaged, act))
        # What leaves may arrive so much later: by the lag, or, out of order, behind our next heartbeat.
        late_s = 1.0 if "swap" in line else line.get("delay", 0.0)
        quiet = time.monotonic_ns() + int(late_s * S) + GRACE + rover.stalled - stalled
        rover.within(late_s + 0.5, rover.rests)  # FS_PILOT_TIMEOUT
        rover.spoil({})
        while time.monotonic_ns() < quiet:  # what was under way arrives
            time.sleep(0.01)
        rover.station.sticks = None  # he hands back: silence
        return Turn(asked, quiet, due())


def newest_first(grows: Sequence[T]) -> Iterator[T]:
    """What is in there now, while others append to it."""
    for i in range(len(grows) - 1, -1, -1):
        yield grows[i]


def taken_over(boat: Boat, times: int, seconds: float) -> list[Turn]:
    """The pilot takes over and hands back, so often and for so long at least. Nothing else moved the vehicle."""
    boat.ours.operator.sticks = {"surge": SURGE}
    end, turns = time.monotonic() + seconds, list[Turn]()
    while len(turns) < times or time.monotonic() < end:
        turns.append(boat.turn(len(turns)))
    for stick in boat.rover.sticks():
        assert any(turn.asked <= stick.t <= turn.quiet for turn in turns), (boat.rover.kind, stick)
        assert 0 <= stick.x <= 401 and stick[3:] == (0, 500, 0), (boat.rover.kind, stick)
    return turns


def told(turns: list[Turn], events: list[Event]) -> None:
    """Each end of our control was said for what it was, between that turn and the next."""
    alarms = [event for event in events if event.level == "alarm"]
    for turn, following in itertools.zip_longest(turns, turns[1:]):
        until = following.asked if following else time.monotonic_ns()
        codes = [event.code for event in alarms if turn.asked <= event.t < until]
        assert set(turn.codes) & set(codes), (codes, turn)
