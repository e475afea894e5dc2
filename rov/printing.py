"""Makes text safe to print. Names and words from a file or another machine may contain anything: here they become plain
text that moves no cursor, sets no colour and is no markup. Passwords are hidden.
"""

from __future__ import annotations

import re
import sys

_LOGIN = re.compile(r"(?<=://)(?:([^\s:@/]*):)?\S*@")
"""Everything before the last @ of an address: a password may contain any character, and hiding too much is better than
too little."""
_WORD = re.compile(r"((?:pass|passwd|password|pwd|token|secret|auth)=).*?(?=[&\s'\"]|_\w+=|$)", re.IGNORECASE)
"""A password among the parameters of an address, where many cameras expect it."""


def printable(value: object) -> str:
    """A value as one line of text, without passwords: control characters, marks of writing direction and bytes that
    were not UTF-8 are escaped, as `\\x1b`."""
    text = hide_passwords(str(value))
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in "\u00a0\u202f" else _spelled(each) for each in text)


def hide_passwords(text: str) -> str:
    """The text without the passwords of its addresses: `rtsp://ann:***@host/1`. Call it before shortening the text, or
    half a password may stay."""
    if "://" not in text:
        return text
    return _WORD.sub(r"\1***", _LOGIN.sub(lambda login: f"{login[1]}:***@" if login[1] else "***@", text))


def print_line(text: object = "", *, error: bool = False, flush: bool = False) -> None:
    """Print the lines of a text safely; `error`: to standard error."""
    print(
        *(printable(line) for line in str(text).split("\n")), sep="\n", file=sys.stderr if error else None, flush=flush
    )


def _spelled(character: str) -> str:
    """The escape of a character: `\\n`, `\\x1b`; above ASCII as in JSON, `\\u202e`, so that printed JSON stays JSON; a
    byte that was not UTF-8 (surrogate escape) as that byte."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    if character < "\x7f":
        return character.encode("unicode_escape").decode("ascii")
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
