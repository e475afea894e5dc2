"""`rov doctor`: what this machine has, what it lacks, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from rov.concurrency import cores, cpu_has_bfloat16
from rov.config.schema import Config
from rov.errors import UserError
from rov.extras import DISTRIBUTION
from rov.host import jetson
from rov.host.ownership import ADVICE, strangers
from rov.resources import PACKAGE, find_resource
from rov.version import __version__

JETPACK6 = 36
"""The L4T release of JetPack 6."""


class Finding(NamedTuple):
    """One line of the list: `found` is the reading, `do` the remedy, empty when nothing needs doing."""

    what: str
    state: Literal["ok", "missing", "slow"]
    found: str
    do: str = ""
    needed: bool = True
    """False: only a live vehicle needs it, replay does not."""


def examine(config: Config, root: Path = jetson.ROOT) -> Iterator[Finding]:
    """Check everything, cheap checks first. `root` is where /sys and /etc are found; for tests."""
    for check in (_python, _package, _processor, _memory, _disk, _shared_memory, _realtime, _torch, _opencv, _bfloat16):
        yield check()
    yield from _jetson(root)
    yield from _heat(root)
    yield _file("weights", lambda: find_resource(config.perception.weights))
    yield _file("thruster curve", lambda: find_resource(config.vehicle.thrusters))
    yield _cameras()
    yield _serial()


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.machine()}"
    return Finding("python", "ok", found)


def _package() -> Finding:
    if found := strangers():
        return Finding("package", "missing", f"{', '.join(found)} has a package rov, too", ADVICE)
    return Finding("package", "ok", f"{DISTRIBUTION} {__version__} in {PACKAGE}")


def _processor() -> Finding:
    if (number := cores()) < 2:
        return Finding(
            "processor", "slow", "1 core", "give the process two cores: here the pilot and the network share one"
        )
    return Finding("processor", "ok", f"{number} cores")


def _memory() -> Finding:
    if not hasattr(os, "sysconf"):
        return Finding("memory", "ok", "not known on this system", "", False)
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Finding(
        "memory", "ok" if gib >= 3.5 else "slow", f"{gib:.1f} GiB", "" if gib >= 3.5 else "use 4 GiB or more"
    )


def _disk() -> Finding:
    usage = shutil.disk_usage(Path.cwd())
    free = usage.free / usage.total
    text = f"{usage.free / 2**30:.0f} GiB free ({free:.0%}) in {Path.cwd()}"
    return (
        Finding("disk", "ok", text)
        if free > 0.15
        else Finding("disk", "slow", text, "free some: recording stops below 7 %")
    )


def _shared_memory() -> Finding:
    if os.access("/dev/shm", os.W_OK):
        return Finding("shared memory", "ok", "/dev/shm")
    return Finding(
        "shared memory",
        "missing",
        "/dev/shm cannot be written",
        "mount a tmpfs there: live frames pass through it",
        False,
    )


def _realtime() -> Finding:
    try:
        policy = os.sched_getscheduler(0)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, policy, os.sched_param(0))
    except (OSError, AttributeError):  # not allowed, or not Linux
        return Finding(
            "real-time scheduling",
            "slow",
            "not allowed",
            "set `ulimit -r 50` (or LimitRTPRIO=50) for a steady control loop",
        )
    return Finding("real-time scheduling", "ok", "SCHED_FIFO")


def _torch() -> Finding:
    try:
        import torch
    except ImportError as error:
        do = f"pip install '{DISTRIBUTION}[vision]' (on a Jetson: NVIDIA's wheel for your JetPack)"
        return Finding("torch", "missing", f"{error}; replay, detect and run need it", do)
    if torch.cuda.is_available():
        return Finding("torch", "ok", f"{torch.__version__} with {torch.cuda.get_device_name(0)}")
    jetson = Path("/etc/nv_tegra_release").exists()
    do = "install NVIDIA's torch wheel for your JetPack" if jetson else "fine for replay; a GPU is faster"
    return Finding("torch", "slow", f"{torch.__version__} on the processor, no CUDA", do)


def _jetson(root: Path) -> Iterator[Finding]:
    """What only a Jetson has: its release, power mode, camera daemon and power meters."""
    release = jetson.release(root)
    if not release:
        return
    old = int(release[1:].split(".")[0]) < JETPACK6
    do = "flash JetPack 6: torch 2.8 has no wheel for an older one" if old else ""
    yield Finding("jetson", "slow" if old else "ok", release, do, False)
    mode = jetson.power_mode(root)
    full = mode.upper().startswith("MAXN") or mode == "mode 0"
    do = "" if full else "sudo nvpmodel -m 0, and sudo jetson_clocks, where battery and cooling allow"
    yield Finding("power mode", "ok" if full else "slow", mode or "unknown", do, False)
    argus = (root / "tmp/argus_socket").exists()
    do = "" if argus else "sudo systemctl start nvargus-daemon; only CSI cameras need it"
    yield Finding("nvargus", "ok" if argus else "missing", "running" if argus else "no socket", do, False)
    power = ", ".join(f"{rail.name} {rail.watts:.1f} W" for rail in jetson.rails(root))
    yield Finding("power", "ok" if power else "slow", power or "no INA3221 found", "", False)


def _heat(root: Path) -> Iterator[Finding]:
    """Temperatures and throttling, of any machine that reports them."""
    zones = jetson.zones(root)
    if zones:
        hottest = max(zones, key=lambda zone: zone.celsius)
        near = [zone for zone in zones if zone.margin_c is not None and zone.margin_c <= jetson.MARGIN_C]
        found = f"{hottest.name} {hottest.celsius:.0f} °C, the hottest of {len(zones)}"
        do = f"cool it: {near[0].name} is {near[0].margin_c:.0f} °C below where it slows down" if near else ""
        yield Finding("temperature", "slow" if near else "ok", found, do, False)
    if jetson.throttled(root):
        do = "cool it, or change the power mode"
        yield Finding("speed", "slow", "the processors are kept below full speed", do, False)


def _opencv() -> Finding:
    import cv2

    if not any("FFMPEG" in line and "YES" in line for line in cv2.getBuildInformation().splitlines()):
        return Finding("opencv", "missing", f"{cv2.__version__} without FFmpeg", "pip install opencv-python-headless")
    if "opencv-python" in {dist.metadata["Name"] for dist in metadata.distributions()}:
        return Finding("opencv", "slow", "opencv-python beside the headless one", "pip uninstall opencv-python")
    return Finding("opencv", "ok", cv2.__version__)


def _bfloat16() -> Finding:
    if cpu_has_bfloat16():
        return Finding("bfloat16", "ok", "the processor has it: the network runs about twice as fast")
    return Finding("bfloat16", "slow", "the processor lacks it", "nothing to do; float32 is used")


def _file(what: str, find: Callable[[], Path]) -> Finding:
    try:
        return Finding(what, "ok", str(find()))
    except UserError as error:
        return Finding(what, "missing", str(error), "restore it from the repository, or name another in rover.toml")


def _cameras() -> Finding:
    found = sorted(str(path) for path in Path("/dev").glob("video*"))
    if found:
        return Finding("cameras", "ok", " ".join(found))
    return Finding(
        "cameras",
        "missing",
        "no /dev/video*",
        "none is needed for replay; live: plug one in, or use a network stream",
        False,
    )


def _serial() -> Finding:
    found = sorted(str(path) for pattern in ("ttyACM*", "ttyUSB*", "ttyTHS*") for path in Path("/dev").glob(pattern))
    if not found:
        return Finding(
            "serial ports", "missing", "none", "none is needed for replay; live: connect the thruster board", False
        )
    closed = [path for path in found if not os.access(path, os.R_OK | os.W_OK)]
    if closed:
        return Finding(
            "serial ports", "missing", f"no access to {' '.join(closed)}", "add yourself to the group `dialout`", False
        )
    return Finding("serial ports", "ok", " ".join(found))
