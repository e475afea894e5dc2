"""Finds the surface pressure, the water's density, and the pressure sensor in the water, from a whole log.

A live link is given the surface pressure. A log shows it: it is the pressure where the autopilot's own height is 0 or,
without heights, the lowest pressure of all, because the vehicle cannot rise above the surface.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.signal import medfilt

from rov.link.vehicle_state import GRAVITY, HULL, PRESSURE_PA, WET_PA, depth_of
from rov.types import Floats

Series = list[tuple[int, float]]
"""(order, value) of each reading; only the order counts."""

AIR_PA = (50_000.0, 108_500.0)
"""Possible air pressures: from a lake at 5500 m to the strongest high."""
STANDARD_PA, SALT, DENSITIES = 101_325.0, 1025.0, (950.0, 1080.0)
SHOWS_M = 1.0
"""Heights must span more than this to show the water's density."""
BELOW_M = 0.3
"""The surface may be this far below the highest measured place, because of waves or a sensor on deck."""
HIGH_M = 0.5
"""Heights that exceed this do not have their zero at the surface."""
MOVES_PA = 1_000.0


class LogWater(NamedTuple):
    """The water of a log. `surface_pa` in Pa, `density` in kg/m³."""

    sources: tuple[str, ...]
    """Sources of the depth, the best first."""
    surface_pa: float
    density: float
    above: dict[str, float]
    """By source of heights: how far the surface is above its zero, m."""
    notes: list[str]

    @property
    def by_pressure(self) -> bool:
        return bool(self.sources) and self.sources[0].startswith(HULL)


def water(
    pressures: Mapping[str, Series],
    heights: Mapping[str, Series],
    parameters: Mapping[str, float],
    surface_pa: float | None = None,
    density: float | None = None,
) -> LogWater:
    """Derive the water from the sensors' pressures (Pa) and the autopilot's heights (m, positive up, best source
    first). `surface_pa` and `density` are given by the user."""
    felt = {name: smooth(series, *PRESSURE_PA) for name, series in pressures.items()}
    sensor = in_the_water({name: values for name, (_, values) in felt.items() if len(values)})
    known = {name: smooth(series, -20_000.0, 20_000.0) for name, series in heights.items()}
    known = {name: series for name, series in known.items() if len(series[0])}
    moving = {name: series for name, series in known.items() if np.ptp(series[1]) > 0}
    known = moving or ({} if sensor else known)
    if not sensor:
        above = {name: highest(values) for name, (_, values) in known.items()}
        notes = [f"the surface is taken to be {up:.1f} m above the zero of {name}" for name, up in above.items() if up]
        return LogWater(tuple(known), STANDARD_PA, SALT, above, notes)
    t, pascal = felt[sensor]
    if density is None:
        density, why = dense(t, pascal, known, parameters)
    else:
        why = "as you say"
    if surface_pa is None:
        surface_pa, whence = surface(t, pascal, known, density)
    else:
        whence = "as you say"
    depth = depth_of(pascal, surface_pa, density)  # type: ignore[arg-type]
    above = {name: float(np.median(depth + np.interp(t, *series))) for name, series in known.items()}
    note = (
        f"depth is from {sensor}: the surface at {surface_pa / 100:.1f} hPa ({whence}), {density:.0f} kg/m³ ({why});"
        " --surface-pa and --density say otherwise"
    )
    return LogWater((sensor, *known), surface_pa, density, above, [note])


def smooth(series: Series, low: float, high: float) -> tuple[Floats, Floats]:
    """Times and values in order, without values out of range or single spikes."""
    good = sorted({t: value for t, value in series if low < value < high}.items())
    values = np.array([value for _, value in good])
    if len(values) >= 5:
        values[2:-2] = medfilt(values, 5)[2:-2]
        values[:2], values[-2:] = np.median(values[:5]), np.median(values[-5:])
    return np.array([float(t) for t, _ in good]), values


def in_the_water(felt: Mapping[str, Floats]) -> str:
    """The sensor in the water: the one whose pressure changes most, or the first if none stands out. The hull's own
    barometer counts only when it is the only one and reads a pressure under water. "" for none."""
    outside = {name: values for name, values in felt.items() if name != HULL}
    if not outside:
        return HULL if HULL in felt and felt[HULL].max() > WET_PA else ""
    first, *others = sorted(outside)
    best = max(outside, key=lambda name: float(np.ptp(outside[name])))
    clear = np.ptp(outside[best]) > max(MOVES_PA, 2 * float(np.ptp(outside[first])))
    wet = outside[first].max() <= WET_PA < outside[best].max()
    return best if others and (clear or wet) else first


def dense(
    t: Floats, pascal: Floats, heights: Mapping[str, tuple[Floats, Floats]], parameters: Mapping[str, float]
) -> tuple[float, str]:
    """The water's density in kg/m³, and how it was found."""
    for name, series in heights.items():
        up = np.interp(t, *series)
        if len(t) >= 20 and np.ptp(up) > SHOWS_M and np.ptp(pascal) > 0:
            slope = -float(np.polyfit(up - up.mean(), pascal, 1)[0])
            agree = -float(np.corrcoef(up, pascal)[0, 1])
            if agree > 0.99 and DENSITIES[0] < slope / GRAVITY < DENSITIES[1]:
                return slope / GRAVITY, f"as {name} has it"
    gravity = parameters.get("BARO_SPEC_GRAV", parameters.get("GND_SPEC_GRAV", 0.0))
    if DENSITIES[0] < 1000 * gravity < DENSITIES[1]:
        return 1000 * gravity, "as its parameters say"
    return SALT, "as of sea water"


def surface(
    t: Floats, pascal: Floats, heights: Mapping[str, tuple[Floats, Floats]], density: float
) -> tuple[float, str]:
    """The pressure at the surface in Pa, and how it was found."""
    lowest = float(pascal.min())
    metre = density * GRAVITY
    for name in (each for each in heights if each != "VFR_HUD"):  # whose zero may be sea level
        up = np.interp(t, *heights[name])
        zero = pascal + up * metre
        steady = np.percentile(zero, 95) - np.percentile(zero, 5) < max(SHOWS_M * metre, 0.1 * float(np.ptp(pascal)))
        at = float(np.median(zero))
        if steady and AIR_PA[0] < at < min(AIR_PA[1], lowest + BELOW_M * metre):
            return at, f"where {name} is 0"
    if AIR_PA[0] < lowest < AIR_PA[1]:
        return lowest, "the lowest there was"
    return STANDARD_PA, "at the sea, on an average day"


def highest(values: Floats) -> float:
    """The surface in heights without a pressure, m: their zero, or the highest place if above HIGH_M."""
    top = float(values.max())
    return top if top > HIGH_M else 0.0
