"""Another model in a running daemon: taken between two frames or refused; the pilot notices nothing."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rov.messages import Detections, Health, Setpoint
from tests.daemon.harness import MS, Daemon, wait_for
from tests.test_model_swap import make

pytestmark = [pytest.mark.clock, pytest.mark.daemon]
RATE_HZ = 10.0
QUIET_S, AFTER_S = 4.0, 2.0


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    running = Daemon(tmp_path, perception={"rate_hz": RATE_HZ})
    yield running
    running.close()


def gaps_ms(daemon: Daemon, start: int, end: int) -> list[float]:
    """Times between published frames in a span of time."""
    times = [each.t for each in daemon.said(Detections, start) if each.t <= end]
    return [(b - a) / MS for a, b in zip(times, times[1:], strict=False)]


def lateness_ms(daemon: Daemon, start: int, end: int) -> list[float]:
    """The pilot's worst lateness in each second of a span of time."""
    return [h.latency_ms for h in daemon.said(Health, start) if h.process == "pilotd" and start <= h.t <= end]


def refused(daemon: Daemon, weights: str) -> str:
    """Ask for a model that does not fit; returns what is said."""
    since = time.monotonic_ns()
    daemon.edit("perception", weights=weights)
    text = daemon.event("model_refused", since, 60.0).text
    assert not {"model_switched", "gave_up", "child_died"} & set(daemon.events(since))
    return text


def test_models_change_while_it_runs(daemon: Daemon, tmp_path: Path) -> None:
    daemon.wait(Setpoint, lambda each: True, seconds=60.0)
    began = daemon.ready()
    wait_for(lambda: len(daemon.said(Detections, began)) > QUIET_S * RATE_HZ, "frames", 30.0)
    other = tmp_path / "other.safetensors"
    shutil.copy(daemon.weights, other)
    other.with_suffix(".toml").write_text(daemon.card.read_text())
    asked = daemon.said(Detections)[-1].t
    daemon.edit("perception", weights=str(other))
    switched = daemon.event("model_switched", asked, 60.0)
    assert "other.safetensors" in switched.text
    end = switched.t + int(AFTER_S * 1e9)
    daemon.wait(Detections, lambda each: each.t > end)

    before, during = gaps_ms(daemon, began, asked), gaps_ms(daemon, asked, end)
    late, late_then = lateness_ms(daemon, began, asked), lateness_ms(daemon, asked, end)
    print(f"gap: median {statistics.median(before):.1f}, worst {max(before):.1f}; swap: worst {max(during):.1f} ms")
    print(f"pilot late: {[round(each, 2) for each in late]}; swap: {[round(each, 2) for each in late_then]} ms")
    assert max(during) < 2.5 * statistics.median(before), "one frame at most is left out"
    assert max(late_then) <= max(2 * max(late), 5.0)

    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(other.read_bytes()[:1000])
    torn.with_suffix(".toml").write_text(daemon.card.read_text())
    assert "not the file its card describes" in refused(daemon, str(torn))
    assert "does not know" in refused(daemon, make(tmp_path, "few", ("buoy_red", "fish")))
    slow = tmp_path / "slow.safetensors"
    shutil.copy(other, slow)
    slow.with_suffix(".toml").write_text(daemon.card.read_text().replace("size = 96", "size = 2048"))
    assert "ms for a frame" in refused(daemon, str(slow))

    killed = daemon.kill("perceptiond")
    assert "ms for a frame" in daemon.event("model_refused", killed, 60.0).text, "it starts with the model that works"
    daemon.wait(Detections, lambda each: each.t > killed)
    assert daemon.stop() == 0
