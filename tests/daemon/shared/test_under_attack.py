"""Attacks on the public side of a running daemon: the pilot keeps its pace, and a stop gets through."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import pytest

from rov.messages import Health, PilotStatus, ThrusterCommand
from tests.daemon.harness import MS, Daemon, Operator, may_be_realtime
from tests.test_public_server import ATTACKS, attacked

pytestmark = [pytest.mark.clock, pytest.mark.daemon]

S, STOP_NS = 1000 * MS, 500 * MS


@pytest.mark.parametrize("attack", ["full of heartbeats", "rubbish"])
def test_the_pilot_keeps_its_pace(daemon: Daemon, attack: str) -> None:
    if not may_be_realtime():
        pytest.skip("the pilot's pace needs real-time scheduling")
    kind, many, hello, load = ATTACKS[attack]
    daemon.armed(surge=0.3)
    port = urlsplit(daemon.config.bus.commands).port
    assert port
    lost = max((each.dropped for each in daemon.said(Health) if each.process == "pilotd"), default=0)
    with attacked(kind, port, many, hello, load):
        began = time.monotonic_ns()

        def paced(health: Health) -> bool:
            return health.process == "pilotd" and health.t - S > began

        time.sleep(2.2)
        daemon.wait(Health, paced)  # it counts for a second
        stranger = Operator(daemon.config.bus.commands, "stranger", beating=False)
        asked = time.monotonic_ns()
        assert stranger.stop().accepted
        stopped = daemon.wait(PilotStatus, lambda status: not status.armed, asked)
    stranger.close()
    rate = min(each.rate_hz for each in daemon.said(Health, began) if paced(each) and each.t <= asked)
    print(f"{attack}: {rate:.2f} Hz, stop {(stopped.t - asked) / MS:.0f} ms")
    heard = sum(each.t <= asked for each in daemon.said(ThrusterCommand, began))
    assert rate >= 49.0 and heard > 90, f"{rate} Hz; a listener has heard {heard} commands"
    assert stopped.t - asked <= STOP_NS + 200 * MS, "its status is published five times a second"
    assert all(each.dropped == lost for each in daemon.said(Health, began) if each.process == "pilotd")
