"""What is evaluated. The plan stands in the results' folder, so that an interrupted run goes on with the same one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from rov.errors import UserError
from rov.media.files import write_text
from sim.tasks.sea import Trouble

LAMBDA_W = 50.0
"""Price of time: the score is the integral of the power plus this."""
CHARGE_J = 10_000.0
"""Added to the score of an episode without success: more than any successful transit costs."""
WORLDS_SEED = 1_000_000
"""Added to the seeds of looks: the training's are below."""
CHUNK = {1: 100, 2: 10}
"""Episodes that run together, by tier."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that the figures depend on."""

    task: str
    level: str
    rows: tuple[str, ...]
    episodes: int
    seed: int
    tier: int
    """1: noise models; 2: rendered pictures."""
    worlds: tuple[str, ...] = ()
    """Looks, in turn; without any, tier 1 draws turbidity and field of view from the level."""
    hull: str = "heavy"
    loops: str = "both"
    dead_thruster: bool = False
    late_s: float = 0.0
    current: float | None = None
    peak: float | None = None
    policy_sha256: str = ""
    """Of the policy's weights, where a row needs them."""
    device: str = "cpu"

    @property
    def trouble(self) -> Trouble:
        return Trouble(float(self.dead_thruster), self.late_s, self.current, self.peak)

    def chunks(self) -> Iterator[Chunk]:
        """The episodes in the groups that run together."""
        size = CHUNK[self.tier]
        for first in range(0, self.episodes, size):
            number = first // size
            text = f"{self.seed} {self.task} {self.level} {number}"
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
            world = self.worlds[number % len(self.worlds)] if self.worlds else ""
            yield Chunk(number, range(first, min(first + size, self.episodes)), size, seed, world)


class Chunk(NamedTuple):
    """Episodes that start together. Always `size` of them run, so that the figures of one do not depend on how many are
    wanted."""

    number: int
    episodes: range
    size: int
    seed: int
    world: str

    def episode(self, row: int) -> int:
        """The episode of a vehicle of the group: every other one is of the second half, under the other inner loops."""
        half = self.size // 2
        return self.number * self.size + (2 * row if row < half else 2 * (row - half) + 1)

    def row(self, episode: int) -> int:
        """The vehicle of the group that has this episode."""
        place, half = episode - self.number * self.size, self.size // 2
        return place // 2 + half * (place % 2)

    def looks_seeds(self) -> list[int]:
        return [WORLDS_SEED + self.seed % 1_000_000 + i for i in range(self.size)]


def keep(plan: Plan, out: Path) -> None:
    """Write the plan to `out`, or check that it is the one that is there; more episodes and rows may be added. Raises
    UserError."""
    path = out / "plan.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if path.exists():
            former = msgspec.json.decode(path.read_bytes(), type=Plan)
            sha256 = plan.policy_sha256 or former.policy_sha256  # rows without the policy do not depend on it
            plan = msgspec.structs.replace(plan, policy_sha256=sha256)
            if not former.policy_sha256:
                former = msgspec.structs.replace(former, policy_sha256=sha256)
            if msgspec.structs.replace(former, rows=plan.rows, episodes=plan.episodes) != plan:
                raise UserError(f"{out}: holds results of {_difference(former, plan)}; name another folder with --out")
    except (OSError, msgspec.MsgspecError) as error:
        raise UserError(f"{path}: cannot be used: {error}; name another folder with --out") from None
    write_text(path, msgspec.json.format(msgspec.json.encode(plan)).decode() + "\n")


def _difference(former: Plan, plan: Plan) -> str:
    names = [
        n for n in Plan.__struct_fields__ if n not in ("rows", "episodes") and getattr(former, n) != getattr(plan, n)
    ]
    return ", ".join(f"{name} = {getattr(former, name)}" for name in names)
