"""The water's command line, `python -m sim`: each command is a few lines around a module."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from rov.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="A simulated sea for the rover: vehicle, sensors, pictures.",
)


@app.callback()
def root() -> None:
    """Keeps every command a sub-command, also while there is only one."""


@app.command(epilog="Example: `python -m sim wrench --params P.json --input in.csv --out out.csv`")
def wrench(
    params: Annotated[Path, typer.Option(help="The vehicle and its start: JSON.")],
    table: Annotated[Path, typer.Option("--input", help="CSV with t,X,Y,Z,K,M,N: s, N and N m; each row holds.")],
    out: Annotated[Path, typer.Option(help="CSV to write: t,x,y,z,qw,qx,qy,qz,u,v,w,p,q,r.")],
) -> None:
    """Move a vehicle open loop under given forces: no thrusters, no surface, no seabed, only its equations."""
    from functools import partial

    from rov.cli.common import progress
    from sim.wrench import run

    with progress() as bar:
        rows = run(params, table, out, lambda total: partial(bar.advance, bar.add_task("moving", total=total)))
    print(f"{out}: {rows} rows")


def main() -> NoReturn:
    """Run a command; exit code 2 for what the user can put right, 130 for Ctrl-C."""
    try:
        app()
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `python -m sim … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(0)


if __name__ == "__main__":
    main()
