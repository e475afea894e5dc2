"""Facts of ArduSub's firmware: modes, frames, parameters and their unsafe values, and how sticks become RC pulses.

From its sources: Parameters.cpp, joystick.cpp, defines.h, GCS_MAVLink_Sub.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rov.messages import Mode

STABILIZE, ALT_HOLD, SURFACE, POSHOLD, MANUAL = 0, 2, 9, 16, 19
NAMES = {0: "STABILIZE", 1: "ACRO", 2: "ALT_HOLD", 3: "AUTO", 4: "GUIDED", 7: "CIRCLE", 9: "SURFACE", 16: "POSHOLD"}
NAMES |= {19: "MANUAL", 20: "MOTOR_DETECT", 21: "SURFTRAK"}
HOLDING = (ALT_HOLD, POSHOLD)
"""Modes in which heave and yaw are speeds, beyond a dead band in which depth and heading are held."""
MODES: dict[Mode, tuple[int, ...]] = {
    Mode.MANUAL: (ALT_HOLD, STABILIZE, POSHOLD, MANUAL),
    Mode.HOLD: (ALT_HOLD,),
    Mode.FOLLOW: (ALT_HOLD,),
    Mode.POLICY: (ALT_HOLD,),
    Mode.SURFACE: (SURFACE,),
}
"""ArduSub modes in which each of our modes works; the first is requested when the vehicle is in none of them."""
FRAMES = ("bluerov1", "vectored", "vectored_6dof", "vectored_6dof_90deg", "simplerov_3", "simplerov_4")
"""Names of our frames by FRAME_CONFIG."""

GCS_IDS = ("SYSID_MYGCS", "MAV_GCS_SYSID")
"""The ground station's system id: its name until ArduSub 4.6, and since."""
REQUIRED = ("FS_PILOT_INPUT", "FS_PILOT_TIMEOUT", "FRAME_CONFIG", "JS_GAIN_DEFAULT", "JS_THR_GAIN")
FAILSAFES = ("FS_GCS_ENABLE", "FS_GCS_TIMEOUT", "FS_LEAK_ENABLE", "FS_PRESS_ENABLE", "FS_TEMP_ENABLE", "FS_EKF_ACTION")
GAINS = ("JS_GAIN_MIN", "JS_GAIN_MAX", "JS_GAIN_STEPS")
DEAD_BANDS = {"THR_DZ": 100.0, "RC4_DZ": 40.0}
"""The dead bands of throttle and yaw, and their defaults."""
UP, DOWN = 519.5, 480.5
"""Thousandths of the throttle's range from its middle to both ends: 30 µs at the lower one are dead (radio.cpp)."""
PARAMETERS = (*GCS_IDS, *REQUIRED, *FAILSAFES, *GAINS, *DEAD_BANDS, "FS_CRASH_CHECK", "RC_OVERRIDE_TIME")
TRIES = 6
"""A parameter without an answer after this many requests does not exist."""
TIMEOUT_MAX_S = 0.5
"""Largest FS_PILOT_TIMEOUT: the last sticks act for this long after a crash of ours."""
SWITCHES = {
    "InputHold": "input hold is on: the autopilot adds sticks of its own; press its button again",
    "RollPitch": "roll and pitch mode is on: sticks would tilt the vehicle; press its button again",
}
"""NAMED_VALUE_FLOAT of the pilot's switches (GCS_MAVLink_Sub.cpp), and why sticks are refused while on."""

Rc = tuple[float, float, float, float]
"""Pulses in µs of throttle, yaw, forward, lateral: RC channels 3 to 6."""


def rc_of(x: float, y: float, z: float, r: float, gain: float, throttle_gain: float) -> Rc:
    """The pulses that ArduSub makes of a MANUAL_CONTROL (joystick.cpp: 0.4 µs per unit and gain; throttle 0.8)."""
    k = 0.8 * gain * throttle_gain
    pulses = (1500 - 500 * k + k * z, 1500 + 0.4 * gain * r, 1500 + 0.4 * gain * x, 1500 + 0.4 * gain * y)
    throttle, yaw, forward, lateral = (min(max(us, 1100.0), 1900.0) for us in pulses)
    return throttle, yaw, forward, lateral


def sticks_of(values: Sequence[float], gain: float, throttle_gain: float) -> tuple[int, int, int, int]:
    """The inverse: x, y, z, r that produce these fractions of full scale (400 µs): surge, sway, heave, yaw."""
    surge, sway, heave, yaw = values
    x, y, r = (round(min(max(1000 * value / gain, -1000), 1000)) for value in (surge, sway, yaw))
    z = round(min(max(500 - 500 * heave / (gain * throttle_gain), 0), 1000))
    return x, y, z, r


def past_dead_bands(values: Sequence[float], gain: float, known: Mapping[str, float]) -> list[float]:
    """Fractions of full scale that a HOLDING mode takes for these: surge, sway, heave, yaw. The smallest heave and yaw
    lie at the edge of their dead band, 0 in its middle.

    THR_DZ is in thousandths of the throttle's range (Attitude.cpp: get_pilot_desired_climb_rate), RC4_DZ in µs
    (mode_althold.cpp: pwm_to_angle_dz_trim); both times the gain."""
    dead = {name: gain * min(max(known.get(name, usual), 0.0), 400.0) for name, usual in DEAD_BANDS.items()}
    surge, sway, heave, yaw = values
    end = DOWN if heave > 0 else UP
    return [surge, sway, _past(heave, dead["THR_DZ"], end) / UP, _past(yaw, dead["RC4_DZ"], 400.0) / 400.0]


def _past(value: float, band: float, end: float) -> float:
    """A share of the way from the edge of a dead band to the end."""
    return math.copysign(band + (end - band) * abs(value), value) if value else 0.0


def first_gain(known: Mapping[str, float]) -> float:
    """The pilot's gain after a start of the autopilot, from its parameters (init_joystick)."""
    low, high, first = known.get("JS_GAIN_MIN", 0.25), known.get("JS_GAIN_MAX", 1.0), known["JS_GAIN_DEFAULT"]
    steps = int(known.get("JS_GAIN_STEPS", 4))
    if steps > 1 and not low - 0.01 < first < high + 0.01:
        first = low + (steps // 2 - 1) * (high - low) / (steps - 1)
    return min(max(min(max(first, low), high), 0.1), 1.0)


def unsafe_failsafe(known: Mapping[str, float]) -> str:
    """Why the vehicle would not be neutral in time after a crash of ours, or ""."""
    if known["FS_PILOT_INPUT"] != 2:
        return f"FS_PILOT_INPUT is {known['FS_PILOT_INPUT']:g}; it must be 2 (disarm), or a crash leaves thrust on"
    if not 0 < known["FS_PILOT_TIMEOUT"] <= TIMEOUT_MAX_S + 1e-6:
        text = f"FS_PILOT_TIMEOUT is {known['FS_PILOT_TIMEOUT']:g} s; it must be 0.5 s or less"
        return f"{text}, or a crash leaves the last thrust on for that long"
    return ""


def unsafe(name: str, value: float, frame: str) -> str:
    """Why a parameter's value makes the vehicle unsafe while we steer, or ""."""
    match name:
        case "FS_PILOT_INPUT" if value != 2:
            return "it must be 2, disarm"
        case "FS_PILOT_TIMEOUT" if not 0 < value <= TIMEOUT_MAX_S + 1e-6:
            return "it must be 0.5 s or less: the last thrust stays on for that long after a crash"
        case "FS_GCS_TIMEOUT" if value > 5:
            return "nothing happens for that long after the ground station is lost; 5 s is the default"
        case "FS_GCS_ENABLE" if value < 2:
            return "nothing happens when the ground station is lost; 2 disarms, with 4 rov goes up while it steers"
        case "FS_LEAK_ENABLE" if value < 1:
            return "a leak is not reported; 1 warns, 2 goes up"
        case "RC_OVERRIDE_TIME" if value <= 0:
            return "sticks are ignored, or never expire; 3 s is the default"
        case "FRAME_CONFIG" if not (0 <= value < len(FRAMES) and FRAMES[int(value)] == frame):
            return f"vehicle.frame = {frame!r} does not agree"
    return ""
