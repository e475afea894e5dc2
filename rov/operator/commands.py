"""Commands from outside: who speaks, what words ask for, and one command with its answer."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import time
from pathlib import Path
from typing import NamedTuple

from rov.bus import CommandClient, reached
from rov.bus.keys import ClientKeys, load_client
from rov.config.schema import BusConfig
from rov.errors import UserError
from rov.messages import AnyCommand, Arm, Disarm, Mode, SetMode, SetTarget, Stop, TakeOver

ANSWER_MS = 1000
DONE = {
    "arm": "begun; the board is tested first, for 0.6 s (`rov listen events pilot` tells)",
    "disarm": "done",
    "stop": "done: neutral and disarmed",
    "mode": "done",
    "target": "done",
}
DONE_ARDUSUB = DONE | {
    "arm": "begun; the autopilot is given its mode, and armed (`rov listen events pilot` tells)",
    "disarm": "done: what we steered is disarmed; while its own pilot steers nothing is sent",
    "stop": "done: what we steered is neutral and disarmed; while its own pilot steers nothing is sent",
}


class Endpoints(NamedTuple):
    """Where the daemon is, and the keys to it."""

    public: str
    commands: str
    keys: ClientKeys | None


def endpoints_of(bus: BusConfig, host: str, keys: Path | None) -> Endpoints:
    """The daemon at `host` (empty: where the configuration says). On the vehicle itself the operator's own keys are
    taken without asking. Raises UserError."""
    if keys is None and bus.keys and (Path(bus.keys) / "operator").is_dir():
        keys = Path(bus.keys) / "operator"
    host = _host(host)
    return Endpoints(reached(bus.public, host), reached(bus.commands, host), load_client(keys) if keys else None)


def _host(text: str) -> str:
    """A host's name or address as ZeroMQ wants it. Raises UserError for more than that: there are two ports."""
    with contextlib.suppress(ValueError):
        return f"[{text}]" if ipaddress.ip_address(text).version == 6 else text
    if not re.fullmatch(r"[\w.-]*|\[[\da-fA-F:.]+(%\w+)?\]", text, re.ASCII):
        raise UserError(f"--address {text}: is a host's name or address alone; the ports are those of [bus] in -c FILE")
    return text


def session_name(what: str) -> str:
    """The name of a session: whoever gives commands one by one on this machine is one operator, until it restarts."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    return f"{what}-{socket.gethostname()[:32]}-{os.getuid()}-{boot}"


def send_command(there: Endpoints, command: AnyCommand, *, displace: bool = False) -> None:
    """Send one command; for all but a stop this becomes the operator first. Raises UserError when refused."""
    client = CommandClient(there.commands, there.keys)
    try:
        if not isinstance(command, Stop):
            t = time.monotonic_ns()
            take = TakeOver(t=t, session=command.session, seq=command.seq - 1, displace=displace)
            _ask(client, take, there.commands, "; `--take-over` does it")
        _ask(client, command, there.commands)
    finally:
        client.close()


def parse(verb: str, what: str, size: float | None, who: str) -> AnyCommand:
    """The command that words ask for. Raises UserError."""
    t = time.monotonic_ns()
    seq = t  # grows from one call to the next
    if what and verb in ("arm", "disarm", "stop"):
        raise UserError(f"{verb} takes nothing more, and got {what}")
    if size is not None and verb != "target":
        raise UserError(f"--size belongs to target, not to {verb}")
    match verb:
        case "arm":
            return Arm(t=t, session=who, seq=seq)
        case "disarm":
            return Disarm(t=t, session=who, seq=seq)
        case "stop":
            return Stop(t=t, session=who, seq=seq)
        case "mode" if what in {mode.value for mode in Mode}:
            return SetMode(t=t, session=who, seq=seq, mode=Mode(what))
        case "mode":
            raise UserError(f"{what or 'nothing'}: no such mode; there are {', '.join(mode.value for mode in Mode)}")
        case "target" if what:
            return SetTarget(t=t, session=who, seq=seq, label=what, size=size)
    raise UserError(
        f"{verb} {what}".strip() + ": no such command; there are arm, disarm, stop, mode MODE, target CLASS"
    )


def _ask(client: CommandClient, command: AnyCommand, where: str, hint: str = "") -> None:
    """Send and wait for the answer. Raises UserError when there is none, or it is no."""
    answer = client.receive_reply(ANSWER_MS) if client.send(command, ANSWER_MS) else None
    if answer is None:
        raise UserError(f"{where}: no answer; is `rov run` running there, and does it know these keys (--keys)?")
    if not answer.accepted:
        raise UserError(f"refused: {answer.reason}{hint if 'asked for' in answer.reason else ''}")
