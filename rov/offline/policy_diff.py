"""Repeats the policy from its recorded inputs, and its encoder and displacement from the recorded pictures."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch

from rov.messages import PolicyInput, Setpoint
from rov.perception import Perception
from rov.steering.displacement import Displacement
from rov.steering.policy import field_of_view, policy_setpoint
from rov.steering.policy_model import PolicyModel, PolicySight, Sight, unpack
from rov.types import Image

PICTURES = 100
"""Pictures kept until their input comes."""
RANGE_TOLERANCE = 0.1
"""Mean difference of the inverse range over the map, 1/m."""
SHIFT_TOLERANCE = 0.01
"""Of a displacement in which both are confident, as a share of the picture's width."""
CONFIDENT = 0.5
SIGHT_TOLERANCE = f"inverse range {RANGE_TOLERANCE:g}/m, displacement {SHIFT_TOLERANCE:g}"


class PolicyDiff:
    """The policy on recorded inputs. Its memory is known from the first reset in the dive on."""

    def __init__(self, model: PolicyModel):
        self.model, self.sight = model, PolicySight(model.encoder)
        self.memory: torch.Tensor | None = None
        self.pictures: OrderedDict[int, Image] = OrderedDict()
        self.key_known = True
        """Whether the picture of the key frame is in the dive."""

    def add_picture(self, frame_t: int, image: Image) -> None:
        """Take a rectified picture (H, W, 3) BGR of the dive."""
        self.pictures[frame_t] = image
        if len(self.pictures) > PICTURES:
            self.pictures.popitem(last=False)

    def answer(self, given: PolicyInput) -> Setpoint | None:
        """The setpoint for a recorded input; None before the first reset."""
        if given.reset:
            self.memory = self.model.network.initial_memory(1)
        if self.memory is None:
            return None
        axes, _, self.memory = self.model.answer(given, self.memory)
        surge, sway, heave, yaw = axes[0].tolist()
        return policy_setpoint(given, (surge, sway, heave, yaw))

    def sight_differs(self, given: PolicyInput, perception: Perception) -> tuple[float, str] | None:
        """(largest difference of the inverse range, what exceeds the tolerance or "") of what is seen in the recorded
        picture now; None where there is no picture."""
        image = self.pictures.pop(given.frame_t, None)
        if given.reset:
            self.sight.key, self.key_known = None, True
        if image is None:
            self.sight.last = None
            self.key_known &= not given.key
            return None
        known = self.sight.last is not None
        view = field_of_view(image.shape[1], image.shape[0], perception.config.camera.hfov_deg, perception.lens)
        sight = self.sight.look(image, given.attitude, view, key=given.key)
        return _sight_differs(sight, given, moved_known=known, key_known=self.key_known)


def _sight_differs(sight: Sight, given: PolicyInput, *, moved_known: bool, key_known: bool) -> tuple[float, str]:
    then = unpack(given.maps)[0, 0].numpy()
    worst = float(np.abs(sight.inverse_range[0].numpy() - then).mean())
    if worst > RANGE_TOLERANCE:
        return worst, f"the inverse range differs by {worst:.2f}/m"
    for name, now, before, known in (
        ("moved", sight.moved, Displacement(*given.moved), moved_known),
        ("keyed", sight.keyed, Displacement(*given.keyed), key_known),
    ):
        far = max(abs(now.dx - before.dx), abs(now.dy - before.dy))
        if known and min(now.confidence, before.confidence) > CONFIDENT and far > SHIFT_TOLERANCE:
            return worst, f"{name} differs by {far:.3f} of the width"
    return worst, ""
