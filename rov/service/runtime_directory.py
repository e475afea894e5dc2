"""The directory where a daemon lives while it runs: its endpoints, its frame ring, what its processes start from."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rov.errors import UserError

PREFIX = "rov-run-"


@contextlib.contextmanager
def home() -> Iterator[Path]:
    """A directory for the endpoints and the frame ring, in memory, ours as long as it is locked; what others left
    unlocked is removed. Raises UserError where none can be made."""
    parent = Path(os.environ.get("RUNTIME_DIRECTORY") or "/dev/shm")
    _clean(parent)
    while True:
        try:
            root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        except OSError as error:
            raise UserError(f"{parent}: frames travel through it, and {error.strerror}; mount a tmpfs there") from None
        lock = _locked(root)
        if lock is not None and root.is_dir():  # not taken for an orphan before it was locked
            break
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)
        os.close(lock)


def _clean(parent: Path) -> None:
    """Remove directories whose supervisor is gone: it was killed, or the power was cut."""
    for root in parent.glob(f"{PREFIX}*"):
        if root.is_dir() and root.stat().st_uid == os.getuid() and (lock := _locked(root)) is not None:
            shutil.rmtree(root, ignore_errors=True)
            os.close(lock)


def _locked(root: Path) -> int | None:
    """Lock a directory; None when another has it, or it is gone."""
    try:
        lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
