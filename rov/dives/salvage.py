"""Reads everything intact in an MCAP file, however damaged.

The MCAP library's readers stop at the first damaged byte and take short reads for data. This one checks every length
and checksum, skips what is damaged, and lists it. Times are `log_time` in ns.
"""

from __future__ import annotations

import heapq
import io
import os
import re
import stat
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import lz4.frame
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.reader import SeekingReader
from mcap.records import Attachment, Channel, Chunk, McapRecord, Message, Metadata, Schema
from mcap.summary import Summary
from mcap.writer import MCAP0_MAGIC

from rov.dives.durable_writer import DiveError, locked

T = TypeVar("T")
RECORD_BYTES_MAX = 256 * 1024 * 1024
"""A longer record is taken for damage, so that a flipped bit in a length cannot exhaust memory."""

HEAD = struct.Struct("<BQ")  # of every record: opcode, length of what follows
FOOT = struct.Struct("<QQI")  # summary start, summary offset start, CRC
TAIL_BYTES = HEAD.size + FOOT.size + len(MCAP0_MAGIC)

# A chunk's opcode, a length below 4 GiB, times, size and CRC, then one of the three compressions.
CHUNK_HEAD = re.compile(rb"\x06[\s\S]{4}\x00{4}[\s\S]{28}(?:\x00{4}|\x04\x00{3}zstd|\x03\x00{3}lz4)")
# RuntimeError comes from lz4; MemoryError and OverflowError from decompressing or reading with a flipped size.
DAMAGE = (McapError, ValueError, struct.error, zstandard.ZstdError, RuntimeError, MemoryError, OverflowError)


class Block(NamedTuple):
    """A record with messages: a chunk, or one message outside chunks (as some tools write)."""

    offset: int
    length: int
    start_t: int
    end_t: int
    chunk: bool = True
    channels: frozenset[int] = frozenset()
    """The channels with messages in it; empty where unknown."""


class Raw(NamedTuple):
    """One undecoded message with its channel."""

    channel: Channel
    message: Message


class Damage(NamedTuple):
    """Bytes that could not be read, and why."""

    length: int
    why: str


class SalvageReader:
    """Everything intact in an MCAP file. The table of contents is the index of a finished file; otherwise the whole
    file is scanned once. `damage` lists what could not be read, by byte offset; damage in chunks is found as they are
    read."""

    def __init__(self, path: Path, *, index_only: bool = False):
        """`index_only`: do not scan a file without an index; it is then only known to be unfinished. Raises DiveError
        when it is no MCAP file, or the disk cannot read its beginning (`index_only`: its end)."""
        self.path = path
        self.channels: dict[int, Channel] = {}
        self.schemas: dict[int, Schema] = {}
        self.metadata: list[Metadata] = []
        self.blocks: list[Block] = []
        """In the order of the file."""
        self.channel_counts: Counter[int] = Counter()
        """Messages per known channel."""
        self.damage: dict[int, Damage] = {}
        self.finished = False
        """Whether the file has its footer; False after a power cut."""
        self.failing = ""
        """The disk's last read error; "" when there was none."""
        self._attachments: list[tuple[int, int]] = []
        self._file = _open(path)
        try:
            self.size = os.fstat(self._file.fileno()).st_size  # it may be growing; what is added later is not read
            if self._bytes(0, min(len(MCAP0_MAGIC), self.size)) != MCAP0_MAGIC:
                raise DiveError(f"{path}: not an MCAP file, so no dive")
            indexed = self._load_index()
            if index_only and self.failing:
                raise DiveError(f"{path}: cannot be read: {self.failing}")
            if not indexed and not index_only:
                self._scan()
        except BaseException as error:
            self._file.close()
            if isinstance(error, McapError):
                raise DiveError(f"{path}: cannot be read: {error}") from None
            raise

    def close(self) -> None:
        self._file.close()

    @property
    def counts(self) -> Counter[str]:
        """Messages per topic, which several channels may share."""
        found: Counter[str] = Counter()
        for number, count in self.channel_counts.items():
            found[self.channels[number].topic] += count
        return found

    @property
    def start_t(self) -> int:
        return min((block.start_t for block in self.blocks), default=0)

    @property
    def end_t(self) -> int:
        return max((block.end_t for block in self.blocks), default=0)

    @property
    def locked(self) -> bool:
        """Whether a DurableWriter has it open."""
        return locked(self._file)

    def messages(self, *, ordered: bool = True, start_t: int = 0, end_t: int = 1 << 64) -> Iterator[Raw]:
        """Messages with start_t <= log_time < end_t, ordered by log_time (equal times as in the file), or in the file's
        order. Only blocks that overlap in time are in memory, never the whole file."""
        blocks = [b for b in self.blocks if b.end_t >= start_t and b.start_t < end_t]
        inside = range(start_t, end_t)
        if not ordered:
            for block in blocks:
                yield from (raw for raw in self.block(block) if raw.message.log_time in inside)
            return
        waiting: list[tuple[int, int, int, Raw]] = []
        for block in sorted(blocks, key=lambda b: b.start_t):
            while waiting and waiting[0][0] < block.start_t:
                yield heapq.heappop(waiting)[3]
            for n, raw in enumerate(self.block(block)):
                if raw.message.log_time in inside:
                    heapq.heappush(waiting, (raw.message.log_time, block.offset, n, raw))
        while waiting:
            yield heapq.heappop(waiting)[3]

    def attachments(self) -> Iterator[Attachment]:
        """The intact attachments."""
        for offset, length in self._attachments:
            try:
                yield attachment(self._bytes(offset, length)[HEAD.size :])
            except DAMAGE as error:
                self.damage[offset] = Damage(length, str(error))

    # ---- one block ----------------------------------------------------------------------------------------------

    def block(self, block: Block) -> list[Raw]:
        """The messages of one block; empty where it is damaged."""
        try:
            data = self._bytes(block.offset, block.length)
            body = data[HEAD.size :]
            records = chunk_records(body) if block.chunk else [Message.read(stream_of(body), len(body))]
        except DAMAGE as error:
            self.damage[block.offset] = Damage(block.length, str(error))
            return []
        found = [each for each in records if isinstance(each, Message)]
        known = [Raw(self.channels[each.channel_id], each) for each in found if each.channel_id in self.channels]
        if len(known) < len(found):
            lost = sum(len(each.data) for each in found if each.channel_id not in self.channels)
            self.damage[block.offset] = Damage(lost, "the description of their topic was lost")
        return known

    def _bytes(self, offset: int, length: int) -> bytes:
        if not 0 <= offset <= offset + length <= self.size:
            raise McapError("cut off")
        try:
            self._file.seek(offset)
            data = self._file.read(length)
        except OSError as error:
            self.failing = error.strerror or str(error)
            raise McapError(f"the disk fails: {self.failing}") from None
        if len(data) < length:
            raise McapError("cut off")
        return data

    def _head(self, offset: int) -> tuple[int, int]:
        """Opcode and length of the record at this place."""
        opcode, length = HEAD.unpack(self._bytes(offset, HEAD.size))
        return int(opcode), int(length)

    # ---- table of contents --------------------------------------------------------------------------------------

    def _load_index(self) -> bool:
        """Read the table of contents at the end of a finished file; False where it is absent, partial or damaged."""
        if self.size < TAIL_BYTES + len(MCAP0_MAGIC):
            return False
        try:
            tail = self._bytes(self.size - TAIL_BYTES, TAIL_BYTES)
        except McapError:
            return False  # an unfinished file
        start, _, crc = FOOT.unpack_from(tail, HEAD.size)
        if HEAD.unpack_from(tail) != (Opcode.FOOTER, FOOT.size) or not tail.endswith(MCAP0_MAGIC) or not start:
            return False
        try:
            if crc and crc != zlib.crc32(self._bytes(start, self.size - 12 - start)):  # covers everything before it
                raise McapError("wrong checksum")
            self._file.seek(0)
            summary = SeekingReader(self._file, record_size_limit=RECORD_BYTES_MAX).get_summary()
        except (*DAMAGE, OSError) as error:
            if isinstance(error, OSError):
                self.failing = error.strerror or str(error)
            self.damage[start] = Damage(0, f"the index at the end: {error}")
            return False
        if summary is None or summary.statistics is None:
            return False
        total = summary.statistics
        found = len(summary.chunk_indexes), len(summary.metadata_indexes), len(summary.attachment_indexes)
        if found != (total.chunk_count, total.metadata_count, total.attachment_count) or not total.chunk_count:
            return False
        counts = total.channel_message_counts
        if not counts.keys() <= summary.channels.keys() or sum(counts.values()) != total.message_count:
            return False
        needed = {channel.schema_id for channel in summary.channels.values()} - {0}  # 0: no schema
        if not needed <= summary.schemas.keys() or not self._indexed(summary, start):
            return False
        self.channels, self.schemas, self.finished = summary.channels, summary.schemas, True
        self.channel_counts.update(counts)
        self.blocks = sorted(
            Block(
                c.chunk_start_offset, c.chunk_length, c.message_start_time, c.message_end_time,
                channels=frozenset(c.message_index_offsets),
            )
            for c in summary.chunk_indexes
        )  # fmt: skip
        self._attachments = [(each.offset, each.length) for each in summary.attachment_indexes]
        for each in summary.metadata_indexes:
            try:
                self.metadata.append(parse(Metadata.read, self._bytes(each.offset, each.length)[HEAD.size :]))
            except DAMAGE as error:
                self.damage[each.offset] = Damage(each.length, str(error))
        return True

    def _indexed(self, summary: Summary, end: int) -> bool:
        """Whether the index covers all messages (some tools write messages outside chunks). Reads only the heads of the
        records between the indexed ones."""
        chunks = [(c.chunk_start_offset, c.chunk_length + c.message_index_length) for c in summary.chunk_indexes]
        others = [(each.offset, each.length) for each in summary.attachment_indexes]
        others += [(each.offset, each.length) for each in summary.metadata_indexes]
        position, unknown = len(MCAP0_MAGIC), False
        try:
            for offset, length in [*sorted(chunks + others), (end, 0)]:
                while position < offset:
                    opcode, size = self._head(position)
                    unknown |= opcode in (Opcode.MESSAGE, Opcode.CHUNK)
                    position += HEAD.size + size
                if position > offset:
                    return True  # damage between the records, not unlisted messages
                position += length
        except DAMAGE:
            return True
        return not unknown

    def _scan(self) -> None:
        """Build the table of contents by reading the file from its start."""
        offset = len(MCAP0_MAGIC)
        while offset < self.size and not self.finished:
            try:
                offset = self._accept(offset)
            except DAMAGE as error:
                following = self._after_damage(offset)
                self.damage[offset] = Damage(following - offset, str(error))
                offset = following

    def _accept(self, offset: int) -> int:
        """Add the record at this offset to the table; returns the offset of the next one."""
        opcode, length = self._head(offset)
        if not plausible(opcode, length):
            raise McapError("not a record")
        body = self._bytes(offset + HEAD.size, length)
        whole = HEAD.size + length
        if opcode == Opcode.CHUNK:
            self._enter(offset, whole, chunk_records(body))
        elif opcode == Opcode.MESSAGE:
            message = Message.read(stream_of(body), length)
            if message.channel_id not in self.channels:
                raise McapError("a message of an unknown topic")
            self._enter(offset, whole, [message], chunk=False)
        elif opcode == Opcode.SCHEMA:
            self._enter(offset, whole, [parse(Schema.read, body)])
        elif opcode == Opcode.CHANNEL:
            self._enter(offset, whole, [parse(Channel.read, body)])
        elif opcode == Opcode.METADATA:
            self.metadata.append(parse(Metadata.read, body))
        elif opcode == Opcode.ATTACHMENT:
            attachment(body)
            self._attachments.append((offset, whole))
        elif opcode == Opcode.MESSAGE_INDEX:
            if length != 6 + int.from_bytes(body[2:6], "little"):
                raise McapError("its length is wrong")
        elif opcode == Opcode.FOOTER:
            self.finished = self._bytes(offset + whole, len(MCAP0_MAGIC)) == MCAP0_MAGIC
        elif opcode > Opcode.DATA_END and looks_like_chunk(body):
            raise McapError("a chunk whose kind was damaged")
        return offset + whole

    def _enter(self, offset: int, length: int, records: list[McapRecord], *, chunk: bool = True) -> None:
        messages = [each for each in records if isinstance(each, Message)]
        if messages:
            times = [each.log_time for each in messages]
            channels = frozenset(each.channel_id for each in messages)
            self.blocks.append(Block(offset, length, min(times), max(times), chunk, channels))
        for record in records:
            if isinstance(record, Schema):
                self.schemas.setdefault(record.id, record)  # the copies at the end may be damaged
            elif isinstance(record, Channel):
                self.channels.setdefault(record.id, record)
            elif isinstance(record, Message) and record.channel_id in self.channels:
                self.channel_counts[record.channel_id] += 1

    def _after_damage(self, offset: int) -> int:
        """The offset to continue at: the next record if the length still leads to one, else the next intact chunk."""
        try:
            end = offset + HEAD.size + self._head(offset)[1]
            opcode, length = self._head(end)
            if plausible(opcode, length) and end + HEAD.size + length <= self.size:
                return end
        except DAMAGE:
            pass  # no record follows there: search
        position = offset + 1
        while position < self.size:
            window = self._bytes(position, min(1 << 20, self.size - position))
            for match in CHUNK_HEAD.finditer(window):
                try:
                    start = position + match.start()
                    length = self._head(start)[1]
                    if length <= RECORD_BYTES_MAX:
                        chunk_records(self._bytes(start + HEAD.size, length))
                        return start
                except DAMAGE:
                    continue
            position += max(1, len(window) - 64)  # a chunk's head may span two windows
        return self.size


READING = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
"""Not every system has each of these flags."""


def _open(path: Path) -> BinaryIO:
    """Open a regular file to read. The type is checked after opening, so the file cannot be swapped in between, and
    O_NONBLOCK keeps a named pipe from blocking. Raises DiveError."""
    try:
        number = os.open(path, READING)
    except FileNotFoundError:
        raise DiveError(f"{path}: no such file") from None
    except OSError as error:
        raise DiveError(f"{path}: cannot be read: {error.strerror}") from None
    status = os.fstat(number)
    why = "" if status.st_size else "the file is empty"
    if not stat.S_ISREG(status.st_mode):
        why = "is a directory; name a dive in it" if stat.S_ISDIR(status.st_mode) else "is not a regular file"
    if why:
        os.close(number)
        raise DiveError(f"{path}: {why}")
    return open(number, "rb")


def plausible(opcode: int, length: int) -> bool:
    """Whether this may be the head of a record. Opcodes from 0x80 on are private, other unknown ones of a later MCAP
    version; both kinds are skipped."""
    return opcode >= Opcode.HEADER and length <= RECORD_BYTES_MAX


def stream_of(body: bytes) -> ReadDataStream:
    return ReadDataStream(io.BytesIO(body))


def parse(read: Callable[[ReadDataStream], T], body: bytes) -> T:
    """Parse one record. Raises one of DAMAGE, also where its fields end before its length does: a wrong length would
    hide the records after it."""
    stream = stream_of(body)
    record = read(stream)
    if stream.count != len(body):
        raise McapError("its length is wrong")
    return record


def chunk_records(body: bytes) -> list[McapRecord]:
    """The records in a chunk. Raises one of DAMAGE."""
    chunk = parse(Chunk.read, body)
    if chunk.uncompressed_size > RECORD_BYTES_MAX:
        raise McapError("a chunk of impossible size")
    data = uncompressed(chunk)
    if chunk.uncompressed_crc and chunk.uncompressed_crc != zlib.crc32(data):
        raise McapError("a chunk with a wrong checksum")
    found: list[McapRecord] = []
    position = 0
    while position < len(data):
        opcode, length = HEAD.unpack_from(data, position)
        position += HEAD.size
        if length > len(data) - position:
            raise McapError("a chunk that ends inside a record")
        record = data[position : position + length]
        position += length
        if opcode == Opcode.MESSAGE:
            found.append(Message.read(stream_of(record), length))
        elif opcode == Opcode.SCHEMA:
            found.append(parse(Schema.read, record))
        elif opcode == Opcode.CHANNEL:
            found.append(parse(Channel.read, record))
    return found


def uncompressed(chunk: Chunk) -> bytes:
    """A chunk's uncompressed bytes. Uses no more memory than the chunk declares, whatever its data claim."""
    size = chunk.uncompressed_size
    if chunk.compression == "zstd":
        # The decompressor would allocate whatever size the data claim.
        inside = zstandard.get_frame_parameters(chunk.data).content_size
        if inside not in (size, zstandard.CONTENTSIZE_UNKNOWN):
            raise McapError("a chunk that contradicts itself")
        data = zstandard.decompress(chunk.data, size)
    elif chunk.compression == "lz4":
        data = lz4.frame.LZ4FrameDecompressor().decompress(chunk.data, max_length=size + 1)
    elif chunk.compression == "":
        data = chunk.data
    else:
        raise McapError(f"a chunk compressed with {chunk.compression!r}; zstd, lz4 and none can be read")
    if len(data) != size:
        raise McapError("a chunk that contradicts itself")
    return data


def looks_like_chunk(body: bytes) -> bool:
    try:
        return bool(chunk_records(body))
    except DAMAGE:
        return False


def attachment(body: bytes) -> Attachment:
    """Parse an attachment and check its checksum, which the library does not. Raises one of DAMAGE."""
    (crc,) = struct.unpack("<I", body[-4:])
    if crc and crc != zlib.crc32(body[:-4]):
        raise McapError("an attachment with a wrong checksum")
    found: Attachment = parse(Attachment.read, body)
    return found
