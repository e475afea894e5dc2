"""One daemon, board, camera and operator for many tests."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rov.messages import Mode, PilotStatus
from tests.daemon.harness import Daemon


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all of these tests: to start one takes longer than most of them."""
    folder = tmp_path_factory.mktemp("daemon")
    (folder / "camera").write_text("live")
    script = Path(__file__).parents[1] / "camera.py"
    daemon = Daemon(
        folder,
        camera={"source": f"pipe:160x120:{sys.executable} {script} {folder / 'camera'} 160 120 12"},
    )
    try:
        daemon.ready()
        yield daemon
    finally:
        daemon.close()


@pytest.fixture
def daemon(shared: Daemon) -> Iterator[Daemon]:
    """The shared daemon, whole and disarmed before and after."""
    yield shared
    for line in (
        "plug",
        "deaf 0",
        "mute 0",
        "leak 0",
        "battery_v 16",
        "hull_c 25",
        "hull_kpa 100",
        "depth 5",
        "roll 0",
    ):
        shared.do(line)
    for name in ("cut", "corrupt", "swap", "repeat", "noise"):
        shared.do(f"{name} 0")
    (shared.folder / "camera").write_text("live")
    operator = shared.operator()
    operator.sticks, operator.beating = {}, True
    assert operator.stop().accepted
    shared.wait(PilotStatus, lambda s: not s.armed and s.mode is Mode.MANUAL, time.monotonic_ns())
