"""Files that somebody names: read whole, or refused in one sentence that says which, where in it, and what is wrong."""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from rov.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Kind = TypeVar("Kind")

BYTES_MAX = 1_000_000
"""A file that people write or read is smaller; a larger one is something else."""
DOTS_MAX = 100
"""No key has so many parts; the time that the parser takes grows with their square."""


def read(path: Path, wrong: type[UserError] = UserError, limit: int = BYTES_MAX) -> bytes:
    """What is in a file of at most `limit` bytes. Raises `wrong`; never waits, as a pipe of that name would."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise wrong(f"{path}: is not a file" if not stat.S_ISDIR(found.st_mode) else f"{path}: is a directory")
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:  # a name with a NUL in it is a ValueError
        raise wrong(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > limit:
        raise wrong(f"{path}: has more than {limit} bytes; such a file is smaller")
    return data


def text(path: Path, wrong: type[UserError] = UserError, limit: int = BYTES_MAX) -> str:
    """The same as text: UTF-8, with or without the mark that editors of Windows put before it. Raises `wrong`."""
    return decoded(read(path, wrong, limit), path, wrong)


def decoded(data: bytes, path: Path, wrong: type[UserError] = UserError) -> str:
    """Bytes as text, in the same way."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise wrong(f"{path}:{line}: is not UTF-8 text; save it as UTF-8") from None


def toml(content: str, path: Path, wrong: type[UserError] = UserError) -> dict[str, Any]:
    """The tables of a TOML text; `path` is for the message. Raises `wrong`."""
    for number, line in enumerate(content.splitlines(), 1):
        if line.partition("=")[0].count(".") > DOTS_MAX and ("=" in line or line.lstrip().startswith("[")):
            raise wrong(f"{path}:{number}: not TOML of ours: a key of more than {DOTS_MAX} parts")
    try:
        return tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise wrong(f"{path}: not TOML: {_plainly(error)}") from None
    except RecursionError:
        raise wrong(f"{path}: not TOML of ours: brackets within brackets, too many") from None
    except ValueError:
        raise wrong(f"{path}: not TOML of ours: a number of thousands of digits") from None


def table(path: Path, kind: type[Kind], wrong: type[UserError] = UserError, *, strict: bool = True) -> Kind:
    """A TOML file as a struct of ours. Raises `wrong`, with file, line and key."""
    content = text(path, wrong)
    return converted(content, kind, path, wrong, strict=strict)


def converted(
    content: str, kind: type[Kind], path: Path, wrong: type[UserError] = UserError, *, strict: bool = True
) -> Kind:
    """A TOML text as a struct of ours. Raises `wrong`."""
    tables = toml(content, path, wrong)
    try:
        return msgspec.convert(tables, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise wrong(f"{path}{_line(content, str(error))}: {_plainly(error)}") from None


def _plainly(error: BaseException) -> str:
    """What a reader of TOML says, in our words and short."""
    said = re.sub(r" - at `\$\.?(.*)`$", r" (\1)", str(error)).replace("Object", "it")
    return said if len(said) <= 200 else f"{said[:200]}…"


def _line(content: str, said: str) -> str:
    """`:LINE` of the key that msgspec speaks of, where there is one of its name only."""
    at = re.search(r"at `\$\.([\w.]+)`$", said)
    unknown = re.search(r"unknown field `([^`]+)`", said)
    where = tuple(at[1].split(".")) if at else ()
    line = key_lines(content).get((*where, unknown[1]) if unknown else where)
    return f":{line}" if line else ""


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """Line number of every table header and `key =` in a TOML text (the parser does not keep them).

    Keys inside inline tables and arrays are found under their parent's line.
    """
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    inside = ""  # the closing marks of a multi-line string we are in
    for number, line in enumerate(text.splitlines(), 1):
        if inside:
            inside = "" if inside in line else inside
            continue
        if match := re.match(r"\s*\[\[?([^\[\]]+)\]", line):
            table = _dotted(match[1])
            lines.setdefault(table, number)
        elif match := re.match(r"""\s*((?:[\w\-.\s]|"[^"]*"|'[^']*')+?)\s*=(.*)""", line):
            lines.setdefault(table + _dotted(match[1]), number)
            inside = next((q for q in ('"""', "'''") if match[2].count(q) == 1), "")
    return lines


def _dotted(key: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in key.split("."))
