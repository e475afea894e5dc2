"""Where a daemon is reached: endpoints in ZeroMQ's notation, and the keys to them."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rov.errors import UserError

if TYPE_CHECKING:
    from rov.bus.keys import ClientKeys

PUBLIC, COMMANDS = "tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556"
"""The defaults of `[bus]`: all messages, and the commands."""


class Endpoints(NamedTuple):
    """A daemon's two addresses, and the client's keys (None: without)."""

    public: str = PUBLIC
    commands: str = COMMANDS
    keys: ClientKeys | None = None

    def at(self, host: str, keys: Path | None = None) -> Endpoints:
        """The same ports at `host` (a name or an address; empty: as they are), with the keys in the folder `keys` that
        `rov keys NAME` made. Raises UserError."""
        from rov.bus.keys import load_client

        host = host_of(host)
        known = load_client(keys) if keys else self.keys
        return Endpoints(reached(self.public, host), reached(self.commands, host), known)


def host_of(text: str) -> str:
    """A host's name or address as ZeroMQ wants it. Raises UserError for anything more, such as a port."""
    with contextlib.suppress(ValueError):
        return f"[{text}]" if ipaddress.ip_address(text).version == 6 else text
    if not re.fullmatch(r"[\w.-]*|\[[\da-fA-F:.]+(%\w+)?\]", text, re.ASCII):
        raise UserError(
            f"address {text}: must be a host's name or address alone; the ports are those of [bus] (-c FILE, Endpoints)"
        )
    return text


def reached(endpoint: str, host: str = "") -> str:
    """The endpoint to connect to for a bound one: at `host`, or at this machine if it was bound to every address."""
    match = re.fullmatch(r"(tcp://)(.+)(:\d+)", endpoint)
    if match is None:
        return endpoint
    anywhere = match[2] in ("*", "0.0.0.0", "[::]")
    return match[1] + (host or ("127.0.0.1" if anywhere else match[2])) + match[3]


def is_local(endpoint: str) -> bool:
    """Can only this machine reach an endpoint? `*`, interface names and host names other than localhost: no."""
    if endpoint.startswith(("ipc://", "inproc://")):
        return True
    match = re.fullmatch(r"tcp://(.+):(\d+|\*)", endpoint)
    host = match[1].strip("[]") if match else ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
