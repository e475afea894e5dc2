"""Curves of a training as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SMOOTH = 5
"""Rounds that a figure of a task is averaged over, by its number of episodes."""


def draw(folder: Path, tasks: tuple[str, ...], teacher: dict[str, dict[str, float]] | None = None) -> Path:
    """Draw `log.jsonl` of the teaching stage as `curves.png`: closed-loop success and cost of each task, and the loss.
    `teacher`: its summaries, as lines."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    figure, (success, cost, loss) = plt.subplots(1, 3, figsize=(15, 4.2), constrained_layout=True)
    for number, task in enumerate(tasks):
        colour = f"C{number}"
        rounds, share = _averaged(lines, task, "success")
        success.plot(rounds, share, color=colour, label=task)
        rounds, joules = _averaged(lines, task, "charge")
        cost.plot(rounds, [each / 1000 for each in joules], color=colour)
        if teacher and task in teacher:
            success.axhline(teacher[task]["success"], color=colour, linestyle=":", linewidth=1)
            cost.axhline(teacher[task]["charge"] / 1000, color=colour, linestyle=":", linewidth=1)
    success.set(title="success of the student alone (dotted: teacher)", xlabel="round", ylim=(0, 1.02))
    success.legend()
    cost.set(title="cost, kJ: joules, time, failures", xlabel="round", ylim=(0, None))
    learned = [line for line in lines if "error" in line]
    for name in ("error", "ripple"):
        some = [line for line in learned if name in line]
        loss.semilogy([line["round"] for line in some], [max(line[name], 1e-6) for line in some], label=name)
    loss.set(title="against the teacher's setpoints, squared", xlabel="round")
    loss.legend()
    path = folder / "curves.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _averaged(lines: list[dict[str, Any]], task: str, name: str) -> tuple[list[int], list[float]]:
    """Rounds, and the mean of a figure over the episodes of the last SMOOTH rounds."""
    rounds, values = [], []
    for i in range(len(lines)):
        some = [line[task] for line in lines[max(0, i - SMOOTH + 1) : i + 1] if line[task]["ended"]]
        if some:
            rounds.append(lines[i]["round"])
            values.append(sum(each[name] * each["ended"] for each in some) / sum(each["ended"] for each in some))
    return rounds, values
