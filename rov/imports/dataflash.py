"""Reads the records of an autopilot's own log (DataFlash, .BIN), a format that describes itself.

pymavlink's DFReader is not used: it prints a line for each damaged byte, and gives up at one damaged description. The
format has no checksums; a record counts as whole when another record, or the end of the file, follows it.
"""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HEAD = b"\xa3\x95"
FORMAT, FORMAT_BYTES = 128, 89
"""The type of the record that describes other records, and its length in bytes."""
CODES = {"a": "32h", "b": "b", "B": "B", "h": "h", "H": "H", "i": "i", "I": "I", "f": "f", "d": "d", "g": "e",
         "n": "4s", "N": "16s", "Z": "64s", "c": "h", "C": "H", "e": "i", "E": "I", "L": "i", "M": "B", "q": "q",
         "Q": "Q"}  # fmt: skip
"""How each letter of a format is packed, little-endian."""
SCALES = {"c": 0.01, "C": 0.01, "e": 0.01, "E": 0.01, "L": 1e-7}


class DataFlashRecord(NamedTuple):
    """One record of the log."""

    share: float
    """Share of the file read so far, 0..1."""
    stamp: int
    """ns since the autopilot booted."""
    kind: str
    fields: dict[str, Any]
    """Numbers, or text."""


class Format(NamedTuple):
    """The layout of one kind of record."""

    length: int
    name: str
    letters: str
    columns: tuple[str, ...]
    packing: struct.Struct


class DataFlash:
    """A log that can be iterated repeatedly; `counts` and `unread` describe the last iteration."""

    def __init__(self, path: Path, wanted: Container[str]):
        """`wanted`: the kinds of records to unpack; others are only counted."""
        with path.open("rb") as file:  # mapped, because a log may be larger than memory
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.wanted = wanted
        self.counts: Counter[str] = Counter()
        """Records by `whole` and `no stamp`."""
        self.unread = 0
        """Bytes that belong to no record."""

    def __iter__(self) -> Iterator[DataFlashRecord]:
        self.counts.clear()
        self.unread = at = 0
        formats: dict[int, Format] = {}
        size = max(len(self.data), 1)
        while at + 3 <= len(self.data):
            end = self._end(at, formats)
            if end is None:
                found = self.data.find(HEAD, at + 1)
                following = found if found >= 0 else len(self.data)
                self.unread += following - at
                at = following
                continue
            self.counts["whole"] += 1
            kind = self.data[at + 2]
            if kind == FORMAT:
                learn(self.data[at + 3 : end], formats)
            elif formats[kind].name in self.wanted and (row := self._row(at, end, formats[kind])) is not None:
                yield DataFlashRecord(at / size, *row)
            at = end
        self.unread += max(len(self.data) - at, 0)

    def _end(self, at: int, formats: dict[int, Format]) -> int | None:
        """Where the record at `at` ends; None where there is none."""
        if self.data[at : at + 2] != HEAD:
            return None
        kind = self.data[at + 2]
        if kind != FORMAT and kind not in formats:
            return None
        end = at + (FORMAT_BYTES if kind == FORMAT else formats[kind].length)
        follows = self.data[end : end + 2]
        return end if end <= len(self.data) and follows == HEAD[: len(follows)] else None

    def _row(self, at: int, end: int, form: Format) -> tuple[int, str, dict[str, Any]] | None:
        """Stamp, kind and fields; None when it has no stamp."""
        values = form.packing.unpack(self.data[at + 3 : end])
        if "a" in form.letters:  # records with arrays are not used
            return None
        fields = {
            column: text(value) if isinstance(value, bytes) else value * SCALES.get(letter, 1)
            for column, letter, value in zip(form.columns, form.letters, values, strict=True)
        }
        if isinstance(micro := fields.get("TimeUS"), int):
            return micro * 1000, form.name, fields
        if isinstance(milli := fields.get("TimeMS"), int):
            return milli * 1_000_000, form.name, fields
        self.counts["no stamp"] += 1
        return None


def learn(data: bytes, formats: dict[int, Format]) -> None:
    """Add a record description to `formats` if it is consistent and its kind is not yet described."""
    number, length = data[0], data[1]
    name, letters = text(data[2:6]), text(data[6:22])
    columns = tuple(text(data[22:86]).split(","))
    if not name.isalnum() or not letters or any(each not in CODES for each in letters):
        return
    packing = struct.Struct("<" + "".join(CODES[each] for each in letters))
    if packing.size + 3 == length and len(columns) == len(letters) and number not in formats:
        formats[number] = Format(length, name, letters, columns, packing)


def text(data: bytes) -> str:
    """The text before the first zero byte."""
    return data.split(b"\0", 1)[0].decode("ascii", "replace")
