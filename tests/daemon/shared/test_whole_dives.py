"""What the daemon of the other tests leaves on disk after all that was done to it."""

from __future__ import annotations

import contextlib
import subprocess

import pytest

from rov.dives.dive import Dive
from rov.messages import Event
from tests.daemon.harness import MS, Daemon

pytestmark = [pytest.mark.clock, pytest.mark.daemon]

S = 1000 * MS


def test_everything_heard_is_in_the_dives_and_they_replay(shared: Daemon) -> None:
    """The last of these tests, by the name of its file: it ends the daemon."""
    assert shared.stop() == 0
    written: set[tuple[int, str]] = set()
    for path in sorted(shared.dives.glob("*.mcap")):
        with Dive(path) as dive:
            assert dive.complete, (path, dive.problems)
            written |= {(r.t, r.data.code) for r in dive.messages(["events"]) if isinstance(r.data, Event)}
    heard = {(event.t, event.code) for event in shared.said(Event)}
    silent = [event.t for event in shared.said(Event) if event.code == "restarted" and "recorderd" in event.text]
    lost = {(t, code) for t, code in heard - written if not any(0 <= since - t <= S for since in silent)}
    assert len(heard) > 100 and not lost
    with contextlib.suppress(subprocess.TimeoutExpired):
        assert shared.process is not None and shared.process.wait(1) == 0
