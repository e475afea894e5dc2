"""Cloning a pilot: windows of recorded dives in which a person steered while the policy looked on in shadow.

A task must be set while the dive is recorded (`rov ctl task …`): then every frame's input of the policy is in the file,
and the person's sticks beside it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from models.policy.cards import write
from models.policy.recipe import CloneRecipe
from models.policy.windows import Store, Windows, loss
from rov import toml
from rov.dives.dive import Dive
from rov.errors import UserError
from rov.messages import ConsumedInput, PolicyInput, Setpoint
from rov.steering.policy_input import FEATURES, VERSION
from rov.steering.policy_model import unpack
from rov.steering.policy_network import MEMORY, PolicyNetwork
from rov.vision.model_card import sha256

STICKS_NS = 300_000_000
"""Sticks older than this no longer say what the person wants; as the pilot's own limit."""
IDLE, IDLE_WEIGHT = 0.05, 0.3
"""Within this on every axis the sticks are released: pauses say little, and a clone of pauses freezes."""
TAKEN_OVER_NS, TAKEN_OVER_WEIGHT = 3_000_000_000, 3.0
"""For this long after a person took the sticks from the policy, what he does says most."""
TOPICS = ("policy_input", "inputs")

Progress = Callable[[str, int, int], None]
Moment = tuple[PolicyInput, Setpoint | None, float]
"""An input, the person's setpoint and its weight."""


class CloneError(UserError):
    """Dives cannot be cloned."""


def windows(folder: Path, length: int) -> Windows:
    """Windows of `length` decisions of all dives in a folder. Raises CloneError when there is nothing to learn."""
    paths = sorted(folder.rglob("*.mcap"))
    if not paths:
        raise CloneError(f"{folder}: holds no dives (*.mcap)")
    made = [part for path in paths for part in cut(list(moments(path)), length)]
    if not made:
        raise CloneError(
            f"{folder}: in none of its {len(paths)} dives a person steers for {length} frames while a task is set;"
            " set one (`rov ctl task follow diver`) before steering by hand"
        )
    return Windows(*(torch.stack(each, 0 if name == "memory" else 1) for name, each in _columns(made)))


def _columns(made: list[Windows]) -> Iterator[tuple[str, list[torch.Tensor]]]:
    for name in Windows._fields:
        yield name, [getattr(each, name) for each in made]


def moments(path: Path) -> Iterator[Moment]:
    """The inputs of a dive, each with what the person wanted then; None where nobody steered."""
    sticks: Setpoint | None = None
    policy_until = -TAKEN_OVER_NS
    with Dive(path) as dive:
        for record in dive.messages(TOPICS):
            message = record.data
            if isinstance(message, ConsumedInput):
                if message.setpoint is not None and message.setpoint.source == "policy":
                    policy_until, sticks = message.t, None
                elif message.setpoint is not None and message.setpoint.source == "operator":
                    sticks = message.setpoint
            elif isinstance(message, PolicyInput) and message.version == VERSION and len(message.features) == FEATURES:
                fresh = sticks if sticks is not None and message.t - sticks.t <= STICKS_NS else None
                yield message, fresh, weight(fresh, message.t - policy_until)


def weight(sticks: Setpoint | None, since_policy_ns: int) -> float:
    """How much a decision counts."""
    if sticks is None:
        return 0.0
    if since_policy_ns <= TAKEN_OVER_NS:
        return TAKEN_OVER_WEIGHT
    idle = max(abs(each) for each in (sticks.surge, sticks.sway, sticks.heave, sticks.yaw)) < IDLE
    return IDLE_WEIGHT if idle else 1.0


def cut(some: list[Moment], length: int) -> Iterator[Windows]:
    """Windows in which somebody steers at least half of the time."""
    for first in range(0, len(some) - length + 1, length // 2):
        part = some[first : first + length]
        if sum(each[2] > 0 for each in part) >= length / 2:
            yield Windows(
                torch.cat([unpack(given.maps) for given, _, _ in part]).half(),
                torch.tensor([given.features for given, _, _ in part]).half(),
                torch.tensor([_axes(sticks) for _, sticks, _ in part]),
                torch.zeros(length),
                torch.tensor([value for *_, value in part]),
                torch.zeros(2 * MEMORY),
                torch.tensor([given.reset for given, _, _ in part]),
            )


def _axes(sticks: Setpoint | None) -> tuple[float, float, float, float]:
    return (sticks.surge, sticks.sway, sticks.heave, sticks.yaw) if sticks else (0.0, 0.0, 0.0, 0.0)


def clone(recipe: CloneRecipe, dives: Path, out: Path, start: Path, progress: Progress) -> Path:
    """Go on learning from a person's dives, on weights `start`; returns the new weights, with the encoder and the
    card of the start, which says so. What is kept is a mean of both weights, by `recipe.share`. The last tenth of the
    windows is not learned from: their error is told before and after.

    The card keeps no results: nobody has tried these weights. `python -m sim evaluate` does."""
    every = windows(dives, recipe.length)
    count = every.memory.shape[0]
    kept = max(1, count // 10)
    learned, held = (rows_of(every, rows) for rows in (slice(0, count - kept), slice(count - kept, count)))
    if count < 2:
        raise CloneError(f"{dives}: one window of {recipe.length} frames is too little; record a minute at least")
    torch.manual_seed(recipe.seed)
    network = PolicyNetwork()
    trunk = load_file(start)
    network.load_state_dict(trunk)
    before = error(network, held, recipe)
    store, random = Store(1), torch.Generator().manual_seed(recipe.seed)
    store.add(learned)
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=1e-4)
    for step in range(recipe.updates):
        value, _ = loss(network, store.draw(recipe.batch, random), recipe.burn_in, recipe.smooth)
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if step % 10 == 0:
            progress("cloning", step, recipe.updates)
    learned_alone = network.state_dict()
    network.load_state_dict({key: trunk[key].lerp(learned_alone[key], recipe.share) for key in trunk})
    after = error(network, held, recipe)
    out.mkdir(parents=True, exist_ok=True)
    weights = out / "policy.safetensors"
    save_file({key: each.contiguous() for key, each in network.state_dict().items()}, weights)
    card = toml.parse(toml.read_text(start.with_suffix(".toml")))
    card["cloned"] = {"from": card["weights_sha256"], "windows": count, "error_before": before, "error_after": after}
    card["weights_sha256"] = sha256(weights)
    card.pop("results", None)
    write(weights, card)
    for each in start.parent.glob("encoder.*"):  # it is looked for beside the policy
        shutil.copyfile(each, out / each.name)
    progress(f"error on windows not learned from: {before:.4f} → {after:.4f}", recipe.updates, recipe.updates)
    return weights


def rows_of(every: Windows, rows: slice) -> Windows:
    """Some of the windows."""
    return Windows(*(each[rows] if name == "memory" else each[:, rows] for name, each in every._asdict().items()))


@torch.no_grad()
def error(network: PolicyNetwork, some: Windows, recipe: CloneRecipe) -> float:
    """The squared error of the setpoints, over the four axes."""
    return loss(network, some, recipe.burn_in, 0.0)[1]["error"]
