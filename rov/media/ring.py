"""The frame ring: pictures in shared memory, written by one process and read by any number. Nobody waits for another.

A file in /dev/shm. All words are int64 in the machine's order:

    file    MAGIC, slots, bytes of a slot                                          64 bytes
    slot    sequence, frame id, capture time, height, width; then the pixels, BGR  64 bytes + height × width × 3

A slot's sequence is odd while it is written, and 2 higher afterwards: a reader that finds it odd, or changed after the
copy, drops the picture. So a reader or the writer may be killed at any moment without harm to the others.
A new writer makes a new file and renames it into place; readers notice the new inode and switch over.
"""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rov.errors import UserError
from rov.messages import Frame
from rov.types import Image

MAGIC = int.from_bytes(b"rovring\1", "little")
"""The last byte is the version of the layout."""
HEAD = 64
"""Bytes before the file's slots, and before a slot's pixels: a cache line each."""
SLOTS_MIN = 4
"""The one being written, the newest, and two to copy from meanwhile."""

Words = NDArray[np.int64]


class _Mapped:
    """A ring file mapped into memory."""

    def __init__(self, memory: mmap.mmap, slots: int, slot_bytes: int):
        starts = [HEAD + i * slot_bytes for i in range(slots)]
        self.slot_bytes = slot_bytes
        self.words: list[Words] = [np.frombuffer(memory, np.int64, HEAD // 8, start) for start in starts]
        self.pixels: list[Image] = [
            np.frombuffer(memory, np.uint8, slot_bytes - HEAD, start + HEAD) for start in starts
        ]  # these views keep the memory mapped; it is unmapped with the last of them


class _Fence:
    """A memory barrier: accesses before it are not reordered after it, as ARM might do.

    Releasing and acquiring a lock is one on every machine, and costs 0.1 µs.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()

    def __call__(self) -> None:
        self.lock.release()
        self.lock.acquire()


class RingWriter:
    """Writes frames into the ring. `width` and `height` size it; a larger picture makes a new, larger ring."""

    def __init__(self, path: Path, width: int, height: int, slots: int = SLOTS_MIN):
        """Raises UserError when there is not enough memory."""
        self.path = path
        self.slots = max(slots, SLOTS_MIN)
        self.fence = _Fence()
        self.slot = -1
        self.ring = self._create(height * width * 3)

    def write(self, image: Image, frame_id: int, t: int) -> int:
        """Put a picture (H, W, 3), captured at `t` (ns), into the ring; returns its slot. Raises UserError when the
        picture is larger than all before and there is not enough memory for it."""
        if image.nbytes > self.ring.slot_bytes - HEAD:
            self.ring = self._create(image.nbytes)
        self.slot = (self.slot + 1) % self.slots
        words, pixels = self.ring.words[self.slot], self.ring.pixels[self.slot]
        words[0] += 1
        self.fence()
        words[1:5] = frame_id, t, *image.shape[:2]
        np.copyto(pixels[: image.nbytes].reshape(image.shape), image)
        self.fence()
        words[0] += 1
        return self.slot

    def close(self) -> None:
        """Release the memory; readers find nothing until another writer starts."""
        self.path.unlink(missing_ok=True)

    def _create(self, pixel_bytes: int) -> _Mapped:
        slot_bytes = HEAD + -(-pixel_bytes // HEAD) * HEAD
        size = HEAD + self.slots * slot_bytes
        new = self.path.with_name(self.path.name + ".new")
        try:
            self.path.parent.mkdir(0o700, parents=True, exist_ok=True)
            fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.posix_fallocate(fd, 0, size)  # now: else a full /dev/shm means a SIGBUS at some later frame
                memory = mmap.mmap(fd, size)
            finally:
                os.close(fd)
            np.frombuffer(memory, np.int64, 3)[:] = MAGIC, self.slots, slot_bytes
            os.replace(new, self.path)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise UserError(f"{self.path}: no frame ring of {size / 1e6:.0f} MB there: {error.strerror}") from None
        return _Mapped(memory, self.slots, slot_bytes)


class RingReader:
    """Reads frames from the ring, which may not exist yet and may be replaced at any time."""

    def __init__(self, path: Path):
        self.path = path
        self.fence = _Fence()
        self.ring: _Mapped | None = None
        self.inode: tuple[int, int] | None = None
        self.missed = 0
        """Frames that were announced but already overwritten, or gone with their writer."""

    def read(self, frame: Frame, out: Image | None = None) -> Image | None:
        """A copy of the announced picture (H, W, 3), in `out` if that has its shape; None when the picture has been
        overwritten. Then `out` may hold part of another one."""
        image = self._copy(frame, out)
        self.missed += image is None
        return image

    def _copy(self, frame: Frame, out: Image | None) -> Image | None:
        ring = self._current()
        if ring is None or not 0 <= frame.slot < len(ring.words):
            return None
        words, pixels = ring.words[frame.slot], ring.pixels[frame.slot]
        shape = (frame.height, frame.width, 3)
        size = frame.height * frame.width * 3
        sequence = int(words[0])
        self.fence()
        # The time as well as the id: ids repeat after a restart of the writer.
        announced = [frame.frame_id, frame.frame_t, frame.height, frame.width]
        if sequence & 1 or words[1:5].tolist() != announced or not 0 < size <= len(pixels):
            return None
        if out is None or out.shape != shape:
            out = np.empty(shape, np.uint8)
        np.copyto(out, pixels[:size].reshape(shape))
        self.fence()
        return out if int(words[0]) == sequence else None

    def _current(self) -> _Mapped | None:
        """The current ring. An inode is not reused while it is mapped, so it identifies the ring."""
        try:
            found = os.stat(self.path)
            if (found.st_dev, found.st_ino) != self.inode:
                self.ring, self.inode = self._open()
        except OSError:
            return None
        return self.ring

    def _open(self) -> tuple[_Mapped | None, tuple[int, int]]:
        with open(self.path, "rb") as file:
            found = os.fstat(file.fileno())
            inode = (found.st_dev, found.st_ino)
            if found.st_size < HEAD:
                return None, inode
            memory = mmap.mmap(file.fileno(), found.st_size, access=mmap.ACCESS_READ)
        magic, slots, slot_bytes = np.frombuffer(memory, np.int64, 3).tolist()
        whole = magic == MAGIC and slots > 0 and slot_bytes > HEAD and found.st_size >= HEAD + slots * slot_bytes
        return (_Mapped(memory, slots, slot_bytes) if whole else None), inode
