"""Transports to the vehicle: a serial port, TCP or UDP, named by a URL. None of them ever blocks.

serial:/dev/ttyACM0:115200    tcp:127.0.0.1:5760    udp:0.0.0.0:14550 (listens)    udpout:192.168.2.2:14550
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import select
import socket
import struct
import termios
import time
from typing import Any, Literal, Protocol

import serial
from pymavlink.dialects.v20 import common

from rov.errors import UserError
from rov.link.mavlink import Parser

DATAGRAM = 65536
READ_MAX, DATAGRAMS_MAX = 16_384, 1000
"""Bytes and datagrams read per poll of a socket: at 50 Hz 800 kB a second. The rest waits for the next poll."""
CANDIDATES_MAX = 8
"""Most UDP senders whose datagrams are searched for a frame of an autopilot."""
DRAIN_S = 0.5
"""A TCP connection closed on purpose waits this long for the other end to read everything."""
SERIAL_MAX = 4096
"""Bytes read per poll of a serial port: at 50 Hz twice what 921,600 baud carries."""
QUEUE_MAX = 2000
"""Most bytes that may wait in the kernel to be sent: 1 s of sticks. Older commands must not take effect."""
OPEN_FAILURES = {
    errno.ENOENT: "no such port",
    errno.EACCES: "may not be opened; is the user in the group dialout?",
    errno.EBUSY: "another program has it",
    errno.EAGAIN: "another program has it locked",
}
URL = r"^(serial:[^:]+:\d+|(tcp|udp|udpout):[^:]+:\d+)$"


class Transport(Protocol):
    """The port of a link. All methods but `open` may raise OSError when the other end is gone."""

    path: str
    unsent: bytes
    """The rest of what the kernel took only in part."""

    @property
    def is_open(self) -> bool: ...
    def open(self) -> str: ...
    def read(self) -> bytes: ...
    def write(self, data: bytes) -> bool: ...
    def discard(self) -> None: ...
    def close(self) -> None: ...


class SerialTransport:
    """A serial port that never blocks. All methods but `open` may raise OSError when the device is gone."""

    def __init__(self, path: str, baud: int, key: str = "link.url"):
        """`key`: the configuration key of the path, for messages."""
        self.path, self.key = path, key
        self.baud = baud
        self.serial: serial.Serial | None = None
        self.unsent = b""
        """The rest of what the kernel took only in part."""

    @property
    def is_open(self) -> bool:
        return self.serial is not None

    def open(self) -> str:
        """Open it exclusively; returns the reason for a failure, or "". Its queues are discarded."""
        try:
            self.serial = serial.Serial(self.path, self.baud, timeout=0, write_timeout=0, exclusive=True)
        except (OSError, ValueError, termios.error) as error:  # missing or busy; a baud rate it cannot do; just gone
            number: int | None = getattr(error, "errno", None)
            why = OPEN_FAILURES.get(number, os.strerror(number)) if number else str(error)
            return f"{self.key} {self.path}: {why}"
        return ""

    def read(self) -> bytes:
        """The bytes that have arrived, at most SERIAL_MAX."""
        assert self.serial is not None
        data: bytes = self.serial.read(SERIAL_MAX)
        return data

    def write(self, data: bytes) -> bool:
        """Send all of it, or nothing and return False.

        A frame that the kernel accepts only in part is finished before anything else is sent: cut off, it would cost
        the board the next one too. The system call is our own because pyserial's spins until there is room, even with
        a time-out of zero (pyserial issue 280).
        """
        if self.unsent:
            self.unsent = self.unsent[self._write_some(self.unsent) :]
            if self.unsent:
                return False
        taken = self._write_some(data)
        self.unsent = data[taken:] if taken else b""
        return taken > 0

    def _write_some(self, data: bytes) -> int:
        """How many of these bytes the kernel accepted."""
        assert self.serial is not None
        try:
            return os.write(self.serial.fileno(), data)
        except BlockingIOError:
            return 0

    def discard(self) -> None:
        """Discard what was written and not yet sent."""
        self.unsent = b""
        if self.serial is not None:
            with contextlib.suppress(termios.error):  # gone: the next read reports it
                termios.tcflush(self.serial.fileno(), termios.TCOFLUSH)

    def close(self) -> None:
        """Close it; the next `open` starts clean."""
        if self.serial is not None:
            self.serial.close()
        self.serial = None
        self.unsent = b""


class NetworkTransport:
    """TCP to an address, or UDP: listening at one and answering the vehicle there, or sending to one.

    The vehicle is the first sender of a whole autopilot frame, until the port is closed (which the link does when the
    vehicle falls silent). Datagrams of other senders are dropped, and nothing is sent to them.
    """

    def __init__(self, kind: Literal["tcp", "udp", "udpout"], host: str, port: int):
        """Looks the host name up once, here, because that blocks. Raises UserError for an unknown host."""
        self.kind = kind
        self.path = f"{kind}:{host}:{port}"
        try:
            *_, address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0]
        except OSError as error:
            raise UserError(f"link.url = {self.path!r}: {host} is not known ({error}); give its IP address") from None
        self.address: tuple[Any, ...] = address
        self.socket: socket.socket | None = None
        self.peer = None if kind == "udp" else self.address
        self.candidates: dict[tuple[Any, ...], Parser] = {}
        """Senders that may be the vehicle, while it is not known."""
        self.stranger = ""
        """The last other sender, while the vehicle is known."""
        self.connected = False
        self.unsent = b""

    @property
    def is_open(self) -> bool:
        return self.socket is not None

    def open(self) -> str:
        """Begin to connect, or bind; returns the reason for a failure, or "". A later failure raises in `read`."""
        stream = self.kind == "tcp"
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
        made.setblocking(False)
        try:
            if stream:
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                code = made.connect_ex(self.address)
                if code not in (0, errno.EINPROGRESS):
                    raise OSError(code, os.strerror(code))
            elif self.kind == "udp":
                made.bind(self.address)
        except OSError as error:
            made.close()
            return f"{self.path}: {error.strerror}"
        self.socket, self.connected, self.unsent = made, not stream, b""
        return ""

    def read(self) -> bytes:
        """The bytes that have arrived; none while the connection is still being made."""
        assert self.socket is not None
        if not self._ready():
            return b""
        try:
            if self.kind == "tcp":
                data = self.socket.recv(READ_MAX)
                if not data:
                    raise ConnectionResetError(errno.ECONNRESET, "closed by the other end")
                return data
            out = b""
            for _ in range(DATAGRAMS_MAX):
                part, sender = self.socket.recvfrom(DATAGRAM)
                if self._is_vehicle(part, sender):
                    out += part
                if len(out) >= READ_MAX:
                    break
            return out
        except BlockingIOError:
            return b"" if self.kind == "tcp" else out
        except ConnectionRefusedError:
            if self.kind == "tcp":
                raise
            return b""  # nobody listens there yet

    def _is_vehicle(self, part: bytes, sender: tuple[Any, ...]) -> bool:
        """Is this datagram the vehicle's, that is, of the first sender of an autopilot frame?"""
        if self.peer is None:
            if sender not in self.candidates and len(self.candidates) >= CANDIDATES_MAX:
                self.candidates.pop(next(iter(self.candidates)))
            parser = self.candidates.setdefault(sender, Parser(version_1=True))
            if not any(frame.sender[1] == common.MAV_COMP_ID_AUTOPILOT1 for frame in parser.feed(part)):
                return False
            self.peer, self.candidates = sender, {}
        if sender != self.peer:
            self.stranger = f"{sender[0]}:{sender[1]}"
        return sender == self.peer

    def write(self, data: bytes) -> bool:
        """Send all of it, or nothing and return False. What TCP accepts only in part is finished first."""
        assert self.socket is not None
        if not self._ready() or self.peer is None:
            return False
        try:
            if self.kind != "tcp":
                return self.socket.sendto(data, self.peer) == len(data)
            if self._queued() > QUEUE_MAX:
                return False
            if self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
                if self.unsent:
                    return False
            self.unsent = data[self.socket.send(data) :]
            return True
        except BlockingIOError:
            return False
        except ConnectionRefusedError:
            if self.kind == "tcp":
                raise
            return False

    def discard(self) -> None:
        """Drop what waits to be sent: for TCP that is possible only together with the connection."""
        if self.kind == "tcp" and self.socket is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise TimeoutError(errno.ETIMEDOUT, "takes no more bytes")

    def finish(self) -> None:
        """Let the other end of a TCP connection read what was written last, for DRAIN_S at most. Closed with unread
        input it would be reset, and what the other end has not read is lost to it."""
        if self.kind != "tcp" or self.socket is None or not self.connected:
            return
        end = time.monotonic() + DRAIN_S
        with contextlib.suppress(OSError):  # it is gone: there is nobody to wait for
            if self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
            self.socket.shutdown(socket.SHUT_WR)
            while (left := end - time.monotonic()) > 0 and select.select([self.socket], [], [], left)[0]:
                if not self.socket.recv(READ_MAX):
                    return

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
        self.socket = None
        self.unsent = b""
        self.candidates, self.stranger = {}, ""
        self.peer = None if self.kind == "udp" else self.address

    def _ready(self) -> bool:
        """Is the connection made? Raises OSError when it failed."""
        assert self.socket is not None
        if not self.connected:
            if not select.select([], [self.socket], [], 0)[1]:
                return False
            if code := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code))
            self.connected = True
        return True

    def _queued(self) -> int:
        """Bytes the kernel has not yet delivered."""
        assert self.socket is not None
        return int(struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, b"\0" * 4))[0])


def transport_of(url: str) -> Transport:
    """The transport that a URL names, not yet opened. Raises UserError for an invalid URL."""
    if not re.match(URL, url):
        raise UserError(
            f"link.url = {url!r}: must look like tcp:127.0.0.1:5760, udp:0.0.0.0:14550 or serial:/dev/x:115200"
        )
    kind, where, number = url.split(":")
    if kind == "serial":
        return SerialTransport(where, int(number))
    assert kind in ("tcp", "udp", "udpout")
    return NetworkTransport(kind, where, int(number))  # type: ignore[arg-type]
