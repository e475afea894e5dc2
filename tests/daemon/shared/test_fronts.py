"""The processes that strangers reach are killed, however often; nobody inside takes notice."""

from __future__ import annotations

import time

import pytest

from rov.messages import Mode, PilotStatus, ThrusterCommand
from tests.daemon.harness import MS, Daemon, children, wait_for

pytestmark = [pytest.mark.clock, pytest.mark.daemon]

S = 1000 * MS


def test_the_operator_goes_on(daemon: Daemon) -> None:
    operator, began = daemon.armed(surge=0.3), time.monotonic_ns()
    session = operator.client.session
    for _ in range(6):
        for name in ("commandd", "publicd"):
            wait_for(lambda: children(daemon.process.pid, f"rov.{name}"), name)  # type: ignore[union-attr]  # noqa: B023
            daemon.kill(name)
        killed = time.monotonic_ns()
        daemon.wait(PilotStatus, lambda status: status.armed, killed)
        wait_for(lambda: session.beat_answered_t >= session.beat_t > killed, "heartbeat")  # noqa: B023
        back = time.monotonic_ns() - killed
        print(f"both back after {back / S:.2f} s")
        assert back < 3 * S, "an operator is lost after 3 s"
        daemon.patiently(lambda: operator.mode(Mode.MANUAL))
    time.sleep(1.0)
    commands = daemon.said(ThrusterCommand, time.monotonic_ns() - S // 2)
    assert commands and all(command.armed for command in commands)
    assert not {"operator_lost", "gave_up", "hung"} & set(daemon.events(began))
    assert operator.stop().accepted


def test_others_of_this_machine_cannot_read_its_dives(daemon: Daemon) -> None:
    dive = next(iter(daemon.dives.glob("*.mcap")))
    assert dive.stat().st_mode & 0o027 == 0 and daemon.dives.stat().st_mode & 0o027 == 0
