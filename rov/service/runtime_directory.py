"""The directory of a running daemon: its endpoints, its frame ring, and the configuration its processes start with."""

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
    """A directory in memory, ours while we hold its lock; unlocked directories that dead daemons left are removed.
    Raises UserError when none can be made."""
    parent = Path(os.environ.get("RUNTIME_DIRECTORY") or "/dev/shm")
    _clean(parent)
    while True:
        try:
            root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        except OSError as error:
            raise UserError(
                f"{parent}: no directory for frames can be made here: {error.strerror}; mount a tmpfs there"
            ) from None
        lock = _locked(root)
        if lock is not None and root.is_dir():  # another daemon may remove it before we lock it
            break
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)
        os.close(lock)


def _clean(parent: Path) -> None:
    """Remove directories whose supervisor was killed."""
    for root in parent.glob(f"{PREFIX}*"):
        if root.is_dir() and root.stat().st_uid == os.getuid() and (lock := _locked(root)) is not None:
            shutil.rmtree(root, ignore_errors=True)
            os.close(lock)


def _locked(root: Path) -> int | None:
    """Lock a directory; returns its descriptor, None when another process has it or it is gone."""
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
