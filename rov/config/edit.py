"""Changes one key of a configuration file, as its owner would by hand: comments and order stay."""

from __future__ import annotations

import json
import re
from pathlib import Path

from rov.config.schema import ConfigError

_TABLE = re.compile(r"^\s*\[\s*([\w.-]+)\s*\]")


def with_text(text: str, section: str, key: str, value: str) -> str:
    """The text of a configuration in which `section.key` has another text as its value."""
    lines = text.splitlines()
    entry = f"{key} = {json.dumps(value, ensure_ascii=False)}"  # a basic string of TOML is one of JSON
    inside, last = False, None
    for i, line in enumerate(lines):
        if table := _TABLE.match(line):
            inside = table[1] == section
            last = i if inside else last
        elif inside and (old := re.match(rf"\s*{re.escape(key)}\s*=\s*(?:\"[^\"]*\"|'[^']*')", line)):
            lines[i] = entry + line[old.end() :]
            return "\n".join(lines) + "\n"
    if last is None:
        lines += ["", f"[{section}]"]
        last = len(lines) - 1
    lines.insert(last + 1, entry)
    return "\n".join(lines) + "\n"


def write_key(path: Path, section: str, key: str, value: str) -> None:
    """Replace the file by one with the changed key, at once: a daemon that reads it sees the old or the new one. Raises
    ConfigError."""
    try:
        text = with_text(path.read_text(encoding="utf-8"), section, key, value)
        new = path.with_name(path.name + ".new")
        new.write_text(text, encoding="utf-8")
        new.chmod(path.stat().st_mode & 0o7777)
        new.replace(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be changed: {error}"]) from None
