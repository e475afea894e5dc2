"""The water's command line, `python -m sim`: each command is a few lines around a module."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from rov.errors import UserError
from sim import pictures

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="A simulated sea for the rover: vehicle, sensors, pictures.",
)
app.add_typer(pictures.app)


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
