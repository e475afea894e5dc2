"""What the commands share: options, the configuration a command runs with, progress bars."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rov.assets import find
from rov.config import Config, load, override
from rov.errors import UserError
from rov.plain import say
from rov.screen import Screen

console = Screen(stderr=True)

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration; without it `rover.toml` here, else the default one."),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Change one key for this run, as `--set steering.target=bottle`.")
]


def enter(app: typer.Typer) -> NoReturn:
    """Run a command line; exit code 2 for what the user can put right, 130 for Ctrl-C."""
    try:
        app()
    except UserError as error:
        for line in str(error).splitlines():
            say(f"error: {line}", error=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `rov … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(0)


def configuration(path: Path | None, settings: list[str] | None = None) -> Config:
    """The configuration a command runs with."""
    local = Path("rover.toml")
    chosen = path or (local if local.is_file() else find("rover.toml"))
    return override(load(chosen), settings or [])


def detector(config: Config, batch: int | None = None) -> Any:
    import torch

    from rov.vision.detector import Detector

    torch.set_num_threads(config.perception.threads)
    perception = config.perception
    weights = find(perception.weights)
    return Detector(weights, perception.device, perception.precision, batch or perception.batch)


def curve(config: Config) -> Any:
    from rov.motion.thrusters import load as load_curve

    return load_curve(find(config.vehicle.thrusters), config.vehicle.battery_cells)


def progress() -> Progress:
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True)
