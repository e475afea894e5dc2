"""Endpoints, and sockets bound or connected to them. Errors are sentences, not errno values."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import zmq

from rov.bus.endpoints import is_local
from rov.errors import UserError

if TYPE_CHECKING:
    from rov.bus.keys import ClientKeys

SIOCGIFADDR = 0x8915
"""netdevice(7)."""
RECONNECT_MS = 50
"""Pause between attempts to reach a process that does not run (yet)."""

Socket: TypeAlias = zmq.Socket[bytes]
Context: TypeAlias = zmq.Context[Socket]


ALIVE = {
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 1,
    zmq.TCP_KEEPALIVE_INTVL: 1,
    zmq.TCP_KEEPALIVE_CNT: 3,
    zmq.TCP_MAXRT: 3000,
    zmq.CONNECT_TIMEOUT: 1000,
}
"""A cut tether must not leave a connection that looks alive, neither with data in flight (MAXRT) nor without
(KEEPALIVE); once it is repaired, we must not wait for the kernel's growing pauses between attempts (CONNECT_TIMEOUT).
We do not use ZeroMQ's heartbeats: its engine aborts the process when one is due on a connection that is closing."""


def permitted(endpoint: str, keys: bool) -> None:
    """Raises UserError for an endpoint that other machines could reach without keys."""
    if not keys and not is_local(endpoint):
        raise UserError(
            f"{endpoint}: would let anybody on the network steer; run `rov keys` to make keys, or bind 127.0.0.1"
        )


def address_of(endpoint: str) -> tuple[socket.AddressFamily, Any]:
    """Family and address to bind for an endpoint in ZeroMQ's notation: tcp://HOST:PORT, where `*` is every address or a
    free port and HOST may name an interface; ipc://PATH. Raises UserError."""
    scheme, _, place = endpoint.partition("://")
    host, colon, port = place.rpartition(":")
    if scheme == "ipc" and place:
        return socket.AF_UNIX, place
    if scheme != "tcp" or not colon or not (port == "*" or port.isdecimal() and int(port) < 65536):
        raise UserError(f"{endpoint}: is no endpoint to bind; write tcp://127.0.0.1:5555 or ipc:///run/rov/public")
    family = socket.AF_INET6 if "[" in host else socket.AF_INET
    host = {"*": "0.0.0.0"}.get(host, host.strip("[]"))
    try:
        return family, (_of_interface(host) or host, 0 if port == "*" else int(port))
    except OSError as error:
        raise UserError(f"{endpoint}: cannot be bound: {host}: {error.strerror}") from None


def _of_interface(name: str) -> str:
    """The IPv4 address of a network interface; empty when there is no such interface. Raises OSError."""
    if name not in [each for _, each in socket.if_nameindex()]:
        return ""
    import fcntl  # only the daemon binds, and it needs Linux

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe, SIOCGIFADDR, name.encode().ljust(256, b"\0"))
    return socket.inet_ntoa(answer[20:24])


def ipc(root: Path, name: str) -> str:
    """The daemon's internal endpoint of this name, in the directory `root`. Raises UserError."""
    path = root.absolute() / name
    if len(str(path).encode()) > 107:  # sockaddr_un; ZeroMQ itself says only "File name too long"
        raise UserError(f"{root}: the path is too long for sockets; use one of at most 80 bytes")
    return f"ipc://{path}"


def bound(context: Context | None, kind: int, endpoint: str, options: dict[zmq.SocketOption, Any]) -> Socket:
    """A bound socket, for internal endpoints. Raises UserError."""
    made = _socket(context, kind, endpoint, options)
    try:
        if endpoint.startswith("ipc://"):
            Path(endpoint.removeprefix("ipc://")).parent.mkdir(0o700, parents=True, exist_ok=True)
        made.bind(endpoint)
    except (zmq.ZMQError, OSError) as error:
        made.close(0)
        raise UserError(f"{endpoint}: cannot be bound: {error.strerror}") from None
    return made


def connected(
    context: Context | None,
    kind: int,
    endpoint: str,
    options: dict[zmq.SocketOption, Any],
    keys: ClientKeys | None = None,
) -> Socket:
    """A connected socket; the other end may start later. Raises UserError."""
    made = _socket(context, kind, endpoint, {**ALIVE, zmq.RECONNECT_IVL: RECONNECT_MS, **options})
    if keys:
        keys.apply(made)
    try:
        made.connect(endpoint)
    except zmq.ZMQError as error:
        made.close(0)
        raise UserError(f"{endpoint}: is no endpoint to connect to: {error.strerror}") from None
    return made


def _socket(context: Context | None, kind: int, endpoint: str, options: dict[zmq.SocketOption, Any]) -> Socket:
    made = (context or zmq.Context.instance()).socket(kind)
    for option, value in ({zmq.LINGER: 0, zmq.IPV6: int("[" in endpoint)} | options).items():
        made.setsockopt(option, value)  # before it is bound or connected, or some have no effect
    return made
