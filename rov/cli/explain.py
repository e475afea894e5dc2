"""`rov explain`: what a reported code means."""

from __future__ import annotations

from typing import Annotated

import typer

from rov.printing import print_line

app = typer.Typer()


@app.command(
    epilog="Examples: `rov explain depth_lost`, `rov explain '12:03:04 alarm pilot depth_lost: …'`, `rov explain`"
)
def explain(
    text: Annotated[list[str] | None, typer.Argument(help="A code, or a line with one; without it, all codes.")] = None,
) -> None:
    """Say what a code of an event or alarm means, what rov does about it, and what you do.

    A code with `_over` means that the condition has ended. docs/alarms.md has all of them.
    """
    from rov.event_codes import event_groups, find_code

    wanted = find_code(" ".join(text)) if text else None
    for group in event_groups():
        codes = {name: code for name, code in group.codes.items() if wanted in (None, name)}
        if codes and wanted is None:
            print_line(f"\n{group.title}\n")
        for name, code in codes.items():
            print_line(f"{name} ({', '.join(code.levels)}): {code.happened}.")
            for what, sentence in (("rov", code.reaction), ("you", code.advice)):
                if sentence:
                    print_line(f"  {what}: {sentence}")
