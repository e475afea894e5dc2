"""`rov` as a command line, run in this process: the start of a program, with torch in it, costs more than most of what
is tested. Signals, kills and limits need a process of their own."""

import contextlib
import io
import os
import sys
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
    out, errors, home = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(cwd or checkout())
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(errors),
            mock.patch.object(sys, "argv", ["rov", *map(str, words)]),
        ):
            main()
    except SystemExit as end:
        return Run(int(end.code or 0), out.getvalue(), errors.getvalue())
    finally:
        os.chdir(home)
