"""The rows of a table: who steers, and what it sees."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rov.errors import UserError
from rov.steering.encoder import Encoder
from rov.steering.policy_input import LOG_VARIANCE, Sources, features, log_odds
from rov.steering.policy_network import PolicyNetwork
from rov.vision.model_card import ModelError, unreadable
from sim.tasks.controllers import Controller, servo, zero
from sim.tasks.expert import expert
from sim.tasks.noise import Noise, RangeNoise
from sim.tasks.noise import load as load_noise
from sim.tasks.pid import pid

ROWS = {
    "expert": "the teacher: acts on the truth of what is or was lately in the picture",
    "policy_true": "the policy, told ranges, tracks and displacements without noise",
    "policy_noise": "the policy, on the noise models",
    "policy_frames": "the policy, on rendered pictures through encoder, displacement, detector and tracker",
    "policy_live": "the policy, in `rov run` in real time: a live camera, a thruster board or an autopilot",
    "policy_blinded": "the policy, to which every picture shows nothing",
    "policy_memoryless": "the policy, whose memory begins anew with every picture",
    "pid": "the tuned PID, on the policy's own observation, at one cruise speed and a fixed heading",
    "servo": "the daemon's visual servo (follow)",
    "zero": "nobody: the inner loops hold depth and heading",
}
"""Names and what they are."""
RENDERED = ("policy_frames", "policy_live")
"""Rows that see the renderer's pictures."""
BLIND = ("expert", "zero")
"""Rows that need no picture."""
PERFECT = 1e-4


def check(rows: tuple[str, ...], task: str) -> None:
    """Raises UserError for rows that do not exist or are not defined for the task."""
    for row in rows:
        if row not in ROWS:
            raise UserError(f"--rows {row}: is not known; there are {', '.join(ROWS)}")
    if "servo" in rows and task != "follow":
        raise UserError(f"--rows servo: the visual servo follows a target; {task} has none")
    if len(set(rows)) < len(rows):
        raise UserError("--rows: name each row once")


def needs_policy(rows: tuple[str, ...]) -> bool:
    return any(row.startswith("policy") for row in rows)


def controller(row: str, task: str, policy: PolicyNetwork | None) -> Controller:
    """Who steers in a row."""
    if row == "expert":
        return expert(task)
    if row == "pid":
        return pid(task)
    if row in ("servo", "zero"):
        return {"servo": servo, "zero": zero}[row]
    assert policy is not None
    return Student(policy, blind=row == "policy_blinded", forgets=row == "policy_memoryless")


def open_policy(weights: Path) -> PolicyNetwork:
    """The policy's network. Raises ModelError."""
    network = PolicyNetwork()
    _load(network, weights)
    return network.eval()


def open_encoder(weights: Path) -> Encoder:
    """The encoder's network. Raises ModelError."""
    network = Encoder()
    _load(network, weights)
    return network.eval()


def _load(network: nn.Module, weights: Path) -> None:
    try:
        network.load_state_dict(load_file(weights))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(weights, error) from None
    except RuntimeError as error:
        raise ModelError(f"{weights}: does not fit this network: {str(error).splitlines()[-1].strip()}") from None


class Student:
    """The policy as a controller. `log_variance` (N,): how sure it was last, the mean over the axes."""

    def __init__(self, network: PolicyNetwork, *, blind: bool = False, forgets: bool = False):
        self.network, self.blind, self.forgets = network, blind, forgets
        self.log_variance = torch.zeros(0)

    @torch.inference_mode()
    def __call__(self, sources: Sources, maps: Tensor, truth: Any, memory: Any) -> tuple[Tensor, Tensor]:
        if self.blind:
            sources, maps = blinded(sources, maps)
        if memory is None:
            memory = self.network.initial_memory(len(maps))
            sources = sources._replace(previous=torch.full_like(sources.previous, math.nan))
        if self.forgets:
            memory = torch.zeros_like(memory)
        setpoint, spread, memory = self.network(maps, features(sources), memory)
        self.log_variance = spread.mean(1)
        return setpoint, memory


def blinded(sources: Sources, maps: Tensor) -> tuple[Sources, Tensor]:
    """What a picture that shows nothing would give: no tracks, no displacement, ranges that may be anything."""
    noise = load_noise().range
    nothing = torch.zeros_like(maps)
    nothing[:, 0] = noise.unseen
    nothing[:, 1] = max(2 * math.log(noise.unseen_error), LOG_VARIANCE[0])
    nothing[:, 3] = log_odds(torch.sigmoid(torch.tensor(noise.pipeline_off)))
    dark = sources._replace(
        tracks=torch.zeros_like(sources.tracks),
        moved=torch.zeros_like(sources.moved),
        keyed=torch.zeros_like(sources.keyed),
    )
    return dark, nothing


def noiseless(noise: Noise) -> Noise:
    """Ranges, tracks and displacements as they are, whatever the water."""
    clear = RangeNoise(
        share=PERFECT, half=1.0, place=0.0, floor=PERFECT, said_floor=PERFECT, fade=1e3, fade_width=1.0, unseen=0.0,
        unseen_error=PERFECT, haze=0.0, haze_place=0.0, haze_said=0.0, persistent=0.5, persistent_s=1.0,
        log_variance_error=0.0, target_shown=1.0,
        pipeline_off=-9.0, pipeline_gap=18.0, pipeline_gap_place=0.0, pipeline_place=0.0, pipeline_error=0.0,
    )  # fmt: skip
    sure = msgspec.structs.replace(
        noise.tracks, base=20.0, per_log_size=0.0, per_optical_depth=0.0, at_edge=0.0, per_turning=0.0,
        bearing_error=0.0, bearing_floor=0.0, size_error=0.0, size_mean=0.0, size_slope=0.0, size_place=0.0,
        size_swing=0.0, aspect_mean=0.0, aspect_place=0.0, score_error=0.0, sure=20.0, sure_place=0.0,
        sure_fish=20.0, sure_fish_place=0.0, false_per_s=0.0, stones=0.0,
    )  # fmt: skip
    still = msgspec.structs.replace(
        noise.displacement, error=0.0, keyed_error=0.0, scale_error=0.0, roll_error=0.0, reach=10.0, clear=0.0
    )
    return Noise(source="none", range=clear, tracks=sure, posts=sure, displacement=still)
