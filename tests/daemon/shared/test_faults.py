"""What may break on a dive, broken: real processes, a real pty, one daemon for all of it. Deadlines are those of the
safety numbers plus GRACE; whether a thruster moved is read from the board's own record."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq
from safetensors.torch import load_file, save_file

from rov.bus import encode
from rov.dives.dive import Dive, EncodedPicture
from rov.messages import (
    Arm,
    Disarm,
    Event,
    Heartbeat,
    Mode,
    PilotStatus,
    Setpoint,
    ThrusterCommand,
    VehicleState,
    Wrench,
)
from rov.motion.allocation import effect
from rov.resources import checkout
from rov.vision.detector import sha256
from tests.daemon.harness import GRACE, MS, Daemon, Operator, environment, may_be_realtime, wait_for

pytestmark = [pytest.mark.clock, pytest.mark.daemon]

TICK = 20 * MS
WATCHDOG = 520 * MS
"""The board's own, at its latest."""
S = 1000 * MS
LIMIT_V1 = "memory.limit_in_bytes"


@pytest.fixture
def scarce() -> Iterator[Path | None]:
    """A control group with 100 MB of memory, less than torch takes; None where this machine lends none."""
    root = Path("/sys/fs/cgroup")
    parent, limit = (root, "memory.max") if (root / "cgroup.controllers").exists() else (root / "memory", LIMIT_V1)
    group = parent / f"rov-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        yield None
        return
    try:
        (group / limit).write_text(str(100 << 20))
        yield group
    except OSError:  # the memory controller is not handed down to groups here
        yield None
    finally:
        group.rmdir()


def stopped(daemon: Daemon, deadline: int = 0) -> None:
    """Anybody's stop, whatever is going on: neutral at once, and it stays so with the sticks held. `deadline`: where
    the board cannot hear it, and its watchdog must do."""
    stranger = Operator(daemon.config.bus.commands, "stranger", beating=False)
    try:
        assert stranger.stop().accepted
        answered = time.monotonic_ns()
        event = daemon.event("stopped", answered - 5 * S)
        assert event.t <= answered
        time.sleep(0.3)
        while time.monotonic_ns() < deadline:
            time.sleep(0.02)
        daemon.neutral_by(max(answered + TICK + GRACE, deadline))
    finally:
        stranger.close()


def in_hold_by(daemon: Daemon, deadline: int, since: int) -> None:
    """`follow` ended in `hold` in time: after a second without perception, or before, where a busy machine saw too
    seldom already."""
    codes = {"perception_gone", "perception_slow"}
    event = daemon.wait(Event, lambda event: event.code in codes, since)
    assert event.t <= deadline, (event.t - deadline) / MS
    daemon.wait(PilotStatus, lambda s: s.mode is Mode.HOLD and s.armed, event.t)


def still_in_hold(daemon: Daemon, since: int) -> None:
    """Perception is back, and that changes nothing."""
    daemon.wait(Setpoint, lambda setpoint: True, since)
    time.sleep(0.5)
    assert {status.mode for status in daemon.said(PilotStatus, since)} == {Mode.HOLD}


# ---- the processes ----------------------------------------------------------------------------------------------


def test_the_pilot_and_what_a_stop_passes_through_come_before_all_else(daemon: Daemon) -> None:
    if not may_be_realtime():
        pytest.skip("needs to be allowed real-time scheduling")
    pid = daemon.pid("pilotd")
    (bus,) = (task for task in Path(f"/proc/{pid}/task").iterdir() if "IO/0" in (task / "comm").read_text())
    assert os.sched_getscheduler(pid) == os.sched_getscheduler(int(bus.name)) == os.SCHED_FIFO
    assert os.sched_getparam(pid).sched_priority > os.sched_getparam(int(bus.name)).sched_priority


def test_pilotd_is_killed(daemon: Daemon) -> None:
    daemon.armed(surge=0.8)
    t = daemon.kill("pilotd")
    daemon.event("restarted", t)
    daemon.wait(PilotStatus, lambda status: not status.armed, t + S)
    time.sleep(1.0)  # the sticks go on
    daemon.neutral_by(t + WATCHDOG + GRACE)


def test_pilotd_hangs(daemon: Daemon) -> None:
    daemon.armed(surge=0.8)
    t = daemon.kill("pilotd", signal.SIGSTOP)
    assert daemon.event("hung", t).t <= t + S + 200 * MS + GRACE  # its status is said five times a second
    daemon.event("restarted", t)
    daemon.wait(PilotStatus, lambda status: not status.armed, t + S)
    daemon.neutral_by(t + WATCHDOG + GRACE)


def test_pilotd_pauses_shorter_than_the_watchdog(daemon: Daemon) -> None:
    daemon.armed(surge=0.8)
    pid = daemon.pid("pilotd")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.25)
    os.kill(pid, signal.SIGCONT)
    t = time.monotonic_ns()
    daemon.wait(PilotStatus, lambda status: status.armed, t + 400 * MS)
    assert daemon.pid("pilotd") == pid
    stopped(daemon)


@pytest.mark.parametrize("name", ["camerad", "perceptiond"])
def test_what_sees_is_killed(daemon: Daemon, name: str) -> None:
    daemon.armed(Mode.FOLLOW)
    if name == "camerad":  # it is back within a second, which follow outlives; its camera is not
        (daemon.folder / "camera").write_text("silent")
    t = daemon.kill(name)
    in_hold_by(daemon, t + S + TICK + GRACE, t)
    daemon.event("restarted", t)
    (daemon.folder / "camera").write_text("live")
    still_in_hold(daemon, t + S)
    stopped(daemon)


def test_camerad_hangs_for_a_while(daemon: Daemon) -> None:
    daemon.armed(Mode.FOLLOW)
    t = daemon.kill("camerad", signal.SIGSTOP)
    in_hold_by(daemon, t + S + TICK + GRACE, t)
    daemon.kill("camerad", signal.SIGCONT)
    still_in_hold(daemon, t + S)
    assert "restarted" not in daemon.events(t)
    stopped(daemon)


def test_inference_hangs_while_battery_and_hull_fail(daemon: Daemon) -> None:
    daemon.armed(Mode.FOLLOW)
    t = daemon.kill("perceptiond", signal.SIGSTOP)
    in_hold_by(daemon, t + S + TICK + GRACE, t)
    stopped(daemon)
    battery_and_hull(daemon)
    assert "hung" not in daemon.events(t)
    daemon.armed(Mode.HOLD)
    assert daemon.event("hung", t).t <= t + 10 * S + S + GRACE  # it said how it is doing once a second
    daemon.event("restarted", t)
    still_in_hold(daemon, daemon.event("hung", t).t + S)


def test_memory_runs_out_in_perceptiond(daemon: Daemon, scarce: Path | None) -> None:
    daemon.armed(surge=0.8)
    t = daemon.kill("perceptiond")  # as the kernel does, the most expendable first
    daemon.event("restarted", t)
    pid, again = daemon.pid("perceptiond"), time.monotonic_ns()
    if scarce:
        (scarce / "cgroup.procs").write_text(str(pid))
        assert "perceptiond was killed by SIGKILL" in daemon.event("restarted", again).text
        v2 = scarce / "memory.events"
        assert "oom_kill 1" in (v2 if v2.exists() else scarce / "memory.oom_control").read_text()  # the kernel's doing
    else:
        resource.prlimit(pid, resource.RLIMIT_AS, (200 << 20, 200 << 20))  # torch does not fit
        assert "ended with" in daemon.event("restarted", again).text
    assert all(status.armed and status.mode is Mode.MANUAL for status in daemon.said(PilotStatus, t))
    stopped(daemon)
    daemon.wait(Setpoint, lambda setpoint: True, again + S)
    pid = daemon.pid("perceptiond")
    assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) > int(
        Path(f"/proc/{daemon.pid('pilotd')}/oom_score_adj").read_text()
    )


def test_recorderd_is_killed(daemon: Daemon) -> None:
    daemon.armed(surge=0.8)
    cut = max(daemon.dives.glob("*.mcap"), key=lambda path: path.stat().st_mtime)
    t = daemon.kill("recorderd")
    daemon.event("restarted", t)
    daemon.event("dive_recovered", t)
    with Dive(cut) as dive:
        assert dive.complete
        last = max(record.t for record in dive.messages(["thrusters"]))
    assert last >= t - 500 * MS - GRACE  # what was written half a second ago is on the disk
    commands = daemon.said(ThrusterCommand, t)
    assert all(command.armed for command in commands)
    stopped(daemon)


def test_recorderd_hangs_for_a_while(daemon: Daemon) -> None:
    daemon.armed(surge=0.8)
    t = daemon.kill("recorderd", signal.SIGSTOP)
    time.sleep(1.5)
    commands = [command.t for command in daemon.said(ThrusterCommand, t)]
    assert np.diff(commands).max() < 5 * TICK + GRACE and len(commands) > 50
    stopped(daemon)
    daemon.kill("recorderd", signal.SIGCONT)
    assert "restarted" not in daemon.events(t)


def test_the_supervisor_hangs_for_a_while(daemon: Daemon) -> None:
    operator = daemon.armed(surge=0.8)
    assert daemon.process is not None
    t = time.monotonic_ns()
    daemon.process.send_signal(signal.SIGSTOP)
    time.sleep(2.5)
    assert operator.stop().accepted
    answered = time.monotonic_ns()
    time.sleep(0.3)
    daemon.neutral_by(answered + TICK + GRACE)
    daemon.process.send_signal(signal.SIGCONT)
    daemon.event("stopped", t)
    daemon.wait(PilotStatus, lambda status: True, answered + S)
    assert not {"hung", "restarted"} & set(daemon.events(t))


# ---- the camera, and what the network makes of it -----------------------------------------------------------------


@pytest.mark.parametrize("fault", ["frozen", "silent", "end"])
def test_the_camera_fails(daemon: Daemon, fault: str) -> None:
    daemon.armed(Mode.FOLLOW)
    control = daemon.folder / "camera"
    control.write_text(fault)
    t = time.monotonic_ns()
    frame = 2 * S // 12  # a frame may be under way, and three must be the same before they are frozen
    in_hold_by(daemon, t + S + 3 * frame + TICK + GRACE, t)
    daemon.event({"frozen": "camera_frozen"}.get(fault, "camera_lost"), t)
    back = time.monotonic_ns()
    control.write_text("live")
    still_in_hold(daemon, back)
    stopped(daemon)


# ---- the link -----------------------------------------------------------------------------------------------------


def test_the_serial_cable_is_pulled_out_and_put_in(daemon: Daemon) -> None:
    daemon.armed(surge=0.8)
    t = daemon.do("unplug")
    assert daemon.event("link_lost", t).t <= t + 2 * TICK + GRACE
    daemon.wait(PilotStatus, lambda status: not status.armed, t)
    stopped(daemon, t + WATCHDOG + GRACE)
    daemon.do("plug")
    daemon.event("link_open", t)
    time.sleep(1.0)
    daemon.neutral_by(t + WATCHDOG + GRACE)
    daemon.wait(VehicleState, lambda state: True, t + S)
    daemon.armed(surge=0.8)  # and all is well again


def test_the_board_takes_nothing(daemon: Daemon) -> None:
    daemon.armed(surge=0.8)
    t = daemon.do("deaf 1")
    event = daemon.event("board_deaf", t)
    assert event.t <= t + 300 * MS + 2 * TICK + GRACE
    daemon.wait(PilotStatus, lambda status: not status.armed, t)
    stopped(daemon, t + WATCHDOG + GRACE)
    daemon.do("deaf 0")
    time.sleep(0.7)
    daemon.neutral_by(t + WATCHDOG + GRACE)


def test_the_board_says_nothing(daemon: Daemon) -> None:
    daemon.armed(Mode.HOLD, surge=0.8)
    t = daemon.do("mute 1")
    daemon.event("vehicle_lost", t)
    daemon.wait(PilotStatus, lambda status: not status.armed, t)
    time.sleep(0.2)
    daemon.do("mute 0")
    daemon.neutral_by(t + WATCHDOG + GRACE)
    daemon.event("vehicle_lost_over", t)


@pytest.mark.parametrize(
    "faults",
    [{"cut": 0.2, "corrupt": 0.2, "noise": 0.3}, {"swap": 0.3, "repeat": 0.3}],
    ids=["damaged", "out of order"],
)
def test_the_line_is_bad(daemon: Daemon, faults: dict[str, float]) -> None:
    """Half frames, flipped bits and random bytes; out of order and twice: the vehicle goes on, or is disarmed."""
    daemon.armed(surge=0.8)
    pid, t = daemon.pid("pilotd"), time.monotonic_ns()
    for name, share in faults.items():
        daemon.do(f"{name} {share}")
    daemon.do("garbage 2000")
    daemon.event("link_noisy", t)
    stopped(daemon)
    for name in faults:
        daemon.do(f"{name} 0")
    daemon.event("link_noisy_over", t)
    assert daemon.pid("pilotd") == pid
    for command in daemon.said(ThrusterCommand, t):
        assert np.isfinite(command.values).all() and np.abs(command.values).max() <= daemon.config.guard.gain


# ---- the vehicle ----------------------------------------------------------------------------------------------------


def test_water_in_the_hull(daemon: Daemon) -> None:
    daemon.armed(heave=0.5)
    t = daemon.do("leak 1")
    event = daemon.event("leak", t)
    assert event.level == "alarm" and event.t <= t + 2 * TICK + GRACE
    daemon.wait(PilotStatus, lambda status: status.mode is Mode.SURFACE and status.armed, t)
    assert daemon.wait(Wrench, lambda wrench: wrench.mode is Mode.SURFACE, t).heave < 0
    stopped(daemon)
    daemon.do("leak 0")


def battery_and_hull(daemon: Daemon) -> None:
    daemon.armed(surge=0.3)
    t = daemon.do("battery_v 13.0")  # 3.25 V per cell
    daemon.do("hull_c 70")
    daemon.do("hull_kpa 110")
    slack = 500 * MS + TICK + GRACE  # said twice a second
    assert daemon.event("battery_warning", t).t <= t + slack
    for code in ("hull_hot", "hull_pressure"):
        assert t + 2 * S <= daemon.event(code, t).t <= t + 2 * S + slack
    assert t + 5 * S <= daemon.event("battery_low", t).t <= t + 5 * S + slack
    daemon.wait(PilotStatus, lambda status: status.mode is Mode.SURFACE, t)
    for line in ("battery_v 16.0", "hull_c 25", "hull_kpa 100"):
        daemon.do(line)
    stopped(daemon)


def test_too_deep(daemon: Daemon) -> None:
    daemon.armed(heave=1.0)
    daemon.do("depth 25")
    t = daemon.event("too_deep", time.monotonic_ns() - S).t
    time.sleep(1.0)
    down = np.asarray(effect(daemon.config.vehicle.frame)[2])
    for command in daemon.said(ThrusterCommand, t + 500 * MS):  # half a second: the slew of what was under way
        assert np.dot(command.values, down) <= 1e-9
    stopped(daemon)
    daemon.do("depth 5")


def test_tilted(daemon: Daemon) -> None:
    daemon.armed(surge=0.3)
    t = time.monotonic_ns()
    while time.monotonic_ns() - t < 2.4 * S and "tilted" not in daemon.events(t):
        daemon.do("roll 60")
        time.sleep(0.02)
    event = daemon.event("tilted", t)
    assert t + 2 * S <= event.t <= t + 2 * S + 4 * TICK + GRACE
    daemon.do("roll 0")
    daemon.neutral_by(event.t + TICK + GRACE)


# ---- those who command and listen -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [Mode.MANUAL, Mode.HOLD, Mode.FOLLOW, Mode.SURFACE])
def test_stop_in_every_mode(daemon: Daemon, mode: Mode) -> None:
    operator = daemon.armed(mode, surge=0.8) if mode in (Mode.MANUAL, Mode.HOLD) else daemon.armed(mode)
    stopped(daemon)
    t = time.monotonic_ns()
    operator.sticks = {"surge": 1.0}
    time.sleep(0.6)
    daemon.quiet(t)
    status = daemon.wait(PilotStatus, lambda status: True, t)
    assert not status.armed and status.mode is Mode.MANUAL


def test_the_operator_is_lost(daemon: Daemon) -> None:
    operator = daemon.armed(surge=0.8)
    operator.beating = False
    t = time.monotonic_ns()
    event = daemon.event("operator_lost", t)
    assert t + 2 * S - GRACE <= event.t <= t + 3 * S + 2 * TICK + GRACE  # its last heartbeat is up to 1 s old
    time.sleep(0.3)  # the sticks go on
    daemon.neutral_by(event.t + TICK + GRACE)


@pytest.mark.parametrize("then", [Mode.HOLD, Mode.SURFACE])
def test_the_operator_is_lost_and_the_vehicle_goes_on(daemon: Daemon, then: Mode) -> None:
    daemon.edit("operator", on_lost=then.value)
    operator = daemon.armed(surge=0.8)
    operator.beating = False
    t = time.monotonic_ns()
    event = daemon.event("operator_lost", t)
    assert event.t <= t + 3 * S + 2 * TICK + GRACE
    daemon.wait(PilotStatus, lambda s: s.mode is then and s.armed, event.t)
    began = event.t + 500 * MS
    time.sleep(1.0)  # the sticks go on, and are nobody's
    wrenches = daemon.said(Wrench, began)
    assert wrenches and all(w.mode is then and w.surge == w.sway == 0 for w in wrenches)
    if then is Mode.SURFACE:
        assert all(wrench.heave < 0 for wrench in wrenches)
    operator.beating = True
    daemon.patiently(operator.take_over)  # back, which alone changes nothing
    time.sleep(0.3)
    assert {status.mode for status in daemon.said(PilotStatus, event.t + TICK)} == {then}
    stopped(daemon)
    daemon.edit("operator", on_lost="disarm")


def test_bad_commands(daemon: Daemon) -> None:
    operator = daemon.armed(surge=0.8)
    pid, t = daemon.pid("pilotd"), time.monotonic_ns()
    with zmq.Context() as context:
        for junk in (b"\xff" * 50, b"\x92\x01", b"\x92\x01\x80", encode(Heartbeat(t=0, session="x" * 65, seq=1))):
            with context.socket(zmq.DEALER) as raw:  # who begins with rubbish is answered, and shown out
                raw.linger = 0
                raw.connect(daemon.config.bus.commands)
                raw.send(junk)
                assert raw.poll(2000), junk
                assert b"not understood" in raw.recv()
        with context.socket(zmq.DEALER) as raw:
            raw.linger = 0
            raw.connect(daemon.config.bus.commands)
            raw.send(b"")
            raw.send(b"\x00" * 100_000)  # its connection is closed
            raw.send_multipart([b"a"] * 5)
    replayed = encode(Arm(t=time.monotonic_ns(), session="pilot", seq=operator.seq))
    assert operator.disarm().accepted
    with zmq.Context() as context, context.socket(zmq.DEALER) as raw:
        raw.linger = 0
        raw.connect(daemon.config.bus.commands)
        raw.send(replayed)
        assert raw.poll(2000) and b"was used before" in raw.recv()
    disarmed = time.monotonic_ns()
    time.sleep(0.5)
    daemon.neutral_by(disarmed + GRACE)
    assert daemon.pid("pilotd") == pid and "restarted" not in daemon.events(t)


def test_two_operators(daemon: Daemon) -> None:
    first = daemon.armed(surge=0.5)
    second = Operator(daemon.config.bus.commands, "second")
    try:
        for refused in (second.say(Disarm), second.mode(Mode.HOLD), second.take_over()):
            assert not refused.accepted and "the operator is pilot" in refused.reason
        assert second.take_over(displace=True).accepted
        t = time.monotonic_ns()
        daemon.wait(PilotStatus, lambda status: status.operator == "second", t)
        assert not first.mode(Mode.HOLD).accepted
        time.sleep(0.5)  # the first one's sticks are nobody's now
        daemon.neutral_by(t + 300 * MS + 500 * MS + GRACE)  # stale, and then neutral
        assert first.stop().accepted
    finally:
        second.close()


def test_a_subscriber_that_never_reads(daemon: Daemon) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as deaf:
        deaf.linger, deaf.rcvhwm = 0, 1
        deaf.connect(daemon.config.bus.public)
        deaf.subscribe(b"")
        daemon.armed(surge=0.5)
        t = time.monotonic_ns()
        time.sleep(2.0)
        stamps = [command.t for command in daemon.said(ThrusterCommand, t)]
        assert len(stamps) > 80 and np.diff(stamps).max() < 5 * TICK + GRACE
        stopped(daemon)


def test_a_second_daemon_is_refused(daemon: Daemon) -> None:
    command = [sys.executable, "-m", "rov", "run", str(daemon.path)]
    run = subprocess.run(
        command, capture_output=True, text=True, env=environment(), cwd=checkout(), timeout=60, check=False
    )
    assert run.returncode == 2 and len(run.stderr.splitlines()) == 1 and "is in use" in run.stderr, run.stderr


def test_the_network_gives_nan(daemon: Daemon) -> None:
    """Late: five deaths of a process within a minute are too many, and others are killed above."""
    daemon.armed(Mode.FOLLOW)
    weights, card = daemon.weights, daemon.card
    good = weights.read_bytes(), card.read_text()
    tensors = load_file(weights)
    name = next(name for name in tensors if name.endswith("head.1.bias"))
    tensors[name] = tensors[name] * float("nan")
    save_file(tensors, weights)
    old = msgspec.toml.decode(good[1])["weights_sha256"]
    card.write_text(good[1].replace(old, sha256(weights)))
    t = daemon.kill("perceptiond")
    in_hold_by(daemon, t + S + TICK + GRACE, t)
    daemon.event("bad_network", t)
    began = time.monotonic_ns()
    time.sleep(1.0)
    assert not daemon.said(Setpoint, began)
    reply = daemon.operator().mode(Mode.FOLLOW)
    assert not reply.accepted and "fresh setpoints" in reply.reason
    stopped(daemon)
    daemon.armed(Mode.HOLD)
    weights.write_bytes(good[0])
    card.write_text(good[1])
    again = daemon.kill("perceptiond")
    still_in_hold(daemon, again)


# ---- tuning ------------------------------------------------------------------------------------------------------


def test_tuned_within_a_second_and_without_a_hitch(daemon: Daemon) -> None:
    """The pilot keeps its pace through five edits, and no thruster changes faster than the guard lets it."""
    daemon.armed(Mode.HOLD, surge=0.5)
    begin = time.monotonic_ns()
    for depth_kp in (1.4, 1.3, 0.5, 2.0, 1.5):
        t = time.monotonic_ns()
        daemon.edit("control", depth_kp=depth_kp)
        assert daemon.event("tuned", t).t - t < S + GRACE
    time.sleep(1.0)
    said = [command for command in daemon.said(ThrusterCommand, begin) if command.armed]
    gaps = np.diff([command.t for command in said])
    assert gaps.max() < 2 * TICK + GRACE and np.median(gaps) < 1.1 * TICK
    steps = np.abs(np.diff([command.values for command in said], axis=0)).max(axis=1)
    assert (steps <= daemon.config.guard.slew * gaps / S + 1e-6).all()


def test_the_recorder_is_tuned_while_it_records(daemon: Daemon) -> None:
    """Coarser pictures from then on, in the same dive; and a dive that may only be half a second long ends."""

    def parts() -> set[Path]:
        return set(daemon.dives.glob("*.mcap"))

    before, begin = parts(), time.monotonic_ns()
    time.sleep(1.0)
    edited = time.monotonic_ns()
    daemon.edit("recording", jpeg_quality=30)
    time.sleep(1.5)
    daemon.edit("recording", part_minutes=0.5 / 60)
    wait_for(lambda: parts() - before, "another dive")
    daemon.edit("recording", part_minutes=30.0, jpeg_quality=90)
    with Dive(max(before)) as dive:
        assert dive.complete
        sizes = [
            (record.t, len(record.data.data))
            for record in dive.messages(["camera"])
            if type(record.data) is EncodedPicture
        ]
    fine = [size for t, size in sizes if begin < t < edited]
    coarse = [size for t, size in sizes if t > edited + S]
    assert fine and coarse and max(coarse) < 0.7 * min(fine)
