"""Log lines: their form in a terminal and in the journal, and what is written on a crash."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from rov.resources import checkout
from rov.service import log
from rov.service.log import LineFormatter, in_journal
from rov.terminal import PlainConsole

LINE = re.compile(r"\d\d:\d\d:\d\d (debug|info|warning|error|alarm) [a-z.]+ \w+: .*")


def record(level: int, text: str, **extra: str) -> logging.LogRecord:
    return logging.getLogger("rov.x").makeRecord("rov.x", level, "x.py", 1, text, (), None, "step", dict(extra))


def test_a_line_has_time_level_source_and_code() -> None:
    (line,) = LineFormatter("pilotd", journal=False).lines(
        record(log.ALARM, "depth is unknown or old", source="pilot", code="depth_lost")
    )
    assert LINE.fullmatch(line) and line.endswith(" alarm pilot depth_lost: depth is unknown or old")


def test_a_line_for_debugging_names_its_function() -> None:
    (line,) = LineFormatter("pilotd", journal=False).lines(record(logging.DEBUG, "pid 1"))
    assert line.endswith(" debug pilotd step: pid 1")


@pytest.mark.parametrize(("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3), ("alarm", 1)])
def test_in_the_journal_a_line_has_its_priority_and_no_time(level: str, priority: int) -> None:
    formatter = LineFormatter("camerad", journal=True)
    first, second = formatter.lines(record(log.LEVELS[level], "one\ntwo", code="x"))
    assert first == f"<{priority}>{level} camerad x: one" and second == f"<{priority}>{level} camerad x: two"


def test_a_level_of_another_library_is_printed_as_the_one_below() -> None:
    (line,) = LineFormatter("rov", journal=False).lines(record(35, "x"))
    assert " warning rov " in line


def test_the_journal_is_known_by_its_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "log").open("w") as file:
        status = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert in_journal(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")  # inherited, then redirected
        assert not in_journal(file.fileno())
    monkeypatch.delenv("JOURNAL_STREAM")
    assert not in_journal(10_000)


def test_a_refused_configuration_is_an_error_in_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w") as file:
        status = os.fstat(file.fileno())
        environment = os.environ | {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        command = [sys.executable, "-m", "rov", "run", str(tmp_path / "none.toml")]
        done = subprocess.run(command, stderr=file, cwd=checkout(), env=environment, timeout=60)
    (line,) = (tmp_path / "journal").read_text().splitlines()
    assert done.returncode == 2 and line.startswith("<3>error: ") and "none.toml" in line


def run(program: str, **environment: str) -> list[str]:
    """Standard error of a process that logs, as lines."""
    done = subprocess.run(
        [sys.executable, "-c", f"from rov.service import log\nimport logging\nlog.set_up('camerad')\n{program}"],
        capture_output=True,
        text=True,
        cwd=checkout(),
        env=os.environ | environment,
        timeout=60,
    )
    return done.stderr.splitlines()


def test_a_crash_is_lines_like_all_others() -> None:
    lines = run("import threading\nthreading.Thread(target=lambda: 1 / 0).start()\nraise KeyError('ring\\nx')")
    assert all(LINE.fullmatch(line) for line in lines), lines
    assert all(" error camerad crashed: " in line for line in lines)
    assert any(line.endswith("ZeroDivisionError: division by zero") for line in lines)
    assert any("Traceback" in line for line in lines) and "KeyError" in lines[-1]


def test_other_libraries_and_warnings_are_lines_too() -> None:
    lines = run("import warnings\nlogging.getLogger('serial').warning('no reply')\nwarnings.warn('old')")
    assert all(LINE.fullmatch(line) for line in lines) and any("no reply" in line for line in lines)
    assert any("old" in line for line in lines)


def test_debugging_is_asked_for_in_the_environment() -> None:
    program = "logging.getLogger('rov.x').debug('seen')\nlogging.getLogger('other').debug('not ours')"
    assert run(program) == []
    (line,) = run(program, ROV_DEBUG="1")
    assert line.endswith(" debug camerad module: seen")


def test_a_refused_process_says_why_in_one_line_and_ends_with_2(tmp_path: Path) -> None:
    bad = tmp_path / "rover.toml"
    bad.write_text("[vehicle]\nmax_depth = -1\n")
    command = [sys.executable, "-m", "rov.pilotd", str(bad), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=checkout(), timeout=60)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and " error pilotd refused: " in line and "max_depth" in line and LINE.fullmatch(line)


def test_lost_lines_are_counted_in_a_line_of_the_same_form() -> None:
    assert LINE.fullmatch(LineFormatter("supervisor", journal=False).lost_line(3))


def test_off_a_terminal_no_line_is_broken() -> None:
    file = io.StringIO()
    table = Table("what", "to do")
    table.add_row("link.port", "word " * 100)
    console = PlainConsole(file=file)
    console.print(table)
    console.print("word " * 100)
    lines = file.getvalue().splitlines()
    assert len(lines) == 6 and "word " * 99 in lines[3] and lines[5].rstrip() == ("word " * 100).rstrip()
    assert PlainConsole(file=io.StringIO(), force_terminal=True, width=70).width == 70


def test_the_command_line_shows_the_traceback_of_an_error_with_debug(tmp_path: Path) -> None:
    def errors(*arguments: str) -> str:
        command = [sys.executable, "-m", "rov", *arguments, "config", "check", str(tmp_path / "none.toml")]
        return subprocess.run(command, capture_output=True, text=True, cwd=checkout(), timeout=60).stderr

    plain, full = errors(), errors("--debug")
    assert plain.startswith("error: ") and plain.count("\n") == 1
    assert "Traceback" in full and full.rstrip().endswith(plain.rstrip())
