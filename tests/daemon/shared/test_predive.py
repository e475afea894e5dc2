"""`rov doctor --dive` beside a running daemon: what is wrong with the real thing is in the list, and nothing else."""

from __future__ import annotations

import time

import pytest

from rov.host.predive import check
from rov.messages import Frame, PilotStatus
from tests.commands import rov
from tests.daemon.harness import Daemon, wait_for

pytestmark = [pytest.mark.clock, pytest.mark.daemon]

UNTESTED = {"calibration", "disk", "clock", "temperature"}
"""None is set here; and what this machine's disk and clock are like is its own affair."""


def doctor(daemon: Daemon) -> tuple[int, str]:
    """Exit code and what the command prints."""
    run = rov("doctor", "--dive", "-c", daemon.path)
    return run.returncode, run.stdout + run.stderr


def wrong(daemon: Daemon) -> dict[str, tuple[str, str]]:
    """State and words of every line that is not good."""
    found = check(daemon.config, daemon.path)
    return {each.what: (each.state, each.found) for each in found if each.state != "ok" and each.what not in UNTESTED}


def test_the_check_list_beside_a_running_daemon(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    daemon.do("depth 0")
    operator = daemon.operator()
    daemon.patiently(operator.take_over)
    time.sleep(1.2)  # every process has said how it is doing
    code, text = doctor(daemon)
    assert code == 0 and "✗" not in text, text
    assert "operator │ pilot" in " ".join(text.split())

    control, began = daemon.folder / "camera", time.monotonic_ns()
    control.write_text("frozen")
    daemon.event("camera_frozen", began)
    code, text = doctor(daemon)
    bad = [line for line in text.splitlines() if "✗" in line]
    assert code == 1 and len(bad) == 1 and "camera" in bad[0] and "no pictures" in bad[0], text
    control.write_text("live")
    daemon.wait(Frame, lambda frame: True, time.monotonic_ns())

    daemon.do("unplug")
    operator.beating = False
    daemon.event("link_lost", began)
    wait_for(lambda: daemon.said(PilotStatus)[-1].operator == "", "end of the operator")
    found = wrong(daemon)
    assert {what: state for what, (state, _) in found.items()} == {"link": "missing", "operator": "slow"}
    assert "no attitude or depth for" in found["link"][1] and found["operator"][1] == "nobody is at the controls"
