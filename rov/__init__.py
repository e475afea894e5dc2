"""rov: the perception and autopilot daemon of an underwater rover, and what programs use of it.

    from rov import Client, Mode, Observation      # command a vehicle, and receive what it publishes
    from rov import Dive, Detections               # read and write recorded dives
    from rov import Detector                       # recognise objects in pictures (needs torch)
    from rov import Config                         # read and check a rover.toml

Every name is imported when it is first used, so that a client does not wait for torch.
"""

from typing import TYPE_CHECKING

from rov.version import __version__

if TYPE_CHECKING:
    from rov.bus.async_client import AsyncClient
    from rov.bus.client import Client
    from rov.bus.endpoints import Endpoints
    from rov.bus.session import NoAnswer, Refused
    from rov.config.schema import Config
    from rov.dives.dive import Dive, DiveWriter
    from rov.errors import UserError
    from rov.media.files import TimedFrame
    from rov.messages import (
        TOPICS,
        ActiveSettings,
        Arm,
        Clock,
        Command,
        ConfigEdit,
        ConsumedInput,
        Detection,
        Detections,
        Disarm,
        Event,
        Frame,
        FromFrame,
        Health,
        Heartbeat,
        HostStatus,
        Message,
        Mode,
        Observation,
        PilotStatus,
        PolicyInput,
        Reply,
        SetMode,
        Setpoint,
        SetTarget,
        SetTask,
        Setting,
        Sticks,
        Stop,
        TakeOver,
        ThrusterCommand,
        Track,
        Tracks,
        VehicleState,
        Wrench,
    )
    from rov.vision.detector import Detector

__all__ = [
    "TOPICS",
    "ActiveSettings",
    "Arm",
    "AsyncClient",
    "Client",
    "Clock",
    "Command",
    "Config",
    "ConfigEdit",
    "ConsumedInput",
    "Detection",
    "Detections",
    "Detector",
    "Disarm",
    "Dive",
    "DiveWriter",
    "Endpoints",
    "Event",
    "Frame",
    "FromFrame",
    "Health",
    "Heartbeat",
    "HostStatus",
    "Message",
    "Mode",
    "NoAnswer",
    "Observation",
    "PilotStatus",
    "PolicyInput",
    "Refused",
    "Reply",
    "SetMode",
    "SetTarget",
    "SetTask",
    "Setpoint",
    "Setting",
    "Sticks",
    "Stop",
    "TakeOver",
    "ThrusterCommand",
    "TimedFrame",
    "Track",
    "Tracks",
    "UserError",
    "VehicleState",
    "Wrench",
    "__version__",
]

_HOMES = {
    "AsyncClient": "rov.bus.async_client",
    "Client": "rov.bus.client",
    "Endpoints": "rov.bus.endpoints",
    "NoAnswer": "rov.bus.session",
    "Refused": "rov.bus.session",
    "Config": "rov.config.schema",
    "Dive": "rov.dives.dive",
    "DiveWriter": "rov.dives.dive",
    "UserError": "rov.errors",
    "TimedFrame": "rov.media.files",
    "Detector": "rov.vision.detector",
}
"""Where a name is defined; all others in `rov.messages`."""


def __getattr__(name: str) -> object:
    """Import a name of `__all__` at its first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'rov' has no attribute {name!r}")
    from importlib import import_module

    from rov.extras import explained

    try:
        value: object = getattr(import_module(_HOMES.get(name, "rov.messages")), name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(explained(error) or str(error), name=error.name) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
