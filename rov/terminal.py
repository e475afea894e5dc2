"""A console for tables and progress in which names are plain text: they contain no markup and move no cursor."""

from __future__ import annotations

from typing import Any

import rich.console
from rich.text import Text

from rov.printing import printable


class PlainConsole(rich.console.Console):
    """Rich's console, but every string is plain text. Give colours as `Text`, or by `style`."""

    def render_str(self, text: str, **options: Any) -> Text:
        lines = "\n".join(printable(line) for line in text.split("\n"))
        return super().render_str(lines, **options | {"markup": False, "emoji": False, "highlight": False})
