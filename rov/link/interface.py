"""The interface of a link to the vehicle, as the commander uses it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from rov.messages import Event, Mode, VehicleState


class Link(Protocol):
    """A link to the vehicle. Each tick: `receive`, `poll`, `send`; nothing in it waits. Times are monotonic ns."""

    surface_pa: float
    density: float
    """Air pressure at the surface in Pa and density of the water in kg/m³: they turn pressures into depths."""
    mode: Mode
    """The pilot's mode, set by the commander: an autopilot needs a matching mode of its own."""

    @property
    def state(self) -> VehicleState | None:
        """The vehicle's state as it reports it; None until something was received."""

    @property
    def live(self) -> bool:
        """Are values sent to the thrusters?"""

    @property
    def testing(self) -> bool:
        """Is arming in progress?"""

    def receive(self) -> None:
        """Read the port for the next `poll`. Read the clock for that after this call: data that arrives in between
        would seem early, and all that follows late."""

    def poll(self, t: int) -> Iterable[Event]:
        """Process what was received; returns the events."""

    def arm(self, t: int) -> str:
        """Begin to arm; returns the reason for a refusal, or ""."""

    def disarm(self, t: int) -> None:
        """Neutral and disarmed, at once."""

    def send(self, values: Sequence[float], armed: bool, t: int) -> None:
        """Send this tick's outputs, −1..1."""

    def close(self, t: int) -> None:
        """Neutral and disarmed as far as that is still possible; then close the port."""
