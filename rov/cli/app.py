"""The command line. Each command is a few lines around a module; an error that the user can correct is one sentence
and exit code 2.
"""

from __future__ import annotations

import os
from typing import Annotated, NoReturn

import typer

from rov.cli import calibrate, dives, explain, imports, live, models, recordings, settings
from rov.cli.common import enter
from rov.printing import print_line
from rov.service import log
from rov.version import __version__

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # silences FFmpeg on broken files: our own messages say more
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Perception and autopilot daemon of an underwater rover.",
)
app.add_typer(recordings.app)
app.add_typer(imports.app)
app.add_typer(live.app)
app.add_typer(explain.app)
app.add_typer(settings.app, name="config")
app.add_typer(dives.app, name="dive")
app.add_typer(models.app, name="models")
app.add_typer(calibrate.app, name="calibrate")


def main() -> NoReturn:
    enter(app)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Log what is done, and errors with their traceback.")] = False,
) -> None:
    if debug:
        log.enable_debug()
    if log.debugging():
        log.set_up("rov")
    if version:
        print_line(__version__)
        raise typer.Exit
