"""MAVLink links to the vehicle: a bare thruster board, or an ArduSub autopilot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rov.config.schema import Config

if TYPE_CHECKING:
    from rov.link.interface import Link


def open_link(config: Config, motors: int) -> Link:
    """The link that the configuration chooses, to a vehicle with `motors` motors; imports only its kind. Raises
    UserError for an invalid `link.url`."""
    link, frame = config.link, config.vehicle.frame
    if link.kind == "ardusub":
        from rov.link.ardusub.link import ArdusubLink

        return ArdusubLink(link.url, frame, surface_pa=link.surface_pa, density=link.density)
    from rov.link.thruster_board import ThrusterBoardLink

    return ThrusterBoardLink(link.port, link.baud, motors, surface_pa=link.surface_pa, density=link.density)
