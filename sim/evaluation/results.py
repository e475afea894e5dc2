"""results.json: each row's figures with their intervals, and rows compared in pairs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tomli_w

from rov import __version__, toml
from rov.errors import UserError
from rov.media.files import write_text
from sim.evaluation.episodes import Episode
from sim.evaluation.plan import CHARGE_J, LAMBDA_W, Plan
from sim.evaluation.statistics import paired_ratio, wilson

ON_CARD = ("success", "episodes", "success_low", "collisions", "seconds", "watts", "score")
"""Figures that a policy's card repeats."""
HONEST = ("policy_noise", "policy_frames")
"""Rows that may stand there: the others see nothing, or what nobody sees."""
FIXED_TIME = ("follow", "station")
"""Tasks that last: there the mean power is compared, which the price of time would dilute."""


def score(episode: Episode) -> float:
    """∫(P + λ) dt in J; CHARGE_J more without success."""
    return episode.joules + LAMBDA_W * episode.seconds + (0.0 if episode.success else CHARGE_J)


def results(plan: Plan, episodes: Sequence[Episode]) -> dict[str, Any]:
    """The content of results.json."""
    by_row = {row: [each for each in episodes if each.row == row] for row in plan.rows}
    done = all(len(by_row[row]) == plan.episodes for row in plan.rows)
    return {
        "version": __version__,
        "complete": done,
        "plan": msgspec.to_builtins(plan),
        "lambda_w": LAMBDA_W,
        "charge_j": CHARGE_J,
        "rows": {row: figures(some) for row, some in by_row.items() if some},
        "pairs": {
            f"{a}/{b}": compared
            for a, b in itertools.permutations(plan.rows, 2)
            if (compared := compare(plan, by_row[a], by_row[b]))
        },
    }


def must_fit_card(rows: Sequence[str], policy: Path) -> None:
    """Raises UserError when the first row must not stand on the policy's card, or there is none."""
    if rows[:1] and rows[0] not in HONEST:
        raise UserError(f"--card: the first of --rows must be {' or '.join(HONEST)}, not {rows[0]}")
    if not policy.with_suffix(".toml").is_file():
        raise UserError(f"--card: {policy} has no card; train_policy writes one beside its weights")


def put_on_card(plan: Plan, found: dict[str, Any], policy: Path) -> Path:
    """Write the figures of the first row into the card beside the weights, in place of the task's earlier ones;
    returns the card's path. Raises TomlError."""
    path, row = policy.with_suffix(".toml"), found["rows"][plan.rows[0]]
    card = toml.parse(toml.read_text(path))
    kept = {name: row[name] for name in ON_CARD if row[name] is not None}
    how = {"row": plan.rows[0], "tier": plan.tier, "level": plan.level, "hull": plan.hull, "seed": plan.seed}
    card["results"] = card.get("results", {}) | {plan.task: kept | how}
    write_text(path, tomli_w.dumps(card))
    return path


def figures(episodes: Sequence[Episode]) -> dict[str, Any]:
    """A row's figures. Shares are 0..1; `collisions` is the share of episodes in which something was touched;
    seconds and joules are means of the successful ones, score the mean of all, hours the sum of all; `stand_off` is the
    median distance to what is followed, over the goal's."""
    n = len(episodes)
    good = [each for each in episodes if each.success]
    hits, bumps = len(good), sum(each.touched for each in episodes)
    return {
        "episodes": n,
        "success": hits / n,
        "success_low": wilson(hits, n).low,
        "success_high": wilson(hits, n).high,
        "collisions": bumps / n,
        "collisions_high": wilson(bumps, n).high,
        "timed_out": sum(each.timed_out for each in episodes) / n,
        "seconds": _mean([each.seconds for each in good]),
        "joules": _mean([each.joules for each in good]),
        "watts": _mean([each.watts for each in good]),
        "joules_per_m": _ratio(sum(e.joules for e in good), sum(e.distance for e in good)),
        "seconds_per_m": _ratio(sum(e.seconds for e in good), sum(e.distance for e in good)),
        "score": float(np.mean([score(each) for each in episodes])),
        "disengagements": sum(each.disengaged for each in episodes),
        "hours": sum(each.seconds for each in episodes) / 3600,
        "stand_off": _median([each.stand_off for each in episodes if each.stand_off is not None]),
        "success_night": _share([each.success for each in episodes if each.night]),
        "success_our_loops": _share([each.success for each in episodes if each.ours]),
        "success_ardusub": _share([each.success for each in episodes if not each.ours]),
        **{
            f"success_{target}": _share([each.success for each in episodes if each.target == target])
            for target in sorted({each.target for each in episodes} - {""})
        },
    }


def compare(plan: Plan, ours: Sequence[Episode], theirs: Sequence[Episode]) -> dict[str, Any] | None:
    """The paired ratio of the score without charges — of the mean power in tasks that last — over the episodes in which
    both succeed; None where there are too few."""
    other = {each.episode: each for each in theirs}
    pairs = [(each, other[each.episode]) for each in ours if each.episode in other]
    both = [(a, b) for a, b in pairs if a.success and b.success]
    if len(both) < 2:
        return None
    cost = (lambda each: each.watts) if plan.task in FIXED_TIME else score
    ratio = paired_ratio(np.array([cost(a) for a, _ in both]), np.array([cost(b) for _, b in both]), plan.seed)
    measure = "mean power" if plan.task in FIXED_TIME else "score"
    share = len(both) / len(pairs)
    return {"of": measure, "ratio": ratio.mean, "low": ratio.low, "high": ratio.high, "both": len(both), "share": share}


def write(plan: Plan, episodes: Sequence[Episode], out: Path) -> dict[str, Any]:
    """Write results.json. Raises UserError."""
    found = results(plan, episodes)
    write_text(out / "results.json", json.dumps(found, indent=2, allow_nan=False) + "\n")
    return found


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _share(hits: list[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None
