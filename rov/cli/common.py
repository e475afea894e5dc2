"""What the commands share: options, the configuration a command runs with, progress bars."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rov.config.schema import Config, ConfigError, load, override
from rov.errors import UserError
from rov.media.files import shown
from rov.printing import print_line
from rov.resources import find_resource
from rov.terminal import PlainConsole
from rov.validate import target_problems

console = PlainConsole(stderr=True)
REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT,
            errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}  # fmt: skip
"""What disks and folders answer to whoever may not, or cannot, read or write there: nothing is wrong with us."""

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Configuration; without it ./rover.toml, $ROV_CONFIG, /etc/rov/rover.toml, the default.",
    ),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Change one key for this run, as `--set steering.target=bottle`.")
]


def enter(app: typer.Typer) -> NoReturn:
    """Run a command line; exit code 2 for what the user can put right, 130 for Ctrl-C."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name need not be text, nor the terminal know all letters
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except UserError as error:
        for line in str(error).splitlines():
            print_line(f"error: {line}", error=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `rov … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        where = error.filename if isinstance(error.filename, str) else "the output"
        print_line(f"error: {where}: cannot be read or written: {error.strerror}", error=True)
        sys.exit(2)
    sys.exit(0)


LOCAL = Path("rover.toml")
ETC = Path("/etc/rov/rover.toml")
"""That of the service."""


def own_file() -> Path | None:
    """The configuration of this place or machine, where nobody names one: here, by the environment, the service's."""
    named = os.environ.get("ROV_CONFIG")
    if LOCAL.is_file():
        return LOCAL
    if named:
        return Path(named)
    return ETC if os.access(ETC, os.R_OK) else None


def configuration(path: Path | None, settings: list[str] | None = None, *, steers: bool = False) -> Config:
    """The configuration a command runs with; says which, where it is neither named nor in this folder nor the default.
    `steers`: the command follows a target, which the detector must know. Raises ConfigError."""
    chosen = path or own_file()
    if path is None and chosen not in (None, LOCAL):
        print_line(f"configuration: {chosen}", error=True)
    config = override(load(chosen or find_resource("rover.toml")), settings or [])
    if steers and (wrong := target_problems(config)):
        raise ConfigError([f"{chosen or 'default'}: {each}" for each in wrong])
    return config


def detector(config: Config, batch: int | None = None) -> Any:
    import torch

    from rov.vision.detector import Detector

    torch.set_num_threads(config.perception.threads)
    perception = config.perception
    weights = find_resource(perception.weights)
    return Detector(weights, perception.device, perception.precision, batch or perception.batch)


def curve(config: Config) -> Any:
    from rov.motion.thrusters import load as load_curve

    return load_curve(find_resource(config.vehicle.thrusters), config.vehicle.battery_cells)


def note(*sentences: str) -> None:
    """Say what the user should know although all went well."""
    for sentence in sentences:
        if sentence:
            print_line(f"note: {shown(sentence)}", error=True)


def progress() -> Progress:
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True)
