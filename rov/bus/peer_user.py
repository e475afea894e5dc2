"""Finds the user of this machine at the other end of a connection."""

from __future__ import annotations

import ipaddress
import socket
import struct
from pathlib import Path

SOCK_DIAG, SOCK_DIAG_BY_FAMILY, REQUEST = 4, 20, 1
"""sock_diag(7)."""
ANY_STATE, NO_COOKIE = 0xFFF, 0xFFFFFFFF
TABLES = {socket.AF_INET: "tcp", socket.AF_INET6: "tcp6"}


def peer_user(connection: socket.socket) -> int | None:
    """The user id of the process at the other end; None when it is on another machine, or already gone."""
    if connection.family == socket.AF_UNIX:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("iII", credentials)[1])
    try:
        theirs, ours = connection.getpeername()[:2], connection.getsockname()[:2]
    except OSError:
        return None
    if not ipaddress.ip_address(theirs[0]).is_loopback and theirs[0] != ours[0]:
        return None
    try:
        return _asked(connection.family, theirs, ours)
    except OSError:  # a kernel without sock_diag
        return _looked_up(connection.family, theirs, ours)


def _asked(family: int, theirs: tuple[str, int], ours: tuple[str, int]) -> int | None:
    """Ask the kernel for this one socket: as fast with thousands of sockets."""
    name = struct.pack("!HH", theirs[1], ours[1]) + _packed(family, theirs[0]) + _packed(family, ours[0])
    kind = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, ANY_STATE)
    request = kind + name + struct.pack("=III", 0, NO_COOKIE, NO_COOKIE)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG) as kernel:
        kernel.settimeout(0.1)
        kernel.send(struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, REQUEST, 0, 0) + request)
        answer = kernel.recv(4096)
    if struct.unpack_from("=IH", answer)[1] != SOCK_DIAG_BY_FAMILY:
        code = -struct.unpack_from("=i", answer, 16)[0]
        if code != 2:  # ENOENT: the socket no longer exists
            raise OSError(code, "sock_diag")
        return None
    user, inode = struct.unpack_from("=II", answer, 16 + 64)
    return int(user) if inode else None  # a closed socket has no owner; its user 0 is not root


def _looked_up(family: int, theirs: tuple[str, int], ours: tuple[str, int]) -> int | None:
    """Search the kernel's table of all sockets."""
    wanted = [f"{_hex(family, host)}:{port:04X}" for host, port in (theirs, ours)]
    for line in Path(f"/proc/net/{TABLES[socket.AddressFamily(family)]}").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == wanted:
            return int(fields[7]) if int(fields[9]) else None
    return None


def _packed(family: int, host: str) -> bytes:
    return socket.inet_pton(family, host).ljust(16, b"\0")


def _hex(family: int, host: str) -> str:
    """An address as written in the table: words of 32 bits in the machine's byte order."""
    data = socket.inet_pton(family, host)
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(data) // 4}I", data))
