"""Text files that anybody may have written: UTF-8 with or without a mark, UTF-16 of a Windows editor, or an old code
page; lines may end in any way."""

from __future__ import annotations

import codecs
from pathlib import Path

from models.data.errors import DataError, Findings

BYTES_MAX = 256_000_000


def read_text(path: Path, findings: Findings) -> str:
    """The text of a file. Raises DataError when it cannot be read or is no text."""
    try:
        if path.stat().st_size > BYTES_MAX:
            raise DataError(f"{path}: is too large for a text: {path.stat().st_size / 1e6:.0f} MB")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    if b"\0" in data:
        raise DataError(f"{path}: is no text file (line {data.count(10, 0, data.index(0)) + 1} holds a zero byte)")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        findings.note("text that is no UTF-8 was read as Windows-1252", path)
        return data.decode("cp1252", "replace")
