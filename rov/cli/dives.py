"""Commands on recorded dives: info, recover, cut, mark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from rov.printing import print_line, printable
from rov.terminal import PlainConsole

if TYPE_CHECKING:
    from rov.dives.recovery import DiveInfo

app = typer.Typer(no_args_is_help=True, help="Inspect, recover, cut and mark recorded dives.")

DiveFile = Annotated[Path, typer.Argument(help="A dive (.mcap).")]
OutFile = Annotated[Path, typer.Option(help="The dive to write.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")]


@app.command("info", epilog="Example: `rov dive info dive.mcap`")
def dive_info(path: DiveFile, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Say what a dive holds, whether it is whole, and what to do if not. Exit 1 when it is not whole."""
    import msgspec

    from rov.dives.recovery import info

    found = info(path)
    if as_json:
        print_line(msgspec.json.encode(found).decode())
    else:
        _print(path, found)
    if not found.complete:
        raise typer.Exit(1)


def _print(path: Path, found: DiveInfo) -> None:
    """The whole answer of `rov dive info`, for people."""
    table = Table(
        "topic", "messages", "Hz", "sha256", title=f"{path.name}: {found.duration_s:.1f} s, {found.size_bytes} B"
    )
    for line in _in_words(found):
        print_line(printable(line))
    for name, topic in found.topics.items():
        table.add_row(name, str(topic.count), f"{topic.rate_hz:.2f}", topic.sha256[:16])
    PlainConsole().print(table)
    for line in found.notes:
        print_line(printable(line))
    if found.attachments:
        print_line(f"attached: {printable(', '.join(found.attachments))}")
    for key, value in found.metadata.items():
        print_line(f"{printable(key)}: {printable(value)}")
    if found.mark:
        print_line(f"marked {found.mark.marked:%Y-%m-%d}: {found.mark.note or '(no note)'}")
    for problem in found.problems:
        print_line(f"problem: {printable(problem)}")
    if found.advice:
        print_line(found.advice)


def _in_words(found: DiveInfo) -> Iterator[str]:
    """When the dive was, its modes and alarms, and whether the file is whole."""
    about = found.summary
    yield f"began: {about.start_utc or 'not known; its times count from when the computer was switched on'}"
    if about.clock_set_s:
        yield f"clock: the wall clock was set by {about.clock_set_s:g} s during the dive; the dive does not use it"
    yield f"length: {found.duration_s:.1f} s"
    yield f"modes: {', '.join(f'{mode} {s:g} s' for mode, s in about.modes.items()) or 'never armed'}"
    yield f"alarms: {', '.join(f'{n} × {code}' for code, n in about.alarms.items()) or 'none'}"
    yield f"whole: {'yes' if found.complete else 'no'}"


@app.command("recover", epilog="Examples: `rov dive recover dive.mcap`, `rov dive recover dive.mcap --out whole.mcap`")
def dive_recover(
    path: DiveFile,
    out: Annotated[Path | None, typer.Option(help="File to write; without it the dive itself is repaired.")] = None,
    force: Force = False,
) -> None:
    """Save every intact message of a cut-off or damaged dive; the result is checked before it replaces anything."""
    from rov.dives.recovery import recover

    report = recover(path, out, overwrite=force)
    kept = sum(topic.count for topic in report.topics.values())
    did = (
        f"kept {kept} messages in {report.path}, lost {report.lost_bytes} bytes"
        if report.changed
        else "was whole already"
    )
    print_line(f"{path}: {did}")
    for problem in report.problems:
        print_line(f"problem: {problem}")


@app.command("cut", epilog="Example: `rov dive cut dive.mcap --start 12.5 --end 40 --out part.mcap`")
def dive_cut(
    path: DiveFile,
    start: Annotated[float, typer.Option(min=0, help="Seconds from the start.")],
    end: Annotated[float, typer.Option(min=0, help="Seconds from the start.")],
    out: OutFile,
    force: Force = False,
) -> None:
    """Copy a part of a dive."""
    from rov.dives.recovery import cut

    topics = cut(path, out, start, end, overwrite=force)
    print_line(f"{out}: {sum(topic.count for topic in topics.values())} messages")


@app.command(
    "mark", epilog="Examples: `rov dive mark dive.mcap --note 'the big grouper'`, `rov dive mark dive.mcap --off`"
)
def dive_mark(
    path: DiveFile,
    note: Annotated[str, typer.Option(help="Why.")] = "",
    off: Annotated[bool, typer.Option("--off", help="Remove the mark.")] = False,
) -> None:
    """Mark a dive so that it is never deleted to make room."""
    from rov.dives.recovery import mark, unmark

    if off:
        unmark(path)
        print_line(f"{path}: no longer marked")
    else:
        mark(path, note)
        print_line(f"{path}: marked; it is kept until the mark is removed")
