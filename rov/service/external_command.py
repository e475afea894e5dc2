"""Commands of others that take part in a dive: `process:` in camerad's place, `pipe:` for a camera's pictures."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from rov.errors import UserError
from rov.service import die_with_parent


def split(source: str, command: str) -> list[str]:
    """The words of a command, which is part of the configured `source`. Raises UserError."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"{source}: the command cannot be split into words: {error}") from None
    if not words or not words[0].strip():
        raise UserError(f"{source}: names no command")
    if "\0" in command:
        raise UserError(f"{source!r}: a command has no NUL in it")
    return words


def check(source: str, words: list[str]) -> None:
    """Raises UserError when there is no such program to run."""
    if shutil.which(words[0]) is None:
        raise UserError(f"{source}: there is no program {words[0]!r} here that may be run")


def leashed(words: list[str], *, told: bool = False) -> list[str]:
    """The command that runs it so that it ends with us. To be started as the head of a process group. `told`: its last
    argument is the process that started it."""
    script = str(Path(die_with_parent.__file__).resolve())
    return [sys.executable, "-I", "-S", script, str(os.getpid()), "told" if told else "plain", *words]
