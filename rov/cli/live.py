"""Commands of the live daemon: run it, hear it, command it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rov.cli.common import ConfigFile, configuration, console
from rov.config import load
from rov.errors import UserError

app = typer.Typer()


@app.command(epilog="Examples: `rov run rover.toml`, `rov run` (with `rover.toml` here)")
def run(path: Annotated[Path, typer.Argument(help="The configuration.")] = Path("rover.toml")) -> None:
    """Run the daemon: camera, perception, pilot and recorder. Ctrl-C stops it, neutral and disarmed."""
    from rov.supervisor import run as supervise
    from rov.vision.sight import Sight

    config = load(path)
    Sight(config.camera)  # a calibration that cannot be used is said here, not by a process that dies again and again
    raise typer.Exit(supervise(path, config, lambda text: console.print(text, highlight=False)))


@app.command(epilog="Examples: `rov listen`, `rov listen events pilot`")
def listen(
    topics: Annotated[list[str] | None, typer.Argument(help="Topics; without any, all.")] = None,
    config: ConfigFile = None,
) -> None:
    """Print what the daemon says, with the age of each message."""
    import time

    import msgspec

    from rov.bus import listen as hear
    from rov.messages import TOPICS

    for topic in topics or []:
        if topic not in TOPICS:
            raise UserError(f"{topic}: no such topic; there are {', '.join(TOPICS)}")
    reader = hear(configuration(config).bus.public, topics or [])
    try:
        while True:
            reader.wait(1000)
            for entry in reader.read():
                age = (time.monotonic_ns() - entry.message.t) / 1e6
                print(f"{entry.topic:12} {age:7.1f} ms  {msgspec.json.encode(entry.message).decode()}", flush=True)
    finally:
        reader.close()


@app.command(epilog="Examples: `rov ctl stop`, `rov ctl arm`, `rov ctl mode hold`, `rov ctl target gate_post`")
def ctl(
    verb: Annotated[str, typer.Argument(help="arm, disarm, stop, mode or target.")],
    what: Annotated[str, typer.Argument(help="The mode, or the class to follow.")] = "",
    config: ConfigFile = None,
) -> None:
    """Send one command. Anyone may stop; for all else this becomes the operator first, for as long as it takes:
    what must go on needs a program that keeps its heartbeat."""
    from rov.operator import order

    print(order(configuration(config).bus.commands, verb, what))
