"""Recordings with something wrong in them, ours and others': one sentence or pictures; never a traceback, a long wait,
or memory without bounds. By default a few of each; in full with

ROV_FUZZ_DIVES=40 python -m pytest -s tests/test_dive_fuzz.py
"""

from __future__ import annotations

import os
import random
import struct
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from rov.config.schema import Config, VehicleConfig
from rov.dives.dive import Dive
from rov.dives.origin import DiveOrigin
from rov.dives.recovery import cut, info, recover
from rov.errors import UserError
from rov.offline.source import open_recording
from tests.foreign import write
from tests.test_origin import recorded, then
from tests.test_others import BUILDS, FILMS, mavlink, two

MUTATIONS = int(os.environ.get("ROV_FUZZ_DIVES", 3))
"""Of each of the 8 kinds of files."""
SECONDS_MAX = 10.0
BYTES_MAX = 200_000_000
KINDS = ("ours", "ros2", "blueos", "json", "no chunks", "lz4", "no summary", "two cameras")


def made(kind: str, path: Path) -> Path:
    match kind:
        case "ours":
            return recorded(path, then())
        case "two cameras":
            return two(path)
        case "blueos":
            return write(path, [FILMS["blueos"], mavlink("ATTITUDE", roll=0.1, pitch=0.0, yaw=0.0), FILMS["rgb16"]])
        case "ros2" | "json":
            return write(path, [FILMS[kind], FILMS["ros2 big-endian"]])
    return write(path, [FILMS["ros2"], FILMS["foxglove raw"], FILMS["ros1"]], **BUILDS[kind])


def mutated(data: bytes, noise: random.Random) -> bytes:
    """One to three things wrong with it."""
    found = bytearray(data)
    for _ in range(noise.randint(1, 3)):
        at = noise.randrange(8, max(9, len(found)))
        match noise.randrange(7):
            case 0:
                found[at : at + 1] = bytes([noise.randrange(256)])
            case 1:
                del found[at:]
            case 2:
                found[at : at + noise.randrange(200)] = noise.randbytes(noise.randrange(200))
            case 3:  # a length or a time that is absurd
                found[at : at + 8] = struct.pack("<Q", noise.choice((0, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1)))
            case 4:
                found[at : at + 500] = bytes(500)
            case 5:  # a piece twice
                found[at:at] = found[at : at + noise.randrange(2000)]
            case 6:  # near its end, where the table of contents is
                last = max(8, len(found) - noise.randrange(1, 700))
                found[last : last + 4] = noise.randbytes(4)
    return bytes(found)


def replayed(path: Path, folder: Path) -> int:
    source = open_recording(path)
    if source.dive:
        DiveOrigin(source.dive, Config(vehicle=VehicleConfig(max_depth=5.0)), folder)
    return sum(1 for _ in source.items)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_recording_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    whole = made(kind, tmp_path / "whole.mcap").read_bytes()
    noise = random.Random(KINDS.index(kind))
    results: Counter[str] = Counter()
    tracemalloc.start()
    for n in range(MUTATIONS):
        path, out = tmp_path / f"{n}.mcap", tmp_path / f"{n}.out.mcap"
        path.write_bytes(mutated(whole, noise))
        began = time.monotonic()
        for action in (
            lambda path=path: replayed(path, tmp_path),
            lambda path=path: info(path),
            lambda path=path, out=out: cut(path, out, 0.3, 1.1),
            lambda path=path, out=out: recover(path, out, overwrite=True),
        ):
            try:
                action()
                results["done"] += 1
            except UserError as error:
                assert str(error) and "\n" not in str(error)
                results["refused"] += 1
        assert time.monotonic() - began < SECONDS_MAX, n
        if out.exists():
            with Dive(out) as dive:
                assert dive.complete, n
        path.unlink()
        out.unlink(missing_ok=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"\n{kind}: {MUTATIONS} mutations, {dict(results)}, {peak / 1e6:.0f} MB at most")
    assert peak < BYTES_MAX and results["done"] >= MUTATIONS
