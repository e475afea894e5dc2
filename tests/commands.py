"""`rov` as a command line, run in this process: the start of a program, with torch in it, costs more than most of what
is tested. Signals, kills and limits need a process of their own."""

import contextlib
import io
import os
import runpy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from rov.cli.app import main
from rov.resources import checkout


class Run(NamedTuple):
    """How a command ended, by the names of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def rov(*words: object, cwd: Path | None = None) -> Run:
    """Run a command in a folder, by default the checkout."""
    return _run(main, ["rov", *map(str, words)], cwd)


def python_m(module: str, *words: object, cwd: Path | None = None) -> Run:
    """Run `python -m module`, likewise."""

    def begin() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # runpy's: another test has imported it
            runpy.run_module(module, run_name="__main__")

    return _run(begin, [module, *map(str, words)], cwd)


def _run(begin: Callable[[], None], arguments: list[str], cwd: Path | None) -> Run:
    out, errors, home = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(cwd or checkout())
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(errors),
            mock.patch.object(sys, "argv", arguments),
        ):
            begin()
    except SystemExit as end:
        return Run(int(end.code or 0), out.getvalue(), errors.getvalue())
    finally:
        os.chdir(home)
    return Run(0, out.getvalue(), errors.getvalue())
