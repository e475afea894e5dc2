"""A console for tables and progress in which names are plain text: they contain no markup and move no cursor. Off a
terminal, in a file or a pipe, lines are as long as they are: broken ones cannot be searched."""

from __future__ import annotations

from typing import Any

import rich.console
from rich.text import Text

from rov.printing import printable

WIDTH_OFF_TERMINAL = 10_000


class PlainConsole(rich.console.Console):
    """Rich's console, but every string is plain text. Give colours as `Text`, or by `style`."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        if not self.is_terminal:
            self.soft_wrap, self.width = True, WIDTH_OFF_TERMINAL

    def render_str(self, text: str, **options: Any) -> Text:
        lines = "\n".join(printable(line) for line in text.split("\n"))
        return super().render_str(lines, **options | {"markup": False, "emoji": False, "highlight": False})
