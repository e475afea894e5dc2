"""What the pilot needs of a link to the vehicle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from rov.messages import (
    Event,
    Mode,
    VehicleState,
)


class Link(Protocol):
    """The way to the vehicle. Each tick: `receive`, `poll`, `send`; nothing in it waits. Times are monotonic ns."""

    surface_pa: float
    density: float
    """Of the water in kg/m³; with the pressure at the surface in Pa it makes depths of pressures."""
    mode: Mode
    """What the pilot does, as the commander says it: an autopilot needs a mode of its own that fits."""

    @property
    def state(self) -> VehicleState | None:
        """What the vehicle says of itself; None until it is heard."""

    @property
    def live(self) -> bool:
        """May values leave?"""

    @property
    def testing(self) -> bool:
        """Is an arming under way?"""

    def receive(self) -> None:
        """Take from the port what is there, for the next `poll`, whose time is read after this: or what came between
        the two would look early, and all that follows late."""

    def poll(self, t: int) -> Iterable[Event]:
        """Take in what has arrived; what happened."""

    def arm(self, t: int) -> str:
        """Begin to arm; why not, or nothing."""

    def disarm(self, t: int) -> None:
        """Neutral and disarmed, at once."""

    def send(self, values: Sequence[float], armed: bool, t: int) -> None:
        """The tick's outputs, −1..1."""

    def close(self, t: int) -> None:
        """Neutral and disarmed as far as that is still possible, and nothing more."""
