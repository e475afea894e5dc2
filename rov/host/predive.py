"""`rov doctor --dive`: the list to go through before the vehicle gets wet. What a running daemon says counts."""

from __future__ import annotations

import ctypes
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rov.bus import listen
from rov.config.schema import Config
from rov.errors import UserError
from rov.host.doctor import Finding
from rov.messages import Frame, Health, HostStatus, Message, PilotStatus, VehicleState
from rov.motion.thrusters import load as load_curve
from rov.resources import find_resource
from rov.vision.rectify import Rectifier

LISTEN_S = 2.5
"""Two rounds of what is said once a second."""
TOPICS = ["vehicle", "pilot", "frame", "health", "host"]
CAMERA_SHARE = 0.8
"""Of the wanted rate; the daemon itself leaves `policy` below this."""
SURFACE_M = 0.5
"""A vehicle on deck whose depth reads more has a wrong link.surface_pa."""
TIME_ERROR = 5
"""What adjtime(2) returns while the clock is not synchronised."""
DECK_MARGIN_C = 15.0
"""Less than this on deck is little: water cools a closed hull, the sun heats it."""
EPOCH = 1_767_225_600.0
"""1 January 2026: a clock before it was never set."""


def check(config: Config, path: Path | None) -> Iterator[Finding]:
    """Look at everything, in the order of the manual."""
    yield _configuration(config, path)
    yield _usable(
        "calibration",
        config.camera.calibration,
        lambda: Rectifier(config.camera).lens,
        "rov calibrate camera, then set camera.calibration: angles are guessed from camera.hfov_deg",
    )
    yield _usable("weights", config.perception.weights, lambda: find_resource(config.perception.weights, Path()), "")
    yield _usable(
        "thrusters",
        config.vehicle.thrusters,
        lambda: load_curve(find_resource(config.vehicle.thrusters, Path()), config.vehicle.battery_cells),
        "",
    )
    yield _disk(config)
    yield _clock()
    heard = collect(config)
    if not heard:
        yield Finding(
            "daemon", "missing", "it says nothing", f"start it, then ask again; it speaks at {config.bus.public}"
        )
        return
    yield Finding("daemon", "ok", f"speaks at {config.bus.public}")
    yield from judge(heard, config)


def collect(config: Config, seconds: float = LISTEN_S) -> dict[str, list[Message]]:
    """What the daemon says in a short while, by topic; empty when it does not run."""
    found: dict[str, list[Message]] = {}
    reader = listen(config.bus.public, TOPICS)
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            reader.wait(100)
            for entry in reader.receive():
                found.setdefault(entry.topic, []).append(entry.message)
    finally:
        reader.close()
    return found


def judge(heard: dict[str, list[Message]], config: Config) -> Iterator[Finding]:
    """What the daemon's own words mean for a dive."""

    def last(topic: str, kind: type[Any]) -> Any:
        return next((each for each in reversed(heard.get(topic, [])) if isinstance(each, kind)), None)

    now = max(each.t for messages in heard.values() for each in messages)
    vehicle: VehicleState | None = last("vehicle", VehicleState)
    link = _link(vehicle, config, now)
    yield link
    if link.state == "missing":
        vehicle = None  # what it last said is history
    if vehicle is not None and vehicle.depth_t is not None:
        deck = abs(vehicle.depth) < SURFACE_M
        yield Finding(
            "depth",
            "ok" if deck else "slow",
            f"{vehicle.depth:.2f} m",
            "" if deck else "on deck this should be 0: set link.surface_pa",
        )
    if vehicle is not None:
        yield _battery(vehicle, config)
        yield Finding(
            "leak sensor",
            "missing" if vehicle.leak else "ok",
            "LEAK" if vehicle.leak else "dry",
            "do not dive: open it and dry it" if vehicle.leak else "wet its probe once a season: it must alarm",
        )
        yield _hull(vehicle, config)
    pilot: PilotStatus | None = last("pilot", PilotStatus)
    if pilot is None:
        yield Finding("pilot", "missing", "it says nothing", "journalctl -u rov says why")
    else:
        yield Finding(
            "pilot",
            "missing" if pilot.armed else "ok",
            "ARMED" if pilot.armed else "disarmed",
            "rov ctl stop, before anybody touches a propeller" if pilot.armed else "",
        )
        yield Finding(
            "operator",
            "ok" if pilot.operator else "slow",
            pilot.operator or "nobody is at the controls",
            "" if pilot.operator else "rov drive: without an operator's heartbeat nothing is armed",
        )
    health: dict[str, Health] = {each.process: each for each in heard.get("health", []) if isinstance(each, Health)}
    frames = [each for each in heard.get("frame", []) if isinstance(each, Frame)]
    rate = health["camerad"].rate_hz if "camerad" in health else 0.0
    good = bool(frames) and rate >= CAMERA_SHARE * config.perception.rate_hz
    yield Finding(
        "camera",
        "ok" if good else "missing",
        f"{rate:.1f} pictures/s" if frames else "no pictures",
        ""
        if good
        else f"needs {CAMERA_SHARE * config.perception.rate_hz:.0f} new ones a second (one that stands still is none):"
        " cable, camera.source",
    )
    for name, what in (("perceptiond", "perception"), ("recorderd", "recording")):
        runs = name in health and (health[name].rate_hz > 0 or not frames)
        yield Finding(
            what,
            "ok" if runs else "missing",
            "runs" if runs else "does not",
            "" if runs else "rov listen events says why",
        )
    machine: HostStatus | None = last("host", HostStatus)
    if machine is not None and machine.celsius is not None:
        margin = machine.margin_c
        near = machine.throttled or (
            margin is not None and margin < 15.0
        )  # water cools a closed hull; a sunny deck does not
        text = f"{machine.hottest} {machine.celsius:.0f} °C" + (f", {margin:.0f} °C left" if margin is not None else "")
        yield Finding(
            "temperature", "slow" if near else "ok", text, "into the shade, or into the water" if near else ""
        )


def _configuration(config: Config, path: Path | None) -> Finding:
    if path is None:
        return Finding(
            "configuration", "missing", "the default one", "rov config show > rover.toml, and set vehicle.max_depth"
        )
    return Finding("configuration", "ok", f"{path}, max_depth {config.vehicle.max_depth:g} m")


def _usable(what: str, name: str, look: Any, unset: str) -> Finding:
    if not name:
        return Finding(what, "slow", "none set", unset)
    try:
        look()
    except UserError as error:
        return Finding(what, "missing", str(error), "put it right, or name another in rover.toml")
    return Finding(what, "ok", name)


def _disk(config: Config) -> Finding:
    folder = Path(config.recording.folder).resolve()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        text = f"{folder}: {'cannot be written' if folder.is_dir() else 'is a file, not a folder'}"
        return Finding("disk", "missing", text, "put it right, or set recording.folder: nothing will be recorded")
    usage = shutil.disk_usage(folder)
    share = usage.free / usage.total
    text = f"{usage.free / 1e9:.0f} GB free ({share:.0%}) for dives"
    if share <= config.recording.disk_free:
        return Finding("disk", "missing", text, "copy dives away and delete them: nothing will be recorded")
    good = share > 2 * config.recording.disk_free
    return Finding("disk", "ok" if good else "slow", text, "" if good else "copy dives away: it will not last long")


def _clock() -> Finding:
    if time.time() < EPOCH:
        return Finding(
            "clock", "slow", time.strftime("%Y-%m-%d"), "set it, or dives get wrong names; nothing else needs it"
        )
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))  # modes 0: only asks
    if state == TIME_ERROR:
        return Finding(
            "clock", "slow", f"{time.strftime('%Y-%m-%d %H:%M')}, not synchronised", "look whether it is right"
        )
    return Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M"))


def _link(vehicle: VehicleState | None, config: Config, now: int) -> Finding:
    """What the way to the vehicle shows at `now`, ns; over a link to ArduSub it has a pilot of its own."""
    ardusub = config.link.kind == "ardusub"
    what, key = (f"ArduSub at {config.link.url}", "link.url") if ardusub else ("thruster board", "link.port")
    if vehicle is None or vehicle.attitude_t is None or vehicle.depth_t is None:
        return Finding("link", "missing", f"{what}: no attitude or depth", f"power, cable, {key}")
    silent = (now - min(vehicle.attitude_t, vehicle.depth_t)) / 1e9
    if silent > config.guard.state_stale_ms / 1e3:
        return Finding("link", "missing", f"{what}: no attitude or depth for {silent:.0f} s", f"power, cable, {key}")
    if ardusub and vehicle.armed:
        return Finding("link", "slow", f"{what}: armed by its pilot", "disarm it, or leave the deck to him")
    if vehicle.obstacle:
        return Finding("link", "missing", f"{what}: {vehicle.obstacle}", "systemd/ARDUSUB.md")
    hint = "rov ctl arm says what is missing to engage; systemd/ARDUSUB.md" if ardusub else ""
    return Finding("link", "ok", f"{what}: attitude and depth arrive", hint)


def _battery(vehicle: VehicleState, config: Config) -> Finding:
    if vehicle.battery_v is None:
        return Finding("battery", "slow", "unknown", "no low-battery alarm will come; look at it yourself")
    cell = vehicle.battery_v / config.vehicle.battery_cells
    text = f"{vehicle.battery_v:.1f} V, {cell:.2f} V a cell"
    if cell < config.guard.battery_warn_v:
        return Finding("battery", "missing", text, "charge it")
    full = cell > 3.9  # about three quarters of a lithium-ion cell
    return Finding("battery", "ok" if full else "slow", text, "" if full else "not full: a short dive")


def _hull(vehicle: VehicleState, config: Config) -> Finding:
    kpa, celsius = vehicle.hull_pressure_kpa, vehicle.hull_temperature_c
    if kpa is None and celsius is None:
        return Finding("hull", "slow", "no pressure or temperature inside", "")
    text = ", ".join(f"{value:.1f} {unit}" for value, unit in ((kpa, "kPa"), (celsius, "°C")) if value is not None)
    bad = (kpa or 0) > config.guard.hull_kpa or (celsius or 0) > config.guard.hull_c
    return Finding("hull", "missing" if bad else "ok", text, "too much: vent and cool it" if bad else "")
