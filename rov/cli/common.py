"""Shared by the commands: options, choosing the configuration, exit codes, progress bars."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rov.config.schema import Config, ConfigError, load, override
from rov.errors import UserError
from rov.extras import explained
from rov.media.files import shown
from rov.printing import print_line, printable
from rov.resources import find_resource
from rov.service import log
from rov.terminal import PlainConsole
from rov.validate import target_problems

console = PlainConsole(stderr=True)
REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT,
            errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}  # fmt: skip
"""Errors of disks and folders that the user can correct: reported as one sentence, without a traceback."""

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
    """Run a command line. Exit code 2 for errors that the user can correct, 130 for Ctrl-C."""
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # file names may hold bytes that are no text, or letters that the terminal lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except UserError as error:
        if log.debugging():
            traceback.print_exception(error)
        for line in str(error).splitlines():
            print_line(f"{log.journal_priority('error')}error: {line}", error=True)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if not (what := explained(error)):
            raise
        print_line(f"error: {what}", error=True)
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
        print_line(f"error: {printable(where)}: cannot be read or written: {error.strerror}", error=True)
        sys.exit(2)
    sys.exit(0)


LOCAL = Path("rover.toml")
ETC = Path("/etc/rov/rover.toml")
"""The configuration of the service (`systemd/install`)."""


def own_file() -> Path | None:
    """The configuration to use when none is named: ./rover.toml, else $ROV_CONFIG, else the service's; None: no such
    file."""
    named = os.environ.get("ROV_CONFIG")
    if LOCAL.is_file():
        return LOCAL
    if named:
        return Path(named)
    return ETC if os.access(ETC, os.R_OK) else None


def configuration(path: Path | None, settings: list[str] | None = None, *, steers: bool = False) -> Config:
    """The configuration that a command runs with, and a line that says which if it is $ROV_CONFIG or the service's.
    `steers`: the command follows a target, which the detector must know. Raises ConfigError."""
    chosen = path or own_file()
    if path is None and chosen not in (None, LOCAL):
        print_line(f"configuration: {chosen}", error=True)
    logging.getLogger(__name__).debug("configuration: %s", chosen or "the default")
    config = override(load(chosen or find_resource("rover.toml")), settings or [])
    if steers and (wrong := target_problems(config)):
        raise ConfigError([f"{chosen or 'default'}: {each}" for each in wrong])
    return config


def detector(config: Config, batch: int | None = None) -> Any:
    """The `Detector` of the configuration. Imports torch, which takes seconds. Raises UserError."""
    import torch

    from rov.vision.detector import Detector

    torch.set_num_threads(config.perception.threads)
    perception = config.perception
    weights = find_resource(perception.weights)
    return Detector(weights, perception.device, perception.precision, batch or perception.batch)


def policy(config: Config, *, wanted: bool) -> Any:
    """The `PolicyModel` of the configuration; None, with a note where it is `wanted`, when it cannot be used."""
    from rov.steering.policy_model import open_model

    try:
        return open_model(config.steering)
    except UserError as error:
        note(f"the policy does not steer here: {error}" if wanted else "")
    return None


def curve(config: Config) -> Any:
    """The `ThrusterCurve` of the configuration. Raises UserError."""
    from rov.motion.thrusters import load as load_curve

    return load_curve(find_resource(config.vehicle.thrusters), config.vehicle.battery_cells)


def note(*sentences: str) -> None:
    """Print notes to standard error: what the user should know although the command succeeded."""
    for sentence in sentences:
        if sentence:
            print_line(f"note: {shown(sentence)}", error=True)


def progress() -> Progress:
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True)
