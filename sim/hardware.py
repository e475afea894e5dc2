"""Commands that stand in for hardware, and commands that measure a whole daemon at it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from rov.errors import UserError
from rov.printing import print_line

app = typer.Typer(rich_markup_mode="markdown")


@app.command(epilog="Example: `python -m sim board --link /tmp/board`, then `rov run --set link.port=/tmp/board`")
def board(
    link: Annotated[Path | None, typer.Option(help="Symbolic link to the port; outlives `unplug` and `plug`.")] = None,
    frame: Annotated[str, typer.Option(help="ArduSub frame: vectored_6dof, vectored, bluerov1, …")] = "vectored_6dof",
    depth: Annotated[float, typer.Option(help="At the start, m.")] = 1.0,
    record: Annotated[
        Path | None, typer.Option(help="File for the outputs of the thrusters: one JSON object per line.")
    ] = None,
) -> None:
    """Run a thruster board on a pty, with a simple vehicle behind it. Prints the port; faults are read from stdin."""
    from rov.motion.allocation import FACTORS
    from sim.board import run

    if frame not in FACTORS:
        raise typer.BadParameter(f"{frame!r} is not one of {', '.join(sorted(FACTORS))}", param_hint="--frame")
    run(link, frame, depth, record)


@app.command(epilog="Example: `python -m sim ardusub`, then `rov run --set link.kind=ardusub`")
def ardusub(
    port: Annotated[int, typer.Option(help="TCP port for the companion.")] = 5760,
    depth: Annotated[float, typer.Option(help="At the start, m.")] = 2.0,
) -> None:
    """Run a scripted ArduSub autopilot and its ground station on TCP. Prints the URL."""
    from sim.ardusub import run

    run(port, depth)


@app.command(epilog="Example: `python -m sim soak clip.mp4 --seconds 1800 --json figures.json`")
def soak(
    video: Annotated[Path, typer.Argument(help="The camera's picture, in a loop at its own rate.")],
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 60.0,
    rate: Annotated[float, typer.Option(help="perception.rate_hz; the video needs that rate.")] = 15.0,
    out: Annotated[Path | None, typer.Option("--json", help="Write the figures there.")] = None,
) -> None:
    """Measure a whole daemon in `follow`: rates, delays, memory, open files. Ctrl-C ends it early."""
    from sim.soak import soak as run
    from sim.soak import table

    with _user_errors():
        found, interrupted = run(video, seconds, rate, lambda text: print_line(text, error=True))
        print_line(json.dumps(found, indent=2))
        print_line(table(found), error=True)
        if out:
            out.write_text(json.dumps(found, indent=2) + "\n")
        if interrupted:
            raise typer.Exit(130)


@app.command("port-write-times", epilog="Example: `python -m sim port-write-times /tmp/board`")
def port_write_times(port: Annotated[Path, typer.Argument(help="The port that the daemon writes to.")]) -> None:
    """Print the time of each write to a port, monotonic ns, one per line."""
    from sim.port_write_times import run

    with _user_errors():
        run(port)


@contextmanager
def _user_errors() -> Iterator[None]:
    """Exit code 2 for what the user can put right, 130 for Ctrl-C."""
    try:
        yield
    except UserError as error:
        print_line(f"error: {error}", error=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
