"""What is printed. Names and words that came from a file or from another machine may hold anything: here they become
text, which moves no cursor, sets no colour and is no markup.
"""

from __future__ import annotations

import sys


def plain(value: object) -> str:
    """A value as one line of text: control characters, marks that turn the direction of writing, and bytes that were no
    UTF-8 are spelled out, as `\\x1b`."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in "\u00a0\u202f" else _spelled(each) for each in text)


def say(text: object = "", *, error: bool = False, flush: bool = False) -> None:
    """Print lines, to the standard error where `error`."""
    print(*(plain(line) for line in str(text).split("\n")), sep="\n", file=sys.stderr if error else None, flush=flush)


def _spelled(character: str) -> str:
    """`\\n`, `\\x1b`; above ASCII as JSON has it, `\\u202e`, so that what is printed as JSON still is; a byte that was
    no UTF-8 (surrogate escape) as that byte."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    if character < "\x7f":
        return character.encode("unicode_escape").decode("ascii")
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
