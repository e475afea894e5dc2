"""The way to the vehicle: a thruster board, or an autopilot that has its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rov.config import Config

if TYPE_CHECKING:
    from rov.motion.helm import Link


def open_link(config: Config) -> Link:
    """The link that a configuration chooses; only its kind is loaded. Raises UserError for a `link.url` that cannot
    be."""
    link, frame = config.link, config.vehicle.frame
    if link.kind == "ardusub":
        from rov.link.ardusub import ArdusubLink

        return ArdusubLink(link.url, frame, surface_pa=link.surface_pa, density=link.density)
    from rov.link.board import ThrusterBoardLink
    from rov.motion.allocation import mixer

    return ThrusterBoardLink(link.port, link.baud, len(mixer(frame)), surface_pa=link.surface_pa, density=link.density)
