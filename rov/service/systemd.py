"""Notifies systemd of our state, if it started us (sd_notify(3))."""

from __future__ import annotations

import os
import socket


class Systemd:
    """The service manager. Its socket is opened once, so that the watchdog is fed even when descriptors run out."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self.address = "\0" + address[1:] if address.startswith("@") else address
        self.socket: socket.socket | None = None
        if address:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.socket.setblocking(False)

    def notify(self, state: str) -> bool:
        """Send a state without waiting; False when it was not delivered and must be sent again."""
        if self.socket is None:
            return True
        try:
            self.socket.sendto(state.encode(), self.address)
        except OSError:  # systemd is restarting, or its queue is full
            return False
        return True

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
