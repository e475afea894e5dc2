"""The way to the vehicle: a thruster board, or an autopilot that has its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rov.config.schema import Config

if TYPE_CHECKING:
    from rov.link.interface import Link


def open_link(config: Config, motors: int) -> Link:
    """The link that a configuration chooses, to a vehicle with so many motors; only its kind is loaded. Raises
    UserError for a `link.url` that cannot be."""
    link, frame = config.link, config.vehicle.frame
    if link.kind == "ardusub":
        from rov.link.ardusub.link import ArdusubLink

        return ArdusubLink(link.url, frame, surface_pa=link.surface_pa, density=link.density)
    from rov.link.thruster_board import ThrusterBoardLink

    return ThrusterBoardLink(link.port, link.baud, motors, surface_pa=link.surface_pa, density=link.density)
