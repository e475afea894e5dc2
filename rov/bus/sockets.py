"""Endpoints, and sockets that are bound or connected there. What is wrong with one is a sentence, not an errno."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import zmq

from rov.bus.payload import COMMAND_BYTES
from rov.errors import UserError

if TYPE_CHECKING:
    from rov.bus.keys import ClientKeys, Gate

RECONNECT_MS = 50
"""Pause between attempts to reach a process that is not there (yet)."""

Socket: TypeAlias = zmq.Socket[bytes]
Context: TypeAlias = zmq.Context[Socket]


def public(context: Context | None, kind: int, endpoint: str, gate: Gate | None, waiting: int) -> Socket:
    """A socket that others may reach: without keys only those on this machine. Raises UserError."""
    if gate is None and not is_local(endpoint):
        raise UserError(
            f"{endpoint}: would let anybody on the network steer; run `rov keys` to make keys, or bind 127.0.0.1"
        )
    options = {
        zmq.MAXMSGSIZE: COMMAND_BYTES,
        zmq.SNDHWM: waiting,
        zmq.RCVHWM: waiting,
        # A tether that is cut must not leave a connection that looks alive.
        zmq.HEARTBEAT_IVL: 1000,
        zmq.HEARTBEAT_TIMEOUT: 3000,
    }
    return bound(context, kind, endpoint, options, gate)


def reached(endpoint: str, host: str = "") -> str:
    """The endpoint to connect to for one that was bound: at another host, or on this machine where it says `any`."""
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


def ipc(root: Path, name: str) -> str:
    """The endpoint of that name among the daemon's own. Raises UserError."""
    path = root.absolute() / name
    if len(str(path).encode()) > 107:  # sockaddr_un; ZeroMQ itself says only "File name too long"
        raise UserError(f"{root}: the path is too long for sockets; use one of at most 80 bytes")
    return f"ipc://{path}"


def bound(
    context: Context | None, kind: int, endpoint: str, options: dict[zmq.SocketOption, Any], gate: Gate | None = None
) -> Socket:
    """A socket that waits for others. Raises UserError."""
    socket = _socket(context, kind, endpoint, options)
    if gate:
        gate.guard(socket)
    try:
        if endpoint.startswith("ipc://"):
            Path(endpoint.removeprefix("ipc://")).parent.mkdir(0o700, parents=True, exist_ok=True)
        socket.bind(endpoint)
    except (zmq.ZMQError, OSError) as error:
        socket.close(0)
        raise UserError(f"{endpoint}: cannot be bound: {error.strerror}") from None
    return socket


def connected(
    context: Context | None,
    kind: int,
    endpoint: str,
    options: dict[zmq.SocketOption, Any],
    keys: ClientKeys | None = None,
) -> Socket:
    """A socket that goes to another, whether that is there already or not. Raises UserError."""
    socket = _socket(context, kind, endpoint, options | {zmq.RECONNECT_IVL: RECONNECT_MS})
    if keys:
        keys.apply(socket)
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        socket.close(0)
        raise UserError(f"{endpoint}: is no endpoint to connect to: {error.strerror}") from None
    return socket


def _socket(context: Context | None, kind: int, endpoint: str, options: dict[zmq.SocketOption, Any]) -> Socket:
    socket = (context or zmq.Context.instance()).socket(kind)
    for option, value in ({zmq.LINGER: 0, zmq.IPV6: int("[" in endpoint)} | options).items():
        socket.setsockopt(option, value)  # before it is bound or connected, or some have no effect
    return socket
