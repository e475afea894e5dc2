"""The live figures of a whole daemon, with a video as camera and the simulated board: `python -m sim.soak clip.mp4`.

Armed in `follow` all the time, while the recorder writes; measured from outside: by a subscriber, at the board, in
/proc. `--seconds 1800` shows whether memory stays flat.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from rov.assets import checkout
from rov.bus import CommandClient, listen
from rov.messages import (
    AnyCommand,
    Arm,
    Detections,
    Event,
    Heartbeat,
    Message,
    Mode,
    PilotStatus,
    SetMode,
    Setpoint,
    TakeOver,
    ThrusterCommand,
)

SESSION = "soak"
PROCESSES = ("run", "pilotd", "camerad", "perceptiond", "recorderd")
LOOK_S = 5.0
"""/proc is looked at this often."""


class Soak:
    """The daemon, its board, one who listens and one who commands."""

    def __init__(self, folder: Path, video: Path, rate_hz: float):
        port = folder / "board"
        self.applied = folder / "board.jsonl"
        command = [
            sys.executable,
            "-m",
            "sim.board",
            "--link",
            str(port),
            "--record",
            str(self.applied),
        ]
        self.board = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=checkout())
        assert self.board.stdout is not None
        self.board.stdout.readline()
        with contextlib.suppress(PermissionError):  # a real board has a processor to itself
            os.sched_setscheduler(self.board.pid, os.SCHED_FIFO, os.sched_param(10))
        public, commands = (f"tcp://127.0.0.1:{_free_port()}" for _ in range(2))
        config = {
            "camera": {"source": f"loop:{video.absolute()}"},
            "perception": {"rate_hz": rate_hz},
            "vehicle": {"max_depth": 50.0},
            "link": {"port": str(port)},
            "bus": {"public": public, "commands": commands},
            "recording": {"folder": str(folder / "dives")},
        }
        (folder / "rover.toml").write_text(tomli_w.dumps(config))
        self.reader, self.client, self.seq = listen(public), CommandClient(commands), 0
        self.said: dict[type[Message], list[Any]] = {
            kind: [] for kind in (Detections, Setpoint, ThrusterCommand, Event, PilotStatus)
        }
        self.beat_t = 0.0
        self.began = time.monotonic_ns()
        self.daemon = subprocess.Popen([sys.executable, "-m", "rov", "run", str(folder / "rover.toml")], cwd=folder)

    def listen(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Take in what is said, and keep the operator's heartbeat; True when `until` came true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.reader.wait(20)
            for entry in self.reader.read():
                if type(entry.message) in self.said:
                    self.said[type(entry.message)].append(entry.message)
            if time.monotonic() - self.beat_t > 1.0:
                self.beat_t = time.monotonic()
                self.say(Heartbeat)
            if until():
                return True
        return False

    def say(self, kind: type[Any], wait_ms: int = 0, **fields: Any) -> bool:
        """Send a command; with `wait_ms`, whether it was accepted."""
        self.seq += 1
        command: AnyCommand = kind(t=time.monotonic_ns(), session=SESSION, seq=self.seq, **fields)
        if not self.client.send(command, wait_ms):
            return False
        while (reply := self.client.reply(wait_ms)) is not None:
            if reply.seq == self.seq:
                return reply.accepted
        return False

    def until(self, ask: Callable[[], bool], what: str) -> int:
        """Ask until it is granted; when that was."""
        if not self.listen(60.0, ask):
            raise SystemExit(f"never {what}: {[event.text for event in self.said[Event]][-5:]}")
        return time.monotonic_ns()

    def pids(self) -> dict[str, int]:
        found = {"run": self.daemon.pid}
        for path in Path("/proc").iterdir():
            try:
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                words = (path / "cmdline").read_text().split("\0")
            except (OSError, ValueError):
                continue
            if parent == self.daemon.pid:
                found |= {name: int(path.name) for name in PROCESSES if f"rov.{name}" in words}
        return found

    def close(self) -> int:
        self.daemon.send_signal(signal.SIGINT)
        code = self.daemon.wait(20)
        self.board.terminate()
        self.board.wait()
        self.reader.close()
        self.client.close()
        return code


def soak(video: Path, seconds: float, rate_hz: float) -> dict[str, Any]:
    """Run it, and measure. All times on the monotonic clock, which the processes share."""
    with tempfile.TemporaryDirectory() as name:
        run = Soak(Path(name), video, rate_hz)
        try:
            ready = run.until(lambda: run.say(TakeOver, 50) and run.say(Arm, 50), "ready to arm")
            run.until(lambda: any(event.code == "armed" for event in run.said[Event]), "armed")
            run.until(lambda: run.say(SetMode, 50, mode=Mode.FOLLOW), "in follow")
            start = time.monotonic_ns()
            samples: list[dict[str, tuple[float, float]]] = []
            while time.monotonic_ns() - start < seconds * 1e9:
                samples.append({name: _usage(pid) for name, pid in run.pids().items()})
                run.listen(min(LOOK_S, seconds))
            samples.append({name: _usage(pid) for name, pid in run.pids().items()})
            end = time.monotonic_ns()
            warm = next(event.t for event in run.said[Event] if event.code == "warm")
        finally:
            code = run.close()
        applied = [json.loads(line) for line in run.applied.read_text().splitlines()]
        during: dict[type[Message], list[Any]] = {
            kind: [each for each in said if start <= each.t <= end] for kind, said in run.said.items()
        }
        gaps = np.diff([a["t"] for a in applied if a["because"] == "command" and start <= a["t"] <= end]) / 1e6
        arrived = {a["sent_us"]: a["t"] for a in applied if a["because"] == "command"}
        network = {seen.frame_t: seen.network_ms for seen in during[Detections]}
        thought = [(s.t - s.frame_t) / 1e6 - network[s.frame_t] for s in during[Setpoint] if s.frame_t in network]
        acted: dict[int, int] = {}
        for command in during[ThrusterCommand]:
            acted.setdefault(command.frame_t, arrived.get(command.t // 1000, 0))
        carried = [(acted[s.frame_t] - s.t) / 1e6 for s in during[Setpoint] if acted.get(s.frame_t)]
        took = (end - start) / 1e9
        return {
            "seconds": round(took, 1),
            "exit": code,
            "ready_to_arm_s": round((ready - run.began) / 1e9, 2),
            "warm_s": round((warm - run.began) / 1e9, 2),
            "detections_hz": round(len(during[Detections]) / took, 2),
            "board_hz": round(len(gaps) / took, 2),
            "board_jitter_ms": _percentiles(np.abs(gaps - 20.0)),
            "tick_jitter_ms": _percentiles(np.abs(np.diff([c.t for c in during[ThrusterCommand]]) / 1e6 - 20.0)),
            "capture_to_setpoint_less_network_ms": _percentiles(np.array(thought)),
            "network_ms": _percentiles(np.array(list(network.values()))),
            "setpoint_to_board_ms": _percentiles(np.array(carried)),
            "cpu_percent": {
                name: round((samples[-1][name][0] - samples[0][name][0]) / took * 100, 1) for name in samples[0]
            },
            "rss_mb": {name: [round(s[name][1], 1) for s in (samples[0], samples[-1])] for name in samples[0]},
            "events": sorted({event.code for event in during[Event]}),
            "follow_all_the_time": {status.mode for status in during[PilotStatus]} == {Mode.FOLLOW},
        }


def _percentiles(values: Any) -> dict[str, float]:
    if not len(values):
        return {}
    return {f"p{q}": round(float(np.percentile(values, q)), 3) for q in (50, 99)} | {
        "max": round(float(np.max(values)), 3)
    }


def _usage(pid: int) -> tuple[float, float]:
    """(processor seconds, resident MB) of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return cpu, int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sim.soak", description="Live figures of a whole daemon.")
    parser.add_argument("video", type=Path, help="the camera's picture, in a loop at its own rate")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=15.0, help="perception.rate_hz; the video needs that rate")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    figures = soak(options.video, options.seconds, options.rate)
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
