"""Translates a vehicle's MAVLink into a `VehicleState`, for live links and for logs.

Depth comes from the water's pressure, because a pressure carries its time and the surface is known; without a pressure
sensor, from the autopilot's height above its home. A height above the sea (AHRS2.altitude) is never used as a depth.
Only the vehicle's own battery counts, not those of a payload. Time is an argument, ns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from rov.link.mavlink import MS
from rov.messages import VehicleState

PRESSURE_PA = (1e4, 1.3e8)
"""Plausible water pressures: from a mountain lake to below the deepest sea."""
DEPTHS_M = (-20.0, 11_000.0)
"""Plausible depths; a barometer in air is off by a few metres, and reads above the water."""
WET_PA = 110_000.0
"""No air reaches this pressure, in a hull or outside: a sensor that reads more is in the water."""
GRAVITY = 9.80665
"""m/s²."""
UNKNOWN_MV = 0xFFFF
VOLTS = (0.0, 1000.0)
SPEED_MAX = 20.0
"""m/s; no rover moves as fast, nor its ship."""
CELSIUS = (-60.0, 200.0)
OTHER_NS = 1000 * MS
"""A source of depth is used when no better one was received for this long."""
LEAK_OVER_NS = 30_000 * MS
"""ArduSub repeats its leak text every 20 s, and never reports the end of a leak."""
HULL = "SCALED_PRESSURE"
SOURCES = ("SCALED_PRESSURE2", "SCALED_PRESSURE3", "GLOBAL_POSITION_INT", "VFR_HUD")
"""Sources of depth, the best first."""
DOWN, AHEAD = 25, 0
"""MAV_SENSOR_ORIENTATION of an echo sounder: pitched by 270°, not turned."""
NAMED = {"CamTilt": "camera_tilt", "Lights1": "lights", "PilotGain": "pilot_gain"}
"""ArduSub's NAMED_VALUE_FLOAT that are kept, and the field of VehicleState for each; all 0..1."""


def depth_of(pressure_pa: float, surface_pa: float, density: float) -> float:
    """Depth in m at a pressure in Pa, where the surface has `surface_pa`; `density` of the water in kg/m³."""
    return (pressure_pa - surface_pa) / (density * GRAVITY)


def volts_of(message: Any) -> float | None:
    """Voltage in V of a BATTERY_STATUS; None where it has none. The sum of its entries, whether they are cells or the
    whole battery in the first (and second) one."""
    known = [mv for mv in (*message.voltages, *message.voltages_ext) if mv != UNKNOWN_MV]
    return sum(known) / 1000 if any(known) else None


def tells_of_leak(text: str) -> bool:
    """Does this text of the autopilot report a leak?"""
    return "leak detected" in text.lower()


def level_of(severity: int) -> Literal["info", "warning", "alarm"]:
    """The event level of a MAV_SEVERITY."""
    return "alarm" if severity <= 3 else "warning" if severity == 4 else "info"


class Telemetry:
    """The state of one vehicle. `update` takes its MAVLink; readers of other formats (an autopilot's own log) call the
    public methods that `update` calls. Each returns False for impossible values, and then changes nothing."""

    def __init__(self, surface_pa: float = 101_325.0, density: float = 1025.0, *, battery: int = 0):
        """`surface_pa`: air pressure at the surface in Pa; `density` of the water in kg/m³: both may be set while
        running. `battery`: the id of the vehicle's own battery."""
        self.surface_pa, self.density, self.main = surface_pa, density, battery
        self.state: VehicleState | None = None
        """None until something was received."""
        self.sources: tuple[str, ...] = SOURCES
        self.above: dict[str, float] = {}
        """Depth in m of the zero of a source of heights, negative above the surface; 0 where not given."""
        self.wet: set[str] = set()
        """Sensors that have been in the water."""
        self.heard: dict[str, int] = {}
        """When a source of depth was last received."""
        self.battery_ns = 30_000 * MS
        """A voltage older than this is unknown."""
        self._battery_t = self._cells_t = -(1 << 62)
        self._leak_t: int | None = None
        """When a text last reported a leak; None where the vehicle reports the end of a leak itself."""
        self._handlers: dict[str, Callable[[Any, int, int], bool]] = {
            "ATTITUDE": self._attitude,
            "SCALED_PRESSURE": self._pressure,
            "SCALED_PRESSURE2": self._pressure,
            "SCALED_PRESSURE3": self._pressure,
            "GLOBAL_POSITION_INT": self._global_position,
            "LOCAL_POSITION_NED": lambda m, measured_t, t: self.position(m.x, m.y, measured_t),
            "VFR_HUD": lambda m, measured_t, t: self.height("VFR_HUD", m.alt, measured_t, t),
            "HEARTBEAT": self._heartbeat,
            "BATTERY_STATUS": lambda m, measured_t, t: self.battery(m.id, volts_of(m), t),
            "SYS_STATUS": self._sys_status,
            "STATUSTEXT": lambda m, measured_t, t: self.text(m.text, t),
            "NAMED_VALUE_INT": self._named_int,
            "NAMED_VALUE_FLOAT": self._named_float,
            "DISTANCE_SENSOR": self._distance_sensor,
            "VISION_POSITION_DELTA": self._moved,
            "RANGEFINDER": lambda m, measured_t, t: self.range(DOWN, m.distance, measured_t),
        }

    def update(self, message: Any, t: int, measured_t: int | None = None) -> bool:
        """Take a message of the vehicle that arrived at `t`; `measured_t`: when it was measured, where known.
        Messages of other kinds are ignored."""
        handle = self._handlers.get(message.get_type())
        return handle is None or handle(message, t if measured_t is None else measured_t, t)

    def receive(self, t: int) -> None:
        """Note that a message of any kind arrived at `t`."""
        self._know(t=t)

    def expire(self, t: int) -> None:
        """Forget values that are too old."""
        if self.state is None:
            return
        if self.state.battery_v is not None and t - self._battery_t > self.battery_ns:
            self._know(battery_v=None)
        if self.state.leak and self._leak_t is not None and t - self._leak_t > LEAK_OVER_NS:
            self._know(leak=False)

    # ---- measurements --------------------------------------------------------------------------------------------

    def attitude(self, angles: tuple[float, float, float], rates: tuple[float, float, float], measured_t: int) -> bool:
        """Take roll, pitch, yaw in rad, and body rates in rad/s."""
        if not all(map(math.isfinite, (*angles, *rates))):
            return False
        roll, pitch, yaw = angles
        return self._know(attitude_t=measured_t, roll=roll, pitch=pitch, yaw=yaw, rates=rates)

    def pressure(self, source: str, pascal: float, celsius: float, measured_t: int, t: int) -> bool:
        """Take a pressure in Pa and temperature in °C, of a sensor in the water or in the hull."""
        if source not in self.sources:
            return source != HULL or self._hull(pascal, celsius)
        if not PRESSURE_PA[0] < pascal < PRESSURE_PA[1]:
            return False
        if pascal > WET_PA:
            self.wet.add(source)
        if self._best(source, t):
            depth = depth_of(pascal, self.surface_pa, self.density)
            known = celsius if CELSIUS[0] < celsius < CELSIUS[1] else None
            self._know(depth_t=measured_t, depth=depth, water_temperature_c=known)
        return True

    def height(self, source: str, up: float, measured_t: int, t: int) -> bool:
        """Take the autopilot's own height in m, positive up."""
        depth = self.above.get(source, 0.0) - up
        if not DEPTHS_M[0] < depth < DEPTHS_M[1]:
            return False
        if source in self.sources and self._best(source, t):
            self._know(depth_t=measured_t, depth=depth)
        return True

    def battery(self, number: int, volts: float | None, t: int) -> bool:
        """Take the voltage of a battery in V; None where unknown."""
        if number != self.main or volts is None:
            return True
        if not VOLTS[0] < volts < VOLTS[1]:
            return False
        self._battery_t = self._cells_t = t
        return self._know(battery_v=volts)

    def text(self, text: str, t: int) -> bool:
        """Take a status text of the autopilot."""
        if tells_of_leak(text):
            self._leak_t = t
            self._know(leak=True)
        return True

    def leak(self, leak: bool) -> bool:
        """Take a leak sensor's state, which also reports the end of a leak."""
        self._leak_t = None
        return self._know(leak=leak)

    def range(self, orientation: int, metres: float, measured_t: int) -> bool:
        """Take an echo sounder's distance in m."""
        if not 0 < metres < DEPTHS_M[1]:
            return False
        if orientation == DOWN:
            self._know(altitude_t=measured_t, altitude=metres)
        elif orientation == AHEAD:
            self._know(range_ahead_t=measured_t, range_ahead=metres)
        return True

    def position(self, north: float, east: float, measured_t: int) -> bool:
        """Take a position in m from the autopilot's origin."""
        if not (math.isfinite(north) and math.isfinite(east)):
            return False
        return self._know(position_t=measured_t, position=(north, east))

    def moving(self, surge: float, sway: float, heave: float, measured_t: int) -> bool:
        """Take the velocity over ground along the body's axes, m/s."""
        if not all(abs(each) < SPEED_MAX for each in (surge, sway, heave)):
            return False
        return self._know(velocity_t=measured_t, velocity=(surge, sway, heave))

    def place(self, latitude: float, longitude: float) -> bool:
        """Take a place in degrees; 0, 0 is an autopilot that does not know it."""
        if (latitude, longitude) == (0.0, 0.0):
            return True
        if not (abs(latitude) <= 90 and abs(longitude) <= 180):
            return False
        return self._know(latitude=latitude, longitude=longitude)

    # ---- MAVLink -------------------------------------------------------------------------------------------------

    def _attitude(self, m: Any, measured_t: int, t: int) -> bool:
        return self.attitude((m.roll, m.pitch, m.yaw), (m.rollspeed, m.pitchspeed, m.yawspeed), measured_t)

    def _pressure(self, m: Any, measured_t: int, t: int) -> bool:
        return self.pressure(m.get_type(), m.press_abs * 100, m.temperature / 100, measured_t, t)  # hPa, 0.01 °C

    def _global_position(self, m: Any, measured_t: int, t: int) -> bool:
        fits = self.place(m.lat / 1e7, m.lon / 1e7)
        return self.height("GLOBAL_POSITION_INT", m.relative_alt / 1000, measured_t, t) and fits

    def _heartbeat(self, m: Any, measured_t: int, t: int) -> bool:
        return self._know(armed=bool(m.base_mode & 128))  # MAV_MODE_FLAG_SAFETY_ARMED

    def _sys_status(self, m: Any, measured_t: int, t: int) -> bool:
        """Its voltage is the first battery's, used where no BATTERY_STATUS of that arrives."""
        if 0 < m.voltage_battery < UNKNOWN_MV and self.main == 0 and t - self._cells_t > self.battery_ns:
            self._battery_t = t
            self._know(battery_v=m.voltage_battery / 1000)
        return True

    def _named_int(self, m: Any, measured_t: int, t: int) -> bool:
        return m.name != "LEAK" or self.leak(m.value != 0)

    def _named_float(self, m: Any, measured_t: int, t: int) -> bool:
        if m.name not in NAMED:
            return True
        return 0 <= m.value <= 1 and self._know(**{NAMED[m.name]: m.value})

    def _distance_sensor(self, m: Any, measured_t: int, t: int) -> bool:
        """Distances in cm; one outside the sounder's range means that it found nothing."""
        if not m.min_distance <= m.current_distance <= m.max_distance or getattr(m, "signal_quality", 0) == 1:
            return True
        return self.range(m.orientation, m.current_distance / 100, measured_t)

    def _moved(self, m: Any, measured_t: int, t: int) -> bool:
        """A DVL's message to the autopilot: the displacement since the last one, along the body's axes."""
        if m.time_delta_usec <= 0 or not m.confidence > 0:
            return True
        surge, sway, heave = (1e6 * each / m.time_delta_usec for each in m.position_delta)
        return self.moving(surge, sway, heave, measured_t)

    # ---- the state -----------------------------------------------------------------------------------------------

    def _hull(self, pascal: float, celsius: float) -> bool:
        if not 0 <= pascal < PRESSURE_PA[1] or not CELSIUS[0] < celsius < CELSIUS[1]:
            return False
        return self._know(hull_pressure_kpa=pascal / 1000, hull_temperature_c=celsius)

    def _best(self, source: str, t: int) -> bool:
        """Is this the best source of depth now? Once one sensor was in the water, one that never was sits in a hull."""
        self.heard[source] = t
        dry = {each for each in self.sources if self.wet and each.startswith(HULL) and each not in self.wet}
        ranks = sorted(self.sources, key=lambda each: each in dry)
        better = ranks[: ranks.index(source)]
        return all(t - self.heard[each] > OTHER_NS for each in better if each in self.heard)

    def _know(self, **changes: Any) -> bool:
        t = changes.get("t", 0)
        self.state = (
            msgspec.structs.replace(self.state, **changes) if self.state else VehicleState(**{"t": t} | changes)
        )
        return True
