"""The policy's networks, loaded with their cards, and what they make of one picture and of one input."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rov.config.schema import SteeringConfig
from rov.messages import PolicyInput
from rov.steering.displacement import Displacement, FieldOfView, Reference, displacement, grey_picture, reference
from rov.steering.encoder import Encoder, small_picture
from rov.steering.policy_card import find_files, load_cards
from rov.steering.policy_input import COLUMNS, FEATURES, MAPS, ROWS
from rov.steering.policy_network import PolicyNetwork
from rov.types import Image
from rov.vision.model_card import ModelError, unreadable

SHAPE = (len(MAPS), ROWS, COLUMNS)
Angles = tuple[float, float, float]


class PolicyModel:
    """Both networks and their cards. Has no memory of its own, so that live steering and a comparison can share it."""

    def __init__(self, policy: Path, encoder: Path):
        """Raises ModelError with what to do."""
        self.cards = load_cards(policy, encoder)
        self.network, self.encoder = PolicyNetwork().eval(), Encoder().eval()
        _load(self.network, policy)
        _load(self.encoder, encoder)

    @torch.inference_mode()
    def answer(self, given: PolicyInput, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The setpoint (1, 4), its log variance (1, 4) and the next memory, from nothing but the message. Raises
        ModelError when the message is of another version."""
        if len(given.features) != FEATURES or len(given.maps) != 2 * int(np.prod(SHAPE)):
            raise ModelError(f"an input of the policy's version {given.version} does not fit this policy")
        if given.reset:
            memory = self.network.initial_memory(1)
        features = torch.tensor([given.features], dtype=torch.float32)
        found: tuple[Tensor, Tensor, Tensor] = self.network(unpack(given.maps), features, memory)
        return found


def open_model(steering: SteeringConfig) -> PolicyModel:
    """The configured policy. Raises UserError."""
    return PolicyModel(*find_files(steering))


def _load(network: nn.Module, weights: Path) -> None:
    try:
        network.load_state_dict(load_file(weights))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(weights, error) from None
    except RuntimeError as error:
        raise ModelError(f"{weights}: does not fit this network: {str(error).splitlines()[-1].strip()}") from None
    if not all(bool(torch.isfinite(each).all()) for each in network.state_dict().values()):
        raise ModelError(f"{weights}: holds numbers that are not finite; fetch it again")


def pack(maps: Tensor) -> bytes:
    """Maps (1, 4, 12, 16) as a message carries them."""
    return maps[0].numpy().astype("<f2").tobytes()


def unpack(data: bytes) -> Tensor:
    """Maps (1, 4, 12, 16) of a message."""
    return torch.from_numpy(np.frombuffer(data, "<f2").astype(np.float32).reshape(1, *SHAPE))


class Sight(NamedTuple):
    """What is seen in one picture."""

    picture: Tensor
    """(1, 3, 48, 64), RGB in 0..1."""
    inverse_range: Tensor
    """(1, 12, 16) 1/m, and so on."""
    log_variance: Tensor
    pipeline: Tensor
    """Probability."""
    unlike: float
    moved: Displacement
    keyed: Displacement


class PolicySight:
    """The encoder and the displacement, from picture to picture."""

    def __init__(self, encoder: Encoder):
        self.encoder = encoder
        self.last: Reference | None = None
        self.key: Reference | None = None
        self.keyed = Displacement()
        """The last answer about the key frame: the next search begins there."""

    def forget(self) -> None:
        """Begin again, without a last picture or a key frame."""
        self.last = self.key = None

    @torch.inference_mode()
    def look(self, image: Image, attitude: Angles, view: FieldOfView, *, key: bool) -> Sight:
        """Look at a picture (H, W, 3) BGR taken at this attitude (rad); `key`: it is the new key frame."""
        picture = small_picture(image)
        encoded = self.encoder(picture)
        now = reference(grey_picture(image), attitude)
        moved = displacement(self.last, now.grey, attitude, view) if self.last else Displacement()
        if key:
            self.key, self.keyed = now, Displacement()
        keyed = displacement(self.key, now.grey, attitude, view, self.keyed) if self.key else Displacement()
        if keyed.confidence > 0:
            self.keyed = keyed
        self.last = now
        return Sight(
            picture,
            encoded.inverse_range[:, 0],
            encoded.log_variance[:, 0],
            torch.sigmoid(encoded.pipeline[:, 0]),
            float(self.encoder.unlike(encoded.looks)),
            moved,
            keyed,
        )
