"""What is said and printed. Names and words that came from a file or from another machine may hold anything: here they
become text, which moves no cursor, sets no colour and is no markup. And a password is nobody's business.
"""

from __future__ import annotations

import re
import sys

_LOGIN = re.compile(r"(?<=://)(?:([^\s:@/]*):)?\S*@")
"""Everything before the last @ of an address: a password may hold any sign, and rather too much is hidden than too
little."""
_WORD = re.compile(r"((?:pass|passwd|password|pwd|token|secret|auth)=).*?(?=[&\s'\"]|_\w+=|$)", re.IGNORECASE)
"""A password among the parameters of an address, as many cameras want it."""


def printable(value: object) -> str:
    """A value as one line of text, without passwords: control characters, marks that turn the direction of writing, and
    bytes that were no UTF-8 are spelled out, as `\\x1b`."""
    text = hide_passwords(str(value))
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in "\u00a0\u202f" else _spelled(each) for each in text)


def hide_passwords(text: str) -> str:
    """The text without the passwords of the addresses in it: `rtsp://ann:***@host/1`. To be called before anything is
    cut off it."""
    if "://" not in text:
        return text
    return _WORD.sub(r"\1***", _LOGIN.sub(lambda login: f"{login[1]}:***@" if login[1] else "***@", text))


def print_line(text: object = "", *, error: bool = False, flush: bool = False) -> None:
    """Print lines, to the standard error where `error`."""
    print(
        *(printable(line) for line in str(text).split("\n")), sep="\n", file=sys.stderr if error else None, flush=flush
    )


def _spelled(character: str) -> str:
    """`\\n`, `\\x1b`; above ASCII as JSON has it, `\\u202e`, so that what is printed as JSON still is; a byte that was
    no UTF-8 (surrogate escape) as that byte."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    if character < "\x7f":
        return character.encode("unicode_escape").decode("ascii")
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
