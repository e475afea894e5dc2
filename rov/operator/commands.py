"""`rov ctl`: the daemon's endpoints, a command from its words, and one command sent and answered."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import os
import re
import socket
import time
from pathlib import Path
from typing import Any, NamedTuple

from rov.bus import CommandClient, reached
from rov.bus.keys import ClientKeys, load_client
from rov.config.schema import BusConfig
from rov.errors import UserError
from rov.messages import AnyCommand, Arm, Disarm, Mode, SetMode, SetTarget, SetTask, Stop, TakeOver

ANSWER_MS = 1000
DONE = {
    "arm": "begun; the board is tested first, for 0.6 s (`rov listen events pilot` shows it)",
    "disarm": "done",
    "stop": "done: neutral and disarmed",
    "mode": "done",
    "target": "done",
    "task": "set; its setpoints move nothing until `rov ctl mode policy`, 3 s from now or later",
}
DONE_ARDUSUB = DONE | {
    "arm": "begun; the autopilot is set to its mode, then armed (`rov listen events pilot` shows it)",
    "disarm": "done: disarmed if rov was steering; while the vehicle's own pilot steers, rov sends nothing",
    "stop": "done: neutral and disarmed if rov was steering; while the vehicle's own pilot steers, rov sends nothing",
}


TASK_OPTIONS: dict[str, set[str]] = {
    "none": set(),
    "transit": {"heading", "depth"},
    "follow": {"label", "distance"},
    "inspect": {"heading", "height"},
    "station": set(),
}
"""The options of each task."""


class Endpoints(NamedTuple):
    """The daemon's two addresses, and the client's keys (None: without)."""

    public: str
    commands: str
    keys: ClientKeys | None


def endpoints_of(bus: BusConfig, host: str, keys: Path | None) -> Endpoints:
    """The daemon at `host`; empty: at the address in the configuration. Without `keys`, the `operator` keys in the
    configured folder are used, if they are there. Raises UserError."""
    if keys is None and bus.keys and (Path(bus.keys) / "operator").is_dir():
        keys = Path(bus.keys) / "operator"
    host = _host(host)
    return Endpoints(reached(bus.public, host), reached(bus.commands, host), load_client(keys) if keys else None)


def _host(text: str) -> str:
    """A host's name or address as ZeroMQ wants it. Raises UserError for anything more, such as a port."""
    with contextlib.suppress(ValueError):
        return f"[{text}]" if ipaddress.ip_address(text).version == 6 else text
    if not re.fullmatch(r"[\w.-]*|\[[\da-fA-F:.]+(%\w+)?\]", text, re.ASCII):
        raise UserError(
            f"--address {text}: must be a host's name or address alone; the ports are those of [bus] in -c FILE"
        )
    return text


def session_name(what: str) -> str:
    """The name of a session. All `rov ctl` calls of one user on this machine share one session until it reboots."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    return f"{what}-{socket.gethostname()[:32]}-{os.getuid()}-{boot}"


def send_command(endpoints: Endpoints, command: AnyCommand, *, displace: bool = False) -> None:
    """Send one command. Unless it is a stop, this session becomes the operator first. Raises UserError when refused."""
    client = CommandClient(endpoints.commands, endpoints.keys)
    try:
        if not isinstance(command, Stop):
            t = time.monotonic_ns()
            take = TakeOver(t=t, session=command.session, seq=command.seq - 1, displace=displace)
            _ask(client, take, endpoints.commands, "; `--take-over` does it")
        _ask(client, command, endpoints.commands)
    finally:
        client.close()


class TaskOptions(NamedTuple):
    """The options of `rov ctl task`: degrees and m; None: not given."""

    label: str = ""
    heading: float | None = None
    depth: float | None = None
    distance: float | None = None
    height: float | None = None


NO_OPTIONS = TaskOptions()


def parse(verb: str, what: str, size: float | None, session: str, options: TaskOptions = NO_OPTIONS) -> AnyCommand:
    """The command for a verb, its argument and its options. Raises UserError."""
    t = time.monotonic_ns()
    seq = t  # grows from one call to the next
    if verb == "task":
        return _task(what, options, t, session)
    if options != NO_OPTIONS:
        raise UserError(f"{verb}: a second word, --heading, --depth, --distance and --height belong to task")
    if what and verb in ("arm", "disarm", "stop"):
        raise UserError(f"{verb} takes no argument, and got {what}")
    if size is not None and verb != "target":
        raise UserError(f"--size belongs to target, not to {verb}")
    match verb:
        case "arm":
            return Arm(t=t, session=session, seq=seq)
        case "disarm":
            return Disarm(t=t, session=session, seq=seq)
        case "stop":
            return Stop(t=t, session=session, seq=seq)
        case "mode" if what in {mode.value for mode in Mode}:
            return SetMode(t=t, session=session, seq=seq, mode=Mode(what))
        case "mode":
            raise UserError(f"{what or 'nothing'}: no such mode; there are {', '.join(mode.value for mode in Mode)}")
        case "target" if what:
            return SetTarget(t=t, session=session, seq=seq, label=what, size=size)
    raise UserError(
        f"{verb} {what}".strip() + ": no such command; there are arm, disarm, stop, mode MODE, target CLASS, task TASK"
    )


def _task(name: str, options: TaskOptions, t: int, session: str) -> SetTask:
    """The command for a task. Raises UserError."""
    if name not in TASK_OPTIONS:
        raise UserError(f"{name or 'nothing'}: no such task; there are {', '.join(TASK_OPTIONS)}")
    given = {option for option in TaskOptions._fields if getattr(options, option) not in (None, "")}
    if wrong := sorted(given - TASK_OPTIONS[name]):
        belongs = " or ".join(each for each, its in TASK_OPTIONS.items() if wrong[0] in its)
        raise UserError(f"{'a class' if wrong[0] == 'label' else '--' + wrong[0]} belongs to {belongs}, not to {name}")
    task: Any = name
    return SetTask(
        t=t,
        session=session,
        seq=t,
        task=task,
        label=options.label,
        heading=None if options.heading is None else math.radians(options.heading),
        depth=options.depth,
        distance=options.distance,
        height=options.height,
    )


def _ask(client: CommandClient, command: AnyCommand, where: str, hint: str = "") -> None:
    """Send, and wait for the answer. Raises UserError when none comes, or the command is refused."""
    answer = client.receive_reply(ANSWER_MS) if client.send(command, ANSWER_MS) else None
    if answer is None:
        raise UserError(f"{where}: no answer; is `rov run` running there, and does it know these keys (--keys)?")
    if not answer.accepted:
        raise UserError(f"refused: {answer.reason}{hint if 'asked for' in answer.reason else ''}")
