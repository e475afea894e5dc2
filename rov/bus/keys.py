"""CURVE keys: which clients may connect to the vehicle from another machine.

keys/server.key_secret      the vehicle's own secret; never leaves it
keys/clients/NAME.key       one file for each client that may connect; delete it to revoke access (after a restart)
keys/NAME/                  the files client NAME needs: its own secret and the vehicle's public key. Copy them there.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import zmq
import zmq.auth
from zmq.utils import z85

from rov.errors import UserError

if TYPE_CHECKING:
    from rov.bus.zmtp import Mechanism


HAS_MODES = hasattr(os, "getuid")
"""Whether a file's mode says who may read it; on Windows it does not."""


def make(folder: Path, client: str = "operator") -> Path:
    """Make keys for a client, and the vehicle's own if there are none yet; returns the client's folder.

    Never overwrites a key. Raises UserError.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", client) or client == "clients":
        raise UserError(f"{client}: a client's name is letters, digits, - and _")
    bundle, clients = folder / client, folder / "clients"
    if bundle.exists() or (clients / f"{client}.key").exists():
        raise UserError(f"{bundle}: there are keys for {client}; choose another name, or delete them first")
    try:
        clients.mkdir(0o700, parents=True, exist_ok=True)
        if not (folder / "server.key_secret").exists():
            _make_pair(folder, "server")
        bundle.mkdir(0o700)
        _make_pair(bundle, client)
        shutil.move(bundle / f"{client}.key", clients)
        shutil.copy(folder / "server.key", bundle)
    except OSError as error:
        raise UserError(f"{folder}: keys cannot be written: {error.strerror}") from None
    return bundle


def _make_pair(folder: Path, name: str) -> None:
    for suffix in ("key", "key_secret"):
        (folder / f"{name}.{suffix}").touch(0o600)  # set the mode before the key is written
    zmq.auth.create_certificates(folder, name)


class Gate:
    """Accepts only clients whose keys are listed."""

    def __init__(self, folder: Path):
        """Raises UserError when the keys cannot be used."""
        check(folder)
        public, secret = _load(folder / "server.key_secret")
        self.public, self.secret = z85.decode(public), z85.decode(secret)
        found = sorted((folder / "clients").glob("*.key"))
        self.clients = {z85.decode(_load(path, secret=False)[0]): path.stem for path in found}
        """Names of clients by their raw public keys."""

    def mechanism(self, metadata: bytes) -> Mechanism:
        """The mechanism that asks a new connection for its key; `metadata` is ours."""
        from rov.bus.curve import CurveMechanism  # loads NaCl, which only the public processes need

        return CurveMechanism(self.secret, self.public, self.clients, metadata)


class ClientKeys(NamedTuple):
    """The keys a client needs to connect."""

    public: bytes
    secret: bytes
    server: bytes

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Set the keys of a socket, before it is connected."""
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.public)
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.server)


def load_client(folder: Path) -> ClientKeys:
    """The keys in a client's folder. Raises UserError."""
    secrets = list(folder.glob("*.key_secret"))
    if len(secrets) != 1:
        raise UserError(f"{folder}: holds {len(secrets)} secret keys; copy the folder here that `rov keys NAME` made")
    return ClientKeys(*_load(secrets[0]), _load(folder / "server.key", secret=False)[0])


def gate_of(folder: str) -> Gate | None:
    """The gate for the folder in `bus.keys`; None when that is empty. Raises UserError."""
    return Gate(Path(folder)) if folder else None


def check(folder: Path) -> None:
    """Raises UserError when the vehicle's keys in a folder cannot be used."""
    _load(folder / "server.key_secret")
    if not (clients := folder / "clients").is_dir():
        raise UserError(f"{clients}: no such folder; `rov keys` makes it")
    for path in clients.glob("*.key"):
        _load(path, secret=False)


def _load(path: Path, *, secret: bool = True) -> tuple[bytes, bytes]:
    """Public and secret key of a file. Raises UserError."""
    try:
        if secret and HAS_MODES and path.stat().st_mode & 0o077:
            raise UserError(f"{path}: others may read this secret; run `chmod 600 {path}`")
        public, private = zmq.auth.load_certificate(path)
    except OSError:
        raise UserError(f"{path}: cannot be read; `rov keys` makes it") from None
    except ValueError:
        raise UserError(f"{path}: holds no key; `rov keys` makes it") from None
    if len(public) != 40 or (secret and len(private or b"") != 40):
        raise UserError(f"{path}: holds no whole key; `rov keys` makes it")
    return public, private or b""
