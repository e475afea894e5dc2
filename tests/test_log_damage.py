"""Logs as a broken card or a full disk leaves them: read as far as they can be, one sentence where not, never silly."""

import itertools
import math
import os
import random
import time
from pathlib import Path

import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav

from rov.errors import UserError
from rov.imports import dive, logs
from rov.messages import Sticks
from tests.logs import BinFile, TlogFile, attitude, heartbeat

pytestmark = pytest.mark.patient

TRIALS = int(os.environ.get("ROV_FUZZ_LOGS", 20))
"""Of each kind."""
SECONDS_MAX = 10.0
SAID_MAX = 4000
"""Characters that a damaged log may cause on the terminal."""
LENGTH_S = 30.0


def telemetry() -> bytes:
    log = TlogFile()
    for k in range(300):
        t = k / 10
        ms = round(1000 * (50 + t))
        if k % 10 == 0:
            log.add(t, heartbeat(armed=k > 50, mode=2))
            log.add(t, mav.MAVLink_battery_status_message(0, 0, 1, 0, [15_800] + [0xFFFF] * 9, -1, -1, -1, -1))
            log.add(t, mav.MAVLink_statustext_message(4, b"something to say"))
        log.add(t, attitude(50 + t))
        log.add(t, mav.MAVLink_scaled_pressure2_message(ms, 1013 + k, 0, 900))
        log.add(t, mav.MAVLink_global_position_int_message(ms, 0, 0, 0, -10 * k, 0, 0, 0, 0))
        log.add(t, mav.MAVLink_manual_control_message(1, 100, 0, 500, 0, 1 << k % 8), 255, 190)
        log.add(t, mav.MAVLink_servo_output_raw_message(0, 0, *[1500 + k] * 8, *[0] * 8))
    return bytes(log.data)


def dataflash() -> bytes:
    log = BinFile()
    for k in range(300):
        t = 50 + k / 10
        log.add(t, "ATT", 0, 100, 0, -50, 0, 9000)
        log.add(t, "CTUN", 0.0, 0.0, 0.0, 0.0, 0.0, -k / 100, -k)
        log.add(t, "BARO", 1, 0.0, 101_325.0 + 100 * k, 900)
        log.add(t, "BAT", 0, 15.8)
        log.add(t, "RCIN", 1500, 1500, 1500, 1500, 1500, 1500)
        log.add(t, "RCOU", 1500, 1500, 1500, 1500, 1500, 1500)
        if k % 10 == 0:
            log.add(t, "MSG", b"something to say")
            log.add(t, "ARM", k > 50)
            log.add(t, "MODE", 2, 2, 1)
            log.add(t, "ERR", 26, 0)
    return bytes(log.data)


def damaged(noise: random.Random, whole: bytes) -> bytes:
    data = bytearray(whole)

    def at() -> int:
        return noise.randrange(len(data))

    match noise.randrange(8):
        case 0:
            del data[at() :]
        case 1:
            for _ in range(noise.randint(1, 200)):
                data[at()] ^= 1 << noise.randrange(8)
        case 2:
            for _ in range(noise.randint(1, 200)):
                data[at()] = noise.randrange(256)
        case 3:
            here = at()
            del data[here : here + noise.randint(1, 5000)]
        case 4:
            here = at()
            data[here:here] = noise.randbytes(noise.randint(1, 5000))
        case 5:
            here = at()
            length = noise.randint(1, 20_000)
            data[here : here + length] = bytes(len(data[here : here + length]))
        case 6:
            here, there = sorted((at(), at()))
            data[here:here] = data[here:there]  # a stretch twice
        case _:
            for _ in range(noise.randint(1, 3)):  # the beginning, where a .BIN describes its records
                data[noise.randrange(min(len(data), 2000))] = noise.randrange(256)
    return bytes(data)


@pytest.mark.usefixtures("swept")
@pytest.mark.parametrize("suffix", ["tlog", "BIN"])
def test_a_damaged_log_is_read_or_refused(suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    noise, whole = random.Random(7), telemetry() if suffix == "tlog" else dataflash()
    path, out = tmp_path / f"l.{suffix}", tmp_path / "d.mcap"
    read = refused = 0
    for trial in range(TRIALS):
        path.write_bytes(damaged(noise, whole))
        begin = time.process_time()
        try:
            log = logs.read(path)
            dive.write(out, log, None, 0.0, {}, quality=90, overwrite=True)
            read += 1
            sensible(log)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
        assert time.process_time() - begin < SECONDS_MAX, trial
    said = capfd.readouterr()
    assert len(said.out) + len(said.err) < SAID_MAX
    assert read > 0.6 * TRIALS, f"{refused} refused"


def sensible(log: logs.Log) -> None:
    """Times advance, within what the log may last (twice over, for a stretch that is there twice), and numbers are
    finite."""
    assert log.states
    for said in log.topics.values():
        assert all(b.t >= a.t for a, b in itertools.pairwise(said))
        assert all(0 <= each.t <= (50 + 3 * LENGTH_S) * 1e9 for each in said)
    for state in log.states:
        assert all(map(math.isfinite, (state.roll, state.pitch, state.yaw, state.depth, *state.rates)))
    for stick in (each for each in log.commands if isinstance(each, Sticks)):
        assert all(abs(each) <= 1 for each in (stick.surge, stick.sway, stick.heave, stick.yaw))
    assert len(log.notes) < 20 and len(log.dropped) < 20
