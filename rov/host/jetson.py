"""A Jetson's own instruments: release, power mode, temperatures, power, and the margin until the kernel throttles.

Read from sysfs on any Linux; a reading whose file is missing is left out. `root` is for tests. Nothing here blocks or
writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")
TRIPS = ("passive", "hot", "critical")
"""Trip points at which the kernel throttles, warns, and switches off. `active` ones only start a fan."""
MARGIN_C = 8.0
"""A zone is announced at this margin: at one degree in ten seconds (judgement) more than a minute is left."""
CALM_C = 3.0
"""A zone's margin must grow by this much before the zone can be announced again."""
BELIEVED_C = (-40.0, 150.0)
"""Readings outside are ignored: a zone that is switched off reads nonsense."""


class Zone(NamedTuple):
    """One thermal zone: its temperature, and the one where the kernel begins to throttle (None: it never does)."""

    name: str
    celsius: float
    limit_c: float | None

    @property
    def margin_c(self) -> float | None:
        """Degrees left until the kernel throttles; None: it never does."""
        return None if self.limit_c is None else self.limit_c - self.celsius


class Rail(NamedTuple):
    """One supply rail of an INA3221: name and power in W."""

    name: str
    watts: float


def release(root: Path = ROOT) -> str:
    """The L4T release and its JetPack, as in "R36.4.3 (JetPack 6)"; "" on any other machine."""
    text = _read(root / "etc/nv_tegra_release")
    if not (match := re.search(r"R(\d+).*?REVISION:\s*([\d.]+)", text)):
        return ""
    packs = {"32": "4", "34": "5", "35": "5", "36": "6", "38": "7"}
    pack = f" (JetPack {packs[match[1]]})" if match[1] in packs else ""
    return f"R{match[1]}.{match[2]}{pack}"


def power_mode(root: Path = ROOT) -> str:
    """The power mode that nvpmodel set: its name, or its number where nvpmodel.conf names none; "" without one."""
    status = _read(root / "var/lib/nvpmodel/status")  # "pmode:0002 fmode:…"
    if not (match := re.search(r"pmode:(\d+)", status)):
        return ""
    number = int(match[1])
    table = _read(root / "etc/nvpmodel.conf")
    named = re.search(rf"POWER_MODEL\s+ID={number}\s+NAME=(\S+?)\s*>", table)
    return named[1] if named else f"mode {number}"


def zones(root: Path = ROOT) -> list[Zone]:
    """Every thermal zone that can be read."""
    found = []
    for folder in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        celsius = _milli(folder / "temp")
        if celsius is None or not BELIEVED_C[0] < celsius < BELIEVED_C[1]:
            continue
        limits = [
            limit
            for kind in folder.glob("trip_point_*_type")
            if _read(kind).strip() in TRIPS
            and (limit := _milli(kind.with_name(kind.name.replace("_type", "_temp")))) is not None
            and limit > 0
        ]
        found.append(Zone(_read(folder / "type").strip() or folder.name, celsius, min(limits, default=None)))
    return found


def rails(root: Path = ROOT) -> list[Rail]:
    """Every rail of every INA3221: power is voltage times current, which sysfs gives in mV and mA."""
    found = []
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if _read(folder / "name").strip() != "ina3221":
            continue
        for label in sorted(folder.glob("in[123]_label")):
            number = label.name[2]
            volts, amps = _milli(folder / f"in{number}_input"), _milli(folder / f"curr{number}_input")
            if volts is not None and amps is not None:
                found.append(Rail(_read(label).strip(), volts * amps))
    return found


def throttled(root: Path = ROOT) -> bool:
    """Whether the kernel holds some processor below 98 % of its hardware's highest frequency."""
    for policy in (root / "sys/devices/system/cpu/cpufreq").glob("policy*"):
        allowed, able = _number(policy / "scaling_max_freq"), _number(policy / "cpuinfo_max_freq")
        if allowed is not None and able is not None and allowed < 0.98 * able:
            return True
    return False


class HeatWatch:
    """Announces a zone, once, before the kernel throttles because of it."""

    def __init__(self) -> None:
        self.announced: set[str] = set()

    def update(self, found: list[Zone]) -> Iterator[str]:
        """One sentence for each zone whose margin has shrunk to MARGIN_C."""
        for zone in found:
            margin = zone.margin_c
            if margin is None:
                continue
            if margin <= MARGIN_C and zone.name not in self.announced:
                self.announced.add(zone.name)
                yield (
                    f"{zone.name} has {zone.celsius:.0f} °C, {margin:.0f} °C below where the computer slows down:"
                    " shade it, take power from it, or surface"
                )
            elif margin > MARGIN_C + CALM_C:
                self.announced.discard(zone.name)


def numa_cpus(node: int, root: Path = ROOT) -> set[int]:
    """The processors of a NUMA node."""
    return parse_cpus(_read(root / f"sys/devices/system/node/node{node}/cpulist").strip())


def numa_nodes(root: Path = ROOT) -> list[int]:
    """The NUMA nodes of this machine."""
    names = (path.name[4:] for path in (root / "sys/devices/system/node").glob("node[0-9]*"))
    return sorted(int(name) for name in names if name.isdecimal())


def device_node(device: Path, root: Path = ROOT) -> int | None:
    """The NUMA node of a device: the first that sysfs gives, from its folder upwards; None without one."""
    if not device.exists():
        return None
    folder = device.resolve()
    while folder != folder.parent and folder != root:
        number = _number(folder / "numa_node")
        if number is not None and number >= 0:
            return int(number)
        folder = folder.parent
    return None


def parse_cpus(text: str) -> set[int]:
    """A set of processors, written as the kernel does: `0-3,8`. Raises ValueError."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not there, or a zone that is switched off (EAGAIN)
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_read(path))
    except ValueError:
        return None


def _milli(path: Path) -> float | None:
    number = _number(path)
    return None if number is None else number / 1000
