"""Summarises a dive: when it was, which modes the pilot used, which alarms there were."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta, timezone

import msgspec

from rov.dives.dive import Dive
from rov.messages import Clock, Event, PilotStatus, ThrusterCommand

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
UTC_FROM_NS = 946_684_800 * 10**9
"""Log times from the year 2000 on are taken for UTC; earlier ones count from some start."""
JUMP_NS = 1_000_000_000
"""Clocks that drift apart by more than this were set. Also the longest gap counted as time in a mode."""
TOPICS = ("clock", "pilot", "thrusters", "events")


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The first lines of `rov dive info`."""

    start_utc: str = ""
    """When the dive began, ISO 8601; empty where unknown."""
    clock_set_s: float = 0.0
    """By how much the wall clock was set during the recording, in s."""
    modes: dict[str, float] = {}
    """How long the pilot was in each mode while armed, in s."""
    alarms: dict[str, int] = {}
    """How many of each, by code and the text of the first."""


def summary(dive: Dive) -> Summary:
    """Reads the topics of rov in a dive."""
    clocks: list[Clock] = []
    modes: Counter[str] = Counter()
    alarms: Counter[str] = Counter()
    texts: dict[str, str] = {}
    last: PilotStatus | ThrusterCommand | None = None
    pilot = "pilot" if dive.readable.get("pilot") else "thrusters"
    for record in dive.messages(TOPICS):
        match record.data:
            case Clock():
                clocks.append(record.data)
            case Event(level="alarm"):
                alarms[record.data.code] += 1
                texts.setdefault(record.data.code, record.data.text)
            case PilotStatus() | ThrusterCommand() if record.topic == pilot:
                if last is not None and last.armed:
                    modes[last.mode.value] += min(record.data.t - last.t, JUMP_NS)
                last = record.data
    return Summary(
        start_utc=utc_text(start_utc(dive, clocks)),
        clock_set_s=round(drift(clocks) / 1e9, 3),
        modes={mode: round(ns / 1e9, 1) for mode, ns in modes.most_common()},
        alarms={f"{code} ({texts[code]})": count for code, count in alarms.most_common()},
    )


def start_utc(dive: Dive, clocks: list[Clock]) -> int | None:
    """When the first message was logged, UTC in ns. The last `clock` message counts: a computer without a clock of
    its own learns the time only after it has started."""
    if clocks:
        return clocks[-1].utc_ns - (clocks[-1].t - dive.first_t)
    return dive.first_t if dive.first_t >= UTC_FROM_NS else None


def drift(clocks: list[Clock]) -> int:
    """By how much the wall clock was set, ns; 0 for less than JUMP_NS."""
    moved = (clocks[-1].utc_ns - clocks[0].utc_ns) - (clocks[-1].t - clocks[0].t) if clocks else 0
    return moved if abs(moved) > JUMP_NS else 0


def utc_text(ns: int | None) -> str:
    if ns is None:
        return ""
    try:
        return (EPOCH + timedelta(microseconds=ns // 1000)).isoformat(timespec="seconds")
    except OverflowError:
        return ""
