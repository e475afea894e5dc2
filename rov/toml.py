"""Reads TOML files that anybody may have written: of limited size, in bounded time, with one sentence for an error. All
TOML files of the project are read here."""

from __future__ import annotations

import datetime
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any, TypeVar

import msgspec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from rov.errors import UserError

BYTES_MAX = 64_000
"""Our largest file, a thruster curve, has 22,000. All limits here are far above what people write."""
PARTS_MAX = 16
"""Parts of a dotted key. The parser's time grows with their square: 32,000 take it 1.5 s."""
BRACKETS_MAX = 1000
"""Opening brackets in a file: it bounds the depth of nesting, and with it the parser's stack."""
FAILURE_MAX = 200
"""Characters kept of the parser's message, which may quote the file."""

_DATES = (datetime.datetime, datetime.date, datetime.time)
_PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')"""
_DOTTED = re.compile(rf"(?<![\w-]){_PART}(?:[ \t]*\.[ \t]*{_PART}){{{PARTS_MAX}}}")

T = TypeVar("T")


class TomlError(UserError):
    """A text is not TOML, or beyond the limits of this module."""


_READING = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY"))
"""Not every system has each of these flags."""


def read_text(path: Path, limit: int = BYTES_MAX) -> str:
    """The text of a file, UTF-8 with or without a byte-order mark; never waits for a pipe or a device. Raises OSError
    when it cannot be read, TomlError when it is not a text file or is too large."""
    if not stat.S_ISREG(path.stat().st_mode):  # opening some devices has an effect
        raise TomlError(f"{path}: is no regular file")
    fd = os.open(path, _READING)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):  # another file may have replaced it meanwhile
            raise TomlError(f"{path}: is no regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise TomlError(f"{path}: has more than {limit // 1000} kB; is it the right file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"line {data.count(10, 0, error.start) + 1} holds what is no UTF-8"
        raise TomlError(f"{path}: cannot be read as a text file: {where}; save it as UTF-8") from None


def parse(text: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises TomlError, without the name of the file."""
    if len(text) > BYTES_MAX:
        raise TomlError(f"not TOML: has more than {BYTES_MAX // 1000} kB")
    if text.count("[") + text.count("{") > BRACKETS_MAX:
        raise TomlError(f"not TOML that is read here: opens more than {BRACKETS_MAX} brackets")
    if found := _DOTTED.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise TomlError(f"not TOML that is read here: a key of more than {PARTS_MAX} parts (at line {line})")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TomlError(f"not TOML: {str(error)[:FAILURE_MAX]}") from None
    except RecursionError:
        raise TomlError("not TOML that is read here: nested too deeply") from None
    except (ValueError, OverflowError, MemoryError) as error:  # a number of 5000 digits is a ValueError
        raise TomlError(f"not TOML that is read here: {str(error)[:FAILURE_MAX]}") from None


def load(path: Path, kind: type[T], *, strict: bool = True) -> T:
    """A file as a msgspec struct. Raises OSError when it cannot be read, TomlError when its content is wrong."""
    try:
        return convert(parse(read_text(path)), kind, strict=strict)
    except TomlError as error:
        text = str(error)
        raise TomlError(text if text.startswith(f"{path}: ") else f"{path}: {text}") from None


def convert(data: dict[str, Any], kind: type[T], *, strict: bool = True) -> T:
    """Tables as a msgspec struct. Raises TomlError, without the name of the file."""
    try:
        return msgspec.convert(data, kind, strict=strict, str_keys=True, builtin_types=_DATES)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        raise TomlError(str(error)[:FAILURE_MAX] or "nested too deeply") from None
