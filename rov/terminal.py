"""The terminal, for tables and progress that takes names as names: nothing in them is markup, or moves the cursor."""

from __future__ import annotations

from typing import Any

import rich.console
from rich.text import Text

from rov.printing import printable


class PlainConsole(rich.console.Console):
    """Rich's, but every string is text. Colours are given as `Text`, or by `style`."""

    def render_str(self, text: str, **options: Any) -> Text:
        lines = "\n".join(printable(line) for line in text.split("\n"))
        return super().render_str(lines, **options | {"markup": False, "emoji": False, "highlight": False})
