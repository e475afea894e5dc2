"""Commands from outside: a session that takes over, says one thing, and hears the answer."""

from __future__ import annotations

import secrets
import time

from rov.bus import CommandClient
from rov.errors import UserError
from rov.messages import AnyCommand, Arm, Disarm, Mode, SetMode, SetTarget, Stop, TakeOver

ANSWER_MS = 1000


def order(endpoint: str, verb: str, what: str = "") -> str:
    """Send one command, taking over first unless it is a stop. Returns what to tell; raises UserError when refused."""
    session = f"ctl-{secrets.token_hex(4)}"
    command = parse(verb, what, session)
    client = CommandClient(endpoint)
    try:
        if not isinstance(command, Stop):
            ask(client, TakeOver(t=time.monotonic_ns(), session=session, seq=1))
        ask(client, command)
    finally:
        client.close()
    return f"{verb} {what}".strip() + ": done"


def parse(verb: str, what: str, session: str) -> AnyCommand:
    """The command that words ask for. Raises UserError."""
    t = time.monotonic_ns()
    match verb:
        case "arm":
            return Arm(t=t, session=session, seq=2)
        case "disarm":
            return Disarm(t=t, session=session, seq=2)
        case "stop":
            return Stop(t=t, session=session, seq=2)
        case "mode" if what in {mode.value for mode in Mode}:
            return SetMode(t=t, session=session, seq=2, mode=Mode(what))
        case "mode":
            raise UserError(f"{what or 'nothing'}: no such mode; there are {', '.join(mode.value for mode in Mode)}")
        case "target" if what:
            return SetTarget(t=t, session=session, seq=2, label=what)
    raise UserError(f"{verb}: no such command; there are arm, disarm, stop, mode MODE and target CLASS")


def ask(client: CommandClient, command: AnyCommand) -> None:
    """Send and wait for the answer. Raises UserError when there is none, or it is no."""
    answer = client.reply(ANSWER_MS) if client.send(command, ANSWER_MS) else None
    if answer is None:
        raise UserError("no answer; is the daemon running (`rov run`), and at this address?")
    if not answer.accepted:
        raise UserError(f"refused: {answer.reason}")
