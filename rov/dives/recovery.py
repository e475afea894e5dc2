"""Maintains recorded dives: repair one that was cut off, cut a part out, mark one to be kept, describe one."""

from __future__ import annotations

import os
import secrets
import shutil
from collections import defaultdict
from datetime import datetime, timezone
from pathlib import Path

import msgspec
from mcap.reader import NonSeekingReader, SeekingReader
from mcap.records import Metadata

from rov import toml
from rov.dives.dive import METADATA, Dive, DiveError, TopicDigest, TopicTally
from rov.dives.durable_writer import DurableWriter, sync_folder
from rov.dives.latched import latched_before
from rov.dives.salvage import DAMAGE, Raw, SalvageReader
from rov.dives.summary import Summary, summary


class RecoveryReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a recovery saved."""

    path: str
    """The repaired dive."""
    changed: bool
    """False: the dive was complete and was left alone."""
    topics: dict[str, TopicDigest]
    lost_bytes: int
    """Bytes of the source that could not be read."""
    problems: tuple[str, ...]
    last_t: int | None
    """Time of the last message kept, ns."""


class Mark(msgspec.Struct, frozen=True):
    """A dive to be kept, and why."""

    note: str
    marked: datetime


class TopicInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One topic of a dive; times in ns. `sha256` is empty when only the index was read."""

    count: int
    rate_hz: float
    sha256: str = ""
    first_t: int | None = None
    last_t: int | None = None


class DiveInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a dive holds."""

    path: str
    size_bytes: int
    start_t: int
    """Time of its first message, ns on the recorder's clock."""
    duration_s: float
    complete: bool
    recording: bool
    advice: str
    """What to do when it is not complete; else empty."""
    problems: tuple[str, ...]
    topics: dict[str, TopicInfo]
    metadata: dict[str, str]
    mark: Mark | None
    summary: Summary
    attachments: tuple[str, ...] = ()
    """Their names."""
    notes: tuple[str, ...] = ()
    """Other metadata, such as what it was cut from; one line each."""


def recover(source: Path, out: Path | None = None, *, overwrite: bool = False) -> RecoveryReport:
    """Copy everything intact into a finished dive, which is read back before it gets its name. Without `out` it
    replaces the source, and a complete dive is left alone. Raises DiveError and then leaves the source unchanged."""
    _refuse(source, out, overwrite)
    with Dive(source) as dive:
        if dive.file.locked:
            raise DiveError(f"{source}: is being recorded now; stop the recording first")
        if out is None and dive.file.finished:
            digests = dive.digests()  # also finds damage inside chunks, which the index cannot show
            if dive.complete:
                return _report(source, dive, digests, changed=False)
        digests = _copy(dive.file, out or source)
        return _report(out or source, dive, digests, changed=True)


def cut(source: Path, out: Path, start_s: float, end_s: float, *, overwrite: bool = False) -> dict[str, TopicDigest]:
    """Copy the messages logged from start_s until before end_s, counted from the first message, and the latched ones
    that hold at start_s. Log times do not change. Raises DiveError, also when the span is empty."""
    _refuse(source, out, overwrite)
    with Dive(source) as dive:
        if not (start_s < end_s and start_s <= dive.duration_s and end_s > 0):  # written so that it refuses NaN, too
            raise DiveError(f"{source}: nothing from {start_s:g} s to {end_s:g} s; it lasts {dive.duration_s:.3f} s")
        note = {"source": source.name, "start_s": repr(start_s), "end_s": repr(end_s)}
        start_t = dive.first_t + round(max(start_s, 0) * 1e9)
        end_t = dive.first_t + round(min(end_s, dive.duration_s + 1) * 1e9)  # inf: to the end
        return _copy(dive.file, out, start_t, end_t, {"cut": note}, latched_before(dive.file, start_t))


def info(path: Path, *, hashes: bool = True) -> DiveInfo:
    """What a dive holds. `hashes` reads the whole file, which also finds damage inside it. Raises DiveError."""
    with Dive(path) as dive:
        if hashes:
            topics = {name: _topic_info(digest) for name, digest in dive.digests().items()}
        else:
            seconds = dive.duration_s or 1.0
            topics = {name: TopicInfo(count=n, rate_hz=n / seconds) for name, n in dive.counts.items()}
        recording = dive.file.locked
        advice = "" if dive.complete else f"run `rov dive recover {path}`"
        return DiveInfo(
            path=str(path),
            size_bytes=dive.file.size,
            start_t=dive.first_t,
            duration_s=dive.duration_s,
            complete=dive.complete,
            recording=recording,
            advice="it is being recorded now" if recording else advice,
            problems=tuple(dive.problems),
            topics=topics,
            metadata=dive.metadata,
            mark=marked(path),
            summary=summary(dive) if hashes else Summary(),
            attachments=tuple(each.name for each in dive.file.attachments()),
            notes=tuple(_line(each) for each in dive.file.metadata if each.name != METADATA),
        )


def _line(record: Metadata) -> str:
    return f"{record.name}: {', '.join(f'{key} {value}' for key, value in record.metadata.items())}"


# ---- marks -----------------------------------------------------------------------------------------------------------


def mark_file(path: Path) -> Path:
    """A file beside the dive, not a record in it: marking then takes no time at any size, works while the dive is being
    recorded or is broken, cannot harm it, survives recovery, and can be done by hand (`touch`, `cp dive.mcap*`)."""
    return path.with_name(path.name + ".mark")


def mark(path: Path, note: str = "") -> Mark:
    """Mark this dive to be kept: retention never deletes it. Raises DiveError."""
    if not path.is_file():
        raise DiveError(f"{path}: no such file")
    new = Mark(note, datetime.now(timezone.utc).replace(microsecond=0))
    part = part_of(mark_file(path))
    try:
        with part.open("wb") as stream:
            stream.write(msgspec.toml.encode(new))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, mark_file(path))
        sync_folder(path.parent)
    except OSError as error:
        raise DiveError(f"{mark_file(path)}: cannot be written: {error.strerror}") from None
    return new


def unmark(path: Path) -> None:
    """Remove the mark, if there is one; retention may then delete the dive. Raises DiveError."""
    try:
        mark_file(path).unlink(missing_ok=True)
    except OSError as error:
        raise DiveError(f"{mark_file(path)}: cannot be removed: {error.strerror}") from None


def marked(path: Path) -> Mark | None:
    """The dive's mark, or None. A mark file with any content counts: better to keep a dive too many than too few."""
    file = mark_file(path)
    if not file.exists():
        return None
    try:
        return toml.load(file, Mark)
    except (OSError, toml.TomlError):
        return Mark("", datetime.fromtimestamp(file.stat().st_mtime, timezone.utc))


# ---- copying ---------------------------------------------------------------------------------------------------------


def _refuse(source: Path, out: Path | None, overwrite: bool) -> None:
    if out is not None and out.exists() and (not overwrite or out.samefile(source)):
        raise DiveError(f"{out}: exists already; choose another name or remove it first")


def _copy(
    source: SalvageReader,
    out: Path,
    start_t: int = 0,
    end_t: int = 1 << 64,
    notes: dict[str, dict[str, str]] | None = None,
    before: list[Raw] | None = None,
) -> dict[str, TopicDigest]:
    """Write what is intact to `out`, atomically: under another name, read back, then renamed. `before` are latched
    messages, which are logged at `start_t`."""
    part = part_of(out)
    writer = DurableWriter(part)
    try:
        digests = _write_intact(source, writer, start_t, end_t, notes or {}, before or [])
        if out == source.path and source.failing:
            raise DiveError(f"{out}: the disk fails ({source.failing}), so it was left as it is; recover it to another")
        if not digests and (source.blocks or source.damage):
            raise DiveError(f"{source.path}: no message there that can be copied; it was left as it is")
        check(part, digests)
        if out == source.path:
            shutil.copystat(out, part)  # retention deletes by age, which a repair must not change
        os.replace(part, out)
        sync_folder(out.parent)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise DiveError(f"{out}: cannot be written: {error.strerror}") from None
        raise
    return digests


def _write_intact(
    source: SalvageReader,
    writer: DurableWriter,
    start_t: int,
    end_t: int,
    notes: dict[str, dict[str, str]],
    before: list[Raw],
) -> dict[str, TopicDigest]:
    """Write metadata, attachments and messages, and finish the file. `before` is left out if no message follows it."""
    tallies: defaultdict[str, TopicTally] = defaultdict(TopicTally)
    channels: dict[int, int] = {}

    def add(raw: Raw, t: int) -> None:
        channel, m = raw
        if channel.id not in channels:
            schema = source.schemas.get(channel.schema_id)
            channels[channel.id] = writer.channel(channel.topic, channel.message_encoding, schema, channel.metadata)
        writer.add(channels[channel.id], t, m.data, m.publish_time, m.sequence)
        tallies[channel.topic].add(t, m.data)

    try:
        for record in source.metadata:
            writer.add_metadata(record.name, record.metadata)
        for name, note in notes.items():
            writer.add_metadata(name, note)
        for attachment in source.attachments():
            writer.add_attachment(attachment)
        for raw in source.messages(ordered=False, start_t=start_t, end_t=end_t):
            for held in before:
                add(held, start_t)
            before = []
            add(raw, raw.message.log_time)
    finally:
        writer.close()
    return {topic: tally.digest() for topic, tally in sorted(tallies.items())}


def part_of(out: Path) -> Path:
    """The name under which `out` is written first; random, so that two processes never write the same one."""
    return out.with_name(f"{out.name}.{secrets.token_hex(4)}.part")


def check(path: Path, expected: dict[str, TopicDigest]) -> None:
    """Read a finished dive with the public MCAP reader, which shares no code with SalvageReader. Raises DiveError
    unless it holds exactly these messages."""
    tallies: defaultdict[str, TopicTally] = defaultdict(TopicTally)
    try:
        with path.open("rb") as stream:
            summary = SeekingReader(stream).get_summary()
            stream.seek(0)
            for _, channel, m in NonSeekingReader(stream, validate_crcs=True).iter_messages(log_time_order=False):
                tallies[channel.topic].add(m.log_time, m.data)
    except (*DAMAGE, OSError) as error:
        raise DiveError(f"{path}: the new file does not read back: {error}; the source is as it was") from None
    counted = summary.statistics.message_count if summary and summary.statistics else -1
    found = {topic: tally.digest() for topic, tally in sorted(tallies.items())}
    if found != expected or counted != sum(each.count for each in expected.values()):
        raise DiveError(f"{path}: the new file does not hold what was written; the source is as it was")


def _report(path: Path, dive: Dive, digests: dict[str, TopicDigest], *, changed: bool) -> RecoveryReport:
    return RecoveryReport(
        path=str(path),
        changed=changed,
        topics=digests,
        lost_bytes=sum(each.length for each in dive.file.damage.values()),
        problems=tuple(dive.problems),
        last_t=max((each.last_t for each in digests.values()), default=None),
    )


def _topic_info(digest: TopicDigest) -> TopicInfo:
    seconds = (digest.last_t - digest.first_t) / 1e9
    rate_hz = (digest.count - 1) / seconds if seconds > 0 else 0.0
    return TopicInfo(
        count=digest.count, rate_hz=rate_hz, sha256=digest.sha256, first_t=digest.first_t, last_t=digest.last_t
    )
