"""Measures a whole live daemon, with a video as camera and the simulated board: `python -m sim soak clip.mp4`.

The daemon is armed in `follow` all the time, and records. It is measured from outside: by a subscriber, at the port
(`sim.port_write_times`), at the board, in /proc. Progress is printed once a minute; Ctrl-C ends it early, with the
table so far. `--seconds 1800` shows whether memory stays flat.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import tomli_w
from numpy.typing import NDArray

from rov.bus import Endpoints
from rov.bus.client import Client
from rov.bus.session import NoAnswer
from rov.errors import UserError
from rov.messages import (
    Arm,
    Command,
    Detections,
    Event,
    Message,
    Mode,
    PilotStatus,
    SetMode,
    Setpoint,
    TakeOver,
    ThrusterCommand,
)
from rov.resources import checkout

SESSION = "soak"
PROCESSES = ("run", "pilotd", "commandd", "publicd", "camerad", "perceptiond", "recorderd", "hostd")
LISTEN_S = 0.02
SAMPLE_S = 5.0
"""Interval between samples of /proc."""
REPORT_S = 60.0
SHORT_S = 600.0
"""A shorter run says nothing about the memory of a day."""
DAY_H, GROWTH = 8.0, 0.1
"""Memory is flat when a working day at its slope would add less than this share."""
PARTS = 6
"""Dives in a run: the index of a dive is in memory until it ends, and must be freed then. Growth until the first one
ends is no leak: buffers fill, the allocator settles."""
PERIOD_NS = 20_000_000

Stamps = NDArray[np.int64]


class Use(NamedTuple):
    """Resources of a process at one time, `t` in s."""

    t: float
    pid: int
    cpu_s: float
    rss_mb: float
    files: int


class Notes:
    """The numbers kept of the messages received: no more, so that hours of them fit into memory."""

    def __init__(self) -> None:
        self.commands, self.command_frames = array("q"), array("q")
        """`t` and `frame_t` of each ThrusterCommand; below, the same of Setpoint and Detections."""
        self.setpoints, self.setpoint_frames = array("q"), array("q")
        self.detections, self.detection_frames, self.network_ms = array("q"), array("q"), array("d")
        self.writes, self.arrivals, self.arrived_us = array("q"), array("q"), array("q")
        """Times of writes to the port (ns); times of commands at the board (ns), and their stamps (µs)."""
        self.events: Counter[str] = Counter()
        self.left = 0
        """Number of status reports with another mode than `follow`."""
        self.use: dict[str, list[Use]] = {}

    def receive(self, message: Message) -> None:
        match message:
            case ThrusterCommand():
                self.commands.append(message.t)
                self.command_frames.append(message.frame_t)
            case Setpoint():
                self.setpoints.append(message.t)
                self.setpoint_frames.append(message.frame_t)
            case Detections():
                self.detections.append(message.t)
                self.detection_frames.append(message.frame_t)
                self.network_ms.append(message.network_ms)
            case Event():
                self.events[message.code] += 1
            case PilotStatus():
                self.left += message.mode is not Mode.FOLLOW


class Soak:
    """The daemon and its board, with a subscriber and an operator."""

    def __init__(self, folder: Path, video: Path, rate_hz: float, part_s: float):
        port = folder / "board"
        applied, written = folder / "board.jsonl", folder / "written"
        self.started: list[subprocess.Popen[bytes]] = []
        board = self._start("sim", "board", "--link", str(port), "--record", str(applied), stdout=subprocess.PIPE)
        assert board.stdout is not None
        board.stdout.readline()
        with written.open("w") as out:
            self._start("sim", "port-write-times", str(port), stdout=out)
        public, commands = (f"tcp://127.0.0.1:{_free_port()}" for _ in range(2))
        config = {
            "camera": {"source": f"loop:{video.absolute()}"},
            "perception": {"rate_hz": rate_hz},
            "vehicle": {"max_depth": 50.0},
            "link": {"port": str(port)},
            "bus": {"public": public, "commands": commands},
            "recording": {"folder": str(folder / "dives"), "part_minutes": part_s / 60},
        }
        (folder / "rover.toml").write_text(tomli_w.dumps(config))
        self.client = Client(Endpoints(public, commands), session=SESSION)
        self.inbox = self.client.session.inbox((), lambda: None)
        self.notes = Notes()
        self.status: PilotStatus | None = None
        self.applied, self.written = applied.open(), written.open()
        self.asked_t = 0.0
        self.began = time.monotonic_ns()
        self.daemon = self._start("rov", "run", str(folder / "rover.toml"), cwd=folder)

    def _start(self, module: str, *arguments: str, cwd: Path | None = None, stdout: Any = None) -> Any:
        command = [sys.executable, "-m", module, *arguments]
        env = os.environ | {"PYTHONPATH": str(checkout())}
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=stdout,
            cwd=cwd or checkout(),
            env=env,
            start_new_session=True,  # Ctrl-C reaches only this process: the daemon must end before its board
        )
        self.started.append(process)
        return process

    def listen(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Receive messages; True once `until` is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.client.sleep(LISTEN_S)
            for entry in self.inbox.take():
                self.notes.receive(entry.message)
                if isinstance(entry.message, PilotStatus):
                    self.status = entry.message
            if until():
                return True
        return False

    def accepted(self, kind: type[Command], **fields: object) -> bool:
        """Send a command; whether it was accepted."""
        try:
            return self.client.ask(kind, **fields).accepted
        except NoAnswer:
            return False

    def until(self, ask: Callable[[], bool], what: str) -> int:
        """Repeat `ask` until it is granted; returns when, ns. Raises UserError after 60 s."""
        if not self.listen(60.0, ask):
            raise UserError(f"never {what}; its events: {dict(self.notes.events)}")
        return time.monotonic_ns()

    def engage(self) -> bool:
        """Ask for `follow` again, as an operator would, where a busy machine was too slow for it. Always False."""
        if self.status is not None and self.status.mode is not Mode.FOLLOW and time.monotonic() - self.asked_t > 1.0:
            self.asked_t = time.monotonic()
            self.client.session.ask(SetMode, {"mode": Mode.FOLLOW})
        return False

    def measure(self) -> None:
        """Sample the processes' resources, and read what reached the port and the board."""
        pids = {"run": self.daemon.pid}
        for path in Path("/proc").iterdir():
            try:
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                words = (path / "cmdline").read_text().split("\0")
            except (OSError, ValueError):
                continue
            if parent == self.daemon.pid:
                pids |= {name: int(path.name) for name in PROCESSES if f"rov.{name}" in words}
        for name, pid in pids.items():
            try:
                self.notes.use.setdefault(name, []).append(_use(pid))
            except OSError:
                continue  # it ended a moment ago
        self.notes.writes.extend(map(int, _lines(self.written)))
        for line in _lines(self.applied):
            command = json.loads(line)
            if command["because"] == "command":
                self.notes.arrivals.append(command["t"])
                self.notes.arrived_us.append(command["sent_us"])

    def close(self) -> int:
        """End the daemon first, then its board; returns the daemon's exit code."""
        self.daemon.send_signal(signal.SIGINT)
        code: int = self.daemon.wait(20)
        for process in self.started[:-1]:
            process.terminate()
        for process in self.started:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        for each in (self.client, self.applied, self.written):
            each.close()
        return code


def soak(video: Path, seconds: float, rate_hz: float, report: Callable[[str], None]) -> tuple[dict[str, Any], bool]:
    """Run a daemon and measure it; returns the figures, and whether Ctrl-C interrupted it. All times are on the
    monotonic clock, which the processes share. Raises UserError where it does not get to `follow`."""
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        run = Soak(Path(name), video, rate_hz, seconds / PARTS)
        code, start, ready = -1, 0, 0
        try:
            ready = run.until(lambda: run.accepted(TakeOver) and run.accepted(Arm), "ready to arm")
            run.until(lambda: bool(run.notes.events["armed"]), "armed")
            run.until(lambda: run.accepted(SetMode, mode=Mode.FOLLOW), "in follow")
            engaged = run.until(
                lambda: run.status is not None and run.status.mode is Mode.FOLLOW, "reported to be in follow"
            )
            run.measure()
            events, run.notes, start = run.notes.events, Notes(), engaged
            reported = began = time.monotonic()
            while time.monotonic() - began < seconds:
                run.listen(min(SAMPLE_S, seconds), run.engage)
                run.measure()
                if time.monotonic() - reported > REPORT_S:
                    reported = time.monotonic()
                    report(progress(run.notes, start, time.monotonic_ns()))
        except KeyboardInterrupt:
            interrupted = True
            if not start:
                raise
        finally:
            if start:
                run.measure()
            end = time.monotonic_ns()
            code = run.close()
        about = {"exit": code, "ready_to_arm_s": round((ready - run.began) / 1e9, 2), "events_before": dict(events)}
        return about | figures(run.notes, start, end), interrupted


def progress(notes: Notes, start: int, now: int) -> str:
    """One line: the last minute's rates and jitter, and what each process takes."""
    since = max(start, now - int(REPORT_S * 1e9))
    took = (now - since) / 1e9
    writes, ticks = (_during(each, since, now) for each in (notes.writes, notes.commands))
    seen = len(_during(notes.detections, since, now)) / took
    use = ", ".join(f"{name} {series[-1].rss_mb:.1f} MB {series[-1].files} fd" for name, series in notes.use.items())
    late = " / ".join(f"{_jitter(each).get('p99', float('nan')):.2f}" for each in (ticks, writes))
    return (
        f"{(now - start) / 60e9:5.1f} min: seen {seen:.1f} Hz, written {len(writes) / took:.1f} Hz, "
        f"jitter p99 of tick / write {late} ms; {use}"
    )


def figures(notes: Notes, start: int, end: int) -> dict[str, Any]:
    """The figures of a run from `start` to `end`, ns."""
    took = (end - start) / 1e9
    network = dict(zip(notes.detection_frames, notes.network_ms, strict=True))
    latency = [
        (t - frame) / 1e6 - network[frame]
        for t, frame in zip(notes.setpoints, notes.setpoint_frames, strict=True)
        if frame in network
    ]
    acted_t: dict[int, int] = {}
    for t, frame in zip(notes.commands, notes.command_frames, strict=True):
        acted_t.setdefault(frame, t)
    made = dict(zip(notes.setpoint_frames, notes.setpoints, strict=True))
    pairs = [(t, acted_t[frame]) for frame, t in made.items() if frame in acted_t]
    writes = np.array(notes.writes, np.int64)
    arrived = dict(zip(notes.arrived_us, notes.arrivals, strict=True))
    return {
        "seconds": round(took, 1),
        "detections_hz": round(len(_during(notes.detections, start, end)) / took, 2),
        "written_hz": round(len(_during(notes.writes, start, end)) / took, 2),
        "board_hz": round(len(_during(notes.arrivals, start, end)) / took, 2),
        "tick_jitter_ms": _jitter(_during(notes.commands, start, end)),
        "write_jitter_ms": _jitter(_during(notes.writes, start, end)),
        "board_jitter_ms": _jitter(_during(notes.arrivals, start, end)),
        "capture_to_setpoint_less_network_ms": _percentiles(np.array(latency)),
        "network_ms": _percentiles(np.array(notes.network_ms)),
        "setpoint_to_write_ms": _percentiles(
            np.array([(writes[i] - t) / 1e6 for t, tick in pairs if (i := np.searchsorted(writes, tick)) < len(writes)])
        ),
        "setpoint_to_board_ms": _percentiles(
            np.array([(arrived[tick // 1000] - t) / 1e6 for t, tick in pairs if tick // 1000 in arrived])
        ),
        "cpu_percent": {
            name: round((series[-1].cpu_s - series[0].cpu_s) / (series[-1].t - series[0].t) * 100, 1)
            for name, series in notes.use.items()
            if series[-1].t > series[0].t
        },
        "flat": {name: flatness(series) for name, series in notes.use.items()},
        "events": dict(sorted(notes.events.items())),
        "follow_all_the_time": notes.left == 0,
    }


def flatness(series: list[Use]) -> dict[str, Any]:
    """Memory and open files of one process at the start (warm), in the middle and at the end, their slopes, and the
    verdict."""
    if len({use.pid for use in series}) > 1:
        return {"verdict": "was started again"}
    took = series[-1].t - series[0].t
    warm = [use for use in series if use.t - series[0].t >= took / PARTS]
    t = np.array([use.t for use in warm]) / 3600
    answer: dict[str, Any] = {}
    steady = True
    for name, values in (("rss_mb", [use.rss_mb for use in warm]), ("files", [float(use.files) for use in warm])):
        slope = float(np.polyfit(t - t[0], values, 1)[0]) if len(warm) > 2 else 0.0
        points = [round(values[i], 1) for i in (0, len(values) // 2, -1)]
        answer[name] = {"start_middle_end": points, "per_hour": round(slope, 2) + 0.0}
        steady &= DAY_H * slope < GROWTH * points[0]
    answer["verdict"] = "too short to tell" if took < SHORT_S else "flat" if steady else "grows"
    return answer


def _during(stamps: array[int], start: int, end: int) -> Stamps:
    each = np.array(stamps, np.int64)
    return each[(each >= start) & (each <= end)]


def _jitter(stamps: Stamps) -> dict[str, float]:
    """Percentiles of the deviation of each period from 20 ms, ms."""
    return _percentiles(np.abs(np.diff(stamps) - PERIOD_NS) / 1e6)


def _percentiles(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return {}
    return {f"p{q}": round(float(np.percentile(values, q)), 3) for q in (50, 99)} | {
        "max": round(float(np.max(values)), 3)
    }


def _use(pid: int) -> Use:
    """Resources of a process now. Raises OSError when it has ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    rss = int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return Use(time.monotonic(), pid, cpu, rss, len(os.listdir(f"/proc/{pid}/fd")))


def _lines(file: TextIO) -> list[str]:
    """The whole lines added since the last call."""
    at, text = file.tell(), file.read()
    whole = text.rpartition("\n")[0]
    file.seek(at + len(whole) + bool(whole))
    return whole.splitlines()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def table(figures: dict[str, Any]) -> str:
    """Memory and files as a text table."""
    lines = [f"{'':12}{'RSS MB, start middle end':>30}{'per hour':>10}{'files':>18}{'per hour':>10}  verdict"]
    for name, each in figures["flat"].items():
        cells = ""
        for what, width in (("rss_mb", 30), ("files", 18)):
            if what in each:
                points = " ".join(f"{value:g}" for value in each[what]["start_middle_end"])
                cells += f"{points:>{width}}{each[what]['per_hour']:>+10.2f}"
        lines.append(f"{name:12}{cells or ' ' * 68}  {each['verdict']}")
    return "\n".join(lines)
