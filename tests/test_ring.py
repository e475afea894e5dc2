"""The frame ring, with real processes that are killed in the middle of it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rov.errors import UserError
from rov.media.ring import HEAD, SLOTS_MIN, Image, RingReader, RingWriter
from rov.messages import Frame


@pytest.fixture
def path() -> Iterator[Path]:
    """In /dev/shm, as in life."""
    path = Path(f"/dev/shm/rov-test-{os.getpid()}/frames")
    yield path
    for left in path.parent.glob("*"):
        left.unlink()
    if path.parent.exists():
        path.parent.rmdir()


def picture(i: int, width: int = 32, height: int = 24) -> Image:
    return np.full((height, width, 3), i % 256, np.uint8)


def put(writer: RingWriter, i: int, image: Image | None = None) -> Frame:
    image = picture(i) if image is None else image
    slot = writer.write(image, i, 1000 + i)
    return Frame(t=0, frame_id=i, frame_t=1000 + i, width=image.shape[1], height=image.shape[0], slot=slot)


def test_what_is_written_is_read(path: Path) -> None:
    writer, reader = RingWriter(path, 32, 24), RingReader(path)
    rng = np.random.default_rng(1)
    for i in range(20):
        image = rng.integers(0, 256, (24, 32, 3), np.uint8)
        copy = reader.read(put(writer, i, image))
        assert copy is not None and np.array_equal(copy, image)
    assert reader.missed == 0
    writer.close()


def test_an_overwritten_frame_is_missed_and_four_are_kept(path: Path) -> None:
    writer, reader = RingWriter(path, 32, 24, slots=1), RingReader(path)
    frames = [put(writer, i) for i in range(SLOTS_MIN + 1)]
    assert [reader.read(frame) is None for frame in frames] == [True, False, False, False, False]
    assert reader.missed == 1


def test_the_size_may_change_and_grow(path: Path) -> None:
    writer, reader = RingWriter(path, 32, 24), RingReader(path)
    small = path.stat().st_size
    assert small == HEAD + SLOTS_MIN * (HEAD + 32 * 24 * 3)
    for width, height in ((32, 24), (16, 8), (24, 32), (320, 200), (5, 3)):
        image = np.arange(width * height * 3, dtype=np.uint8).reshape(height, width, 3)
        copy = reader.read(put(writer, width, image))
        assert copy is not None and np.array_equal(copy, image)
    assert path.stat().st_size > small


def test_a_view_is_written_and_a_buffer_filled(path: Path) -> None:
    writer, reader = RingWriter(path, 32, 24), RingReader(path)
    image = np.random.default_rng(2).integers(0, 256, (24, 32, 3), np.uint8)
    out = np.empty((24, 32, 3), np.uint8)
    assert reader.read(put(writer, 1, image[:, ::-1]), out) is out and np.array_equal(out, image[:, ::-1])
    other = reader.read(put(writer, 2, image[:12]), out)
    assert other is not None and other is not out and np.array_equal(other, image[:12])


def test_announcements_that_do_not_fit_find_nothing(path: Path) -> None:
    writer, reader = RingWriter(path, 32, 24), RingReader(path)
    good = put(writer, 5)
    for wrong in (
        {"slot": -1},
        {"slot": SLOTS_MIN},
        {"slot": 1},
        {"frame_id": 4},
        {"frame_t": 1},
        {"width": 24, "height": 32},
        {"width": 2**40},
        {"width": -32, "height": -24},
    ):
        fields = {name: getattr(good, name) for name in good.__struct_fields__}
        assert reader.read(Frame(**(fields | wrong))) is None
    assert reader.read(good) is not None


def test_no_ring_another_file_or_a_cut_one_is_no_picture(path: Path) -> None:
    reader = RingReader(path)
    frame = Frame(t=0, frame_id=0, frame_t=1000, width=32, height=24)
    assert reader.read(frame) is None
    path.parent.mkdir()
    for content in (b"", b"short", b"\0" * 100_000, os.urandom(100_000)):
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        assert reader.read(frame) is None
    RingWriter(path, 32, 24)
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[:-1])
    assert reader.read(frame) is None
    writer = RingWriter(path, 32, 24)
    assert reader.read(put(writer, 0)) is not None


def test_a_new_writer_is_followed_and_old_announcements_find_nothing(path: Path) -> None:
    reader, old = RingReader(path), RingWriter(path, 32, 24)
    before = put(old, 0)
    assert reader.read(before) is not None
    new = RingWriter(path, 32, 24)  # as after a kill: the old one had no time to tidy up
    assert reader.read(before) is None
    image = picture(77)
    after = Frame(t=0, frame_id=0, frame_t=5000, width=32, height=24, slot=new.write(image, 0, 5000))
    copy = reader.read(after)
    assert copy is not None and np.array_equal(copy, image)
    assert reader.read(before) is None  # the same id and slot, another time
    new.close()
    assert reader.read(after) is None


def test_no_room_is_told() -> None:
    with pytest.raises(UserError, match="no frame ring of"):
        RingWriter(Path("/dev/shm/rov-test-huge"), 2**20, 2**20)
    assert not list(Path("/dev/shm").glob("rov-test-huge*"))
    with pytest.raises(UserError, match="no frame ring"):
        RingWriter(Path("/proc/nowhere/frames"), 32, 24)


# ---- several processes -----------------------------------------------------------------------------------------

WIDTH, HEIGHT = 640, 360

WRITER = """
import sys
from pathlib import Path
import numpy as np
from rov.media.ring import RingWriter
path, start, width, height = Path(sys.argv[1]), *map(int, sys.argv[2:5])
writer, pictures = RingWriter(path, width, height), [np.full((height, width, 3), i, np.uint8) for i in range(256)]
print("ready", flush=True)
i = start
while True:  # as fast as it goes: a picture whose every byte is its id
    writer.write(pictures[i % 256], i, 1000 + i)
    i += 1
"""


def start_writer(path: Path, start: int = 0) -> subprocess.Popen[bytes]:
    arguments = [str(path), str(start), str(WIDTH), str(HEIGHT)]
    process = subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def announced(reader: RingReader, slot: int) -> Frame | None:
    """What a slot holds now, as if its announcement had just come. Peeks into the file, as the tests' writer sends
    no messages."""
    ring = reader._current()
    if ring is None:
        return None
    frame_id, t = ring.words[slot][1:3].tolist()
    return Frame(t=0, frame_id=frame_id, frame_t=t, width=WIDTH, height=HEIGHT, slot=slot)


def read_for(reader: RingReader, seconds: float) -> tuple[int, int]:
    """Read what there is; returns whole pictures and misses. Fails on a torn one."""
    whole = missed = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for slot in range(SLOTS_MIN):
            frame = announced(reader, slot)
            image = None if frame is None else reader.read(frame)
            if image is None:
                missed += 1
                continue
            assert frame is not None and image.min() == image.max() == frame.frame_id % 256, "torn"
            whole += 1
    return whole, missed


def test_no_torn_picture_is_ever_read(path: Path) -> None:
    process = start_writer(path)
    try:
        whole, missed = read_for(RingReader(path), 3.0)
    finally:
        end(process)
    assert whole > 100 and missed > 0  # both happen, or nothing was tried


def test_a_writer_killed_in_the_middle_leaves_no_torn_picture_and_its_successor_is_followed(path: Path) -> None:
    reader = RingReader(path)
    for start in (0, 10_000, 20_000):
        process = start_writer(path, start)
        try:
            assert read_for(reader, 0.3)[0] > 0
        finally:
            end(process)
        read_for(reader, 0.05)  # what the dead one left is whole, or not there
        frames = [frame for slot in range(SLOTS_MIN) if (frame := announced(reader, slot))]
        assert all(start <= frame.frame_id < start + 10_000 for frame in frames if reader.read(frame) is not None)


READER = """
import sys
from pathlib import Path
from rov.messages import Frame
from rov.media.ring import RingReader
path, width, height = Path(sys.argv[1]), *map(int, sys.argv[2:4])
reader, copies = RingReader(path), 0
while True:  # nearly all of its time is spent in copies
    ring = reader._current()
    frame_id, t = ring.words[0][1:3].tolist()
    frame = Frame(t=0, frame_id=frame_id, frame_t=t, width=width, height=height, slot=0)
    copies += reader.read(frame) is not None
    if copies == 10:
        print("reading", flush=True)
"""


def test_readers_killed_in_the_middle_of_a_copy_harm_nobody(path: Path) -> None:
    writer = start_writer(path)
    try:
        for delay in (0.003, 0.0, 0.011):
            arguments = [str(path), str(WIDTH), str(HEIGHT)]
            with subprocess.Popen([sys.executable, "-c", READER, *arguments], stdout=subprocess.PIPE) as victim:
                said = victim.stdout and victim.stdout.readline()
                time.sleep(delay)
                victim.kill()
            assert said == b"reading\n"
            assert writer.poll() is None and path.exists()
            assert read_for(RingReader(path), 0.2)[0] > 0
    finally:
        end(writer)
