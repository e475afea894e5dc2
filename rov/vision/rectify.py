"""Prepares pictures for the network: balances colours and removes lens distortion, where configured.

The network sees the rectified picture; its boxes are mapped back to pixels of the original one.
"""

from __future__ import annotations

from pathlib import Path

from rov.config import schema
from rov.messages import Detection, VehicleState
from rov.optics import colour, lens
from rov.resources import find_resource
from rov.types import Image


def open_lens(camera: schema.CameraConfig) -> lens.Lens | None:
    """The lens of `camera.calibration`, or None. Raises UserError."""
    return lens.Lens(lens.load(find_resource(camera.calibration, Path()))) if camera.calibration else None


class Rectifier:
    """Applies the camera's calibrations; without any, pictures pass unchanged."""

    def __init__(self, camera: schema.CameraConfig):
        """Raises UserError for a calibration that cannot be used."""
        self.lens = open_lens(camera)
        self.balance = colour.load(find_resource(camera.colour, Path())) if camera.colour else None
        self.depth: float | None = None

    def receive_state(self, vehicle: VehicleState) -> None:
        """Set the depth used for colour correction."""
        self.depth = vehicle.depth if vehicle.depth_t is not None else None

    def rectify(self, image: Image) -> Image:
        """The picture for the network. Raises UserError when the calibration is of another picture size."""
        if self.balance:
            image = self.balance.apply(image, self.depth)
        return self.lens.rectify(image) if self.lens else image

    def unrectify(self, found: tuple[Detection, ...]) -> tuple[Detection, ...]:
        """Detections in the rectified picture, with boxes in pixels of the original one."""
        return self.lens.unrectify(found) if self.lens else found
