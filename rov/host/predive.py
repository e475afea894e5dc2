"""`rov doctor --dive`: the check list before a dive, from the machine's files and the running daemon's messages."""

from __future__ import annotations

import ctypes
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from rov.bus import listen
from rov.config.schema import Config
from rov.errors import UserError
from rov.host.doctor import Finding
from rov.messages import Frame, Health, HostStatus, Message, PilotStatus, VehicleState
from rov.motion.thrusters import load as load_curve
from rov.resources import find_resource
from rov.vision.rectify import Rectifier

M = TypeVar("M", bound=Message)

LISTEN_S = 2.5
"""Long enough for two messages of the topics at 1 Hz."""
TOPICS = ["vehicle", "pilot", "frame", "health", "host"]
CAMERA_SHARE = 0.8
"""Least camera rate, as a share of `perception.rate_hz`; below it the daemon leaves mode `policy`."""
SURFACE_M = 0.5
"""If a vehicle on deck shows more depth than this, link.surface_pa is wrong."""
TIME_ERROR = 5
"""What adjtime(2) returns while the clock is not synchronised."""
DECK_MARGIN_C = 15.0
"""Least margin on deck until the kernel throttles (judgement). Water cools a closed hull, the sun heats it."""
EPOCH = 1_767_225_600.0
"""1 January 2026, UTC: a clock that shows an earlier time was never set."""


def check(config: Config, path: Path | None) -> Iterator[Finding]:
    """Check everything, in the order of the manual (`systemd/README.md`, section 4)."""
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
    received = collect(config)
    if not received:
        yield Finding("daemon", "missing", f"no messages at {config.bus.public}", "start it, then run this again")
        return
    yield Finding("daemon", "ok", f"publishes at {config.bus.public}")
    yield from judge(received, config)


def collect(config: Config, seconds: float = LISTEN_S) -> dict[str, list[Message]]:
    """The daemon's messages of `seconds`, by topic; empty when it does not run."""
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


def judge(received: dict[str, list[Message]], config: Config) -> Iterator[Finding]:
    """One finding per line of the list, from the daemon's messages by topic."""
    vehicle, pilot = _latest(received, "vehicle", VehicleState), _latest(received, "pilot", PilotStatus)
    link = _link(vehicle, config, now=max(each.t for messages in received.values() for each in messages))
    yield link
    if vehicle is not None and link.state != "missing":  # with the link gone its last values mean nothing
        if vehicle.depth_t is not None:
            yield _depth(vehicle)
        yield _battery(vehicle, config)
        yield _leak(vehicle)
        yield _hull(vehicle, config)
    if pilot is None:
        yield Finding("pilot", "missing", "no messages from it", "journalctl -u rov says why")
    else:
        yield _pilot(pilot)
        yield _operator(pilot)
    health = {each.process: each for each in received.get("health", []) if isinstance(each, Health)}
    frames = any(isinstance(each, Frame) for each in received.get("frame", []))
    yield _camera(health, frames, config)
    yield _process("perception", health.get("perceptiond"), frames)
    yield _process("recording", health.get("recorderd"), frames)
    computer = _latest(received, "host", HostStatus)
    if computer is not None and computer.celsius is not None:
        yield _temperature(computer, computer.celsius)


def _latest(received: dict[str, list[Message]], topic: str, kind: type[M]) -> M | None:
    """The last message of this type on a topic."""
    return next((each for each in reversed(received.get(topic, [])) if isinstance(each, kind)), None)


def _configuration(config: Config, path: Path | None) -> Finding:
    if path is None:
        return Finding(
            "configuration", "missing", "the default one", "rov config show > rover.toml, and set vehicle.max_depth"
        )
    return Finding("configuration", "ok", f"{path}, max_depth {config.vehicle.max_depth:g} m")


def _usable(what: str, name: str, load: Callable[[], object], unset: str) -> Finding:
    """Whether a file named in the configuration loads; `unset` is what to do when none is named."""
    if not name:
        return Finding(what, "slow", "none set", unset)
    try:
        load()
    except UserError as error:
        return Finding(what, "missing", str(error), "correct it, or name another in rover.toml")
    return Finding(what, "ok", name)


def _disk(config: Config) -> Finding:
    folder = Path(config.recording.folder).resolve()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        text = f"{folder}: {'cannot be written' if folder.is_dir() else 'is a file, not a folder'}"
        return Finding("disk", "missing", text, "correct it, or set recording.folder: nothing will be recorded")
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
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))  # modes = 0: only reads
    if state == TIME_ERROR:
        return Finding(
            "clock", "slow", f"{time.strftime('%Y-%m-%d %H:%M')}, not synchronised", "check that it is right"
        )
    return Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M"))


def _link(vehicle: VehicleState | None, config: Config, now: int) -> Finding:
    """Whether attitude and depth arrive and are fresh at `now` (ns). ArduSub may be armed by its own pilot."""
    ardusub = config.link.kind == "ardusub"
    what, key = (f"ArduSub at {config.link.url}", "link.url") if ardusub else ("thruster board", "link.port")
    if vehicle is None or vehicle.attitude_t is None or vehicle.depth_t is None:
        return Finding("link", "missing", f"{what}: no attitude or depth", f"power, cable, {key}")
    silent = (now - min(vehicle.attitude_t, vehicle.depth_t)) / 1e9
    if silent > config.guard.state_stale_ms / 1e3:
        return Finding("link", "missing", f"{what}: no attitude or depth for {silent:.0f} s", f"power, cable, {key}")
    if ardusub and vehicle.armed:
        return Finding("link", "slow", f"{what}: armed by its pilot", "disarm it before anybody touches a propeller")
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


def _depth(vehicle: VehicleState) -> Finding:
    on_deck = abs(vehicle.depth) < SURFACE_M
    hint = "" if on_deck else "on deck this should be 0: set link.surface_pa"
    return Finding("depth", "ok" if on_deck else "slow", f"{vehicle.depth:.2f} m", hint)


def _leak(vehicle: VehicleState) -> Finding:
    if vehicle.leak:
        return Finding("leak sensor", "missing", "LEAK", "do not dive: open it and dry it")
    return Finding("leak sensor", "ok", "dry", "wet its probe once a season: it must alarm")


def _pilot(pilot: PilotStatus) -> Finding:
    if pilot.armed:
        return Finding("pilot", "missing", "ARMED", "rov ctl stop, before anybody touches a propeller")
    return Finding("pilot", "ok", "disarmed")


def _operator(pilot: PilotStatus) -> Finding:
    if pilot.operator:
        return Finding("operator", "ok", pilot.operator)
    hint = "rov drive: without an operator's heartbeat nothing is armed"
    return Finding("operator", "slow", "nobody is at the controls", hint)


def _camera(health: dict[str, Health], frames: bool, config: Config) -> Finding:
    """Whether new pictures arrive at nearly the rate that perception wants."""
    rate = health["camerad"].rate_hz if "camerad" in health else 0.0
    needed = CAMERA_SHARE * config.perception.rate_hz
    found = f"{rate:.1f} pictures/s" if frames else "no pictures"
    if frames and rate >= needed:
        return Finding("camera", "ok", found)
    hint = f"needs {needed:.0f} new pictures a second (a frozen one does not count): cable, camera.source"
    return Finding("camera", "missing", found, hint)


def _process(what: str, health: Health | None, frames: bool) -> Finding:
    """Whether a process that works on frames is alive, and works where there are frames."""
    if health is not None and (health.rate_hz > 0 or not frames):
        return Finding(what, "ok", "runs")
    return Finding(what, "missing", "does not run", "rov listen events says why")


def _temperature(computer: HostStatus, celsius: float) -> Finding:
    margin = computer.margin_c
    near = computer.throttled or (margin is not None and margin < DECK_MARGIN_C)
    found = f"{computer.hottest} {celsius:.0f} °C" + (f", {margin:.0f} °C left" if margin is not None else "")
    hint = "into the shade, or into the water" if near else ""
    return Finding("temperature", "slow" if near else "ok", found, hint)
