"""Latched topics, whose last message holds until the next: a part cut from a dive must begin with these."""

from __future__ import annotations

from collections import defaultdict

from mcap.records import Channel

from rov.config.timeline import EFFECT_NS
from rov.dives.pictures import words_of
from rov.dives.salvage import Block, Raw, SalvageReader

TOPICS = {"calibration", "settings", "config_edit", "clock", "tuning", "edit"}
"""Our own; `tuning` and `edit` are the names of `settings` and `config_edit` in message version 1."""
SCHEMAS = {"CameraCalibration", "CameraInfo"}
"""Of other tools, by the last word of the schema name."""
STATIC = {"/tf_static", "/robot_description"}
DURABLE = ("durability: 1", "durability: transient_local")
"""How ROS 2 records the QoS of a topic whose last message is kept for late subscribers."""


def latched(channel: Channel, file: SalvageReader) -> bool:
    """Whether the last message of this channel holds until the next one."""
    profiles = channel.metadata.get("offered_qos_profiles", "")
    return (
        channel.topic in TOPICS | STATIC
        or words_of(file.schemas.get(channel.schema_id))[-1:] in ([each] for each in SCHEMAS)
        or channel.metadata.get("latching") == "1"
        or any(each in profiles for each in DURABLE)
    )


def latched_before(file: SalvageReader, t: int) -> list[Raw]:
    """The latched messages from before `t` that still hold at `t`, by time. Settings take effect EFFECT_NS after they
    were published; until then the previous message is needed, too."""
    wanted = {number for number, channel in file.channels.items() if latched(channel, file)}
    if not wanted:
        return []
    found: defaultdict[int, list[Raw]] = defaultdict(list)
    for block in sorted((b for b in file.blocks if b.start_t < t), key=lambda b: -b.end_t):
        open_ = {number for number in wanted if not _settled(found[number], block, t)}
        if not open_:
            break
        if not block.channels or block.channels & open_:
            for raw in file.block(block):
                if raw.channel.id in open_ and raw.message.log_time < t:
                    found[raw.channel.id].append(raw)
    kept = [raw for each in found.values() for raw in _holding(each, t)]
    return sorted(kept, key=lambda raw: (raw.message.log_time, raw.channel.id))


def _settled(found: list[Raw], block: Block, t: int) -> bool:
    """Whether neither this block nor one that ended earlier can hold a later effective message."""
    before = [raw.message.log_time for raw in found if raw.message.log_time < t - EFFECT_NS]
    return bool(before) and max(before) >= block.end_t


def _holding(found: list[Raw], t: int) -> list[Raw]:
    """The last message that had taken effect at `t`, and those after it."""
    ordered = sorted(found, key=lambda raw: raw.message.log_time)
    old = [raw for raw in ordered if raw.message.log_time < t - EFFECT_NS]
    return old[-1:] + ordered[len(old) :]
