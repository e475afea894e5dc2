"""External commands that take part in a dive: `process:` replaces camerad, `pipe:` supplies a camera's pictures."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from rov.errors import UserError
from rov.service import die_with_parent


def split(source: str, command: str) -> list[str]:
    """Split a command, which is part of the configured `source`, into words. Raises UserError."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"{source}: the command cannot be split into words: {error}") from None
    if not words or not words[0].strip():
        raise UserError(f"{source}: names no command")
    if "\0" in command:
        raise UserError(f"{source!r}: a command must not contain NUL")
    return words


def check(source: str, words: list[str]) -> None:
    """Raises UserError when the program does not exist or may not be run."""
    if shutil.which(words[0]) is None:
        raise UserError(f"{source}: there is no program {words[0]!r} here that may be run")


def dying_with_us(words: list[str], *, pass_pid: bool = False) -> list[str]:
    """The same command, run so that it ends when this process does. Start it as the leader of a process group.
    `pass_pid`: append the id of its parent process to its arguments."""
    script = str(Path(die_with_parent.__file__).resolve())
    return [sys.executable, "-I", "-S", script, str(os.getpid()), "pid" if pass_pid else "plain", *words]
