"""Controllers with numbers to tune: their tables, and the files that hold what the tuner found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rov import toml
from rov.errors import UserError
from rov.steering.policy_input import Sources


class Parameter(NamedTuple):
    """One number of a controller, and where its search begins."""

    low: float
    high: float
    start: float


Table = dict[str, Parameter]
Values = dict[str, Tensor]
"""Each (N,) or (1,)."""


class Kept(NamedTuple):
    """What a controller remembers, zeros at the start."""

    integral: Tensor
    """(N, 3)."""
    last: Tensor
    """(N, 4) its last setpoint."""
    seen: Tensor
    """(N,) the goal's last bearing, rad."""


class TuningError(UserError):
    """A file of tuned numbers cannot be used."""


def kept(n: int, device: torch.device) -> Kept:
    zeros = torch.zeros(n, 4, device=device)
    return Kept(zeros[:, :3], zeros, zeros[:, 0])


def start(table: Table) -> list[float]:
    return [each.start for each in table.values()]


def named(table: Table, parameters: Tensor) -> Values:
    """Parameters (N or 1, K) by name."""
    return dict(zip(table, parameters.unbind(1), strict=True))


def load(path: Path, task: str, table: Table) -> list[float]:
    """The tuned numbers of a task. Raises TuningError, which names file and key."""
    try:
        tables: dict[str, Any] = toml.parse(toml.read_text(path))
    except OSError as error:
        raise TuningError(f"{path}: cannot be read: {error.strerror}; `make policy` makes it") from None
    except toml.TomlError as error:
        raise TuningError(f"{path}: {error}") from None
    found = tables.get(task)
    if not isinstance(found, dict) or set(found) != set(table):
        raise TuningError(f"{path}: [{task}] must hold exactly {', '.join(table)}; tune it again")
    for name, value in found.items():
        if not isinstance(value, (int, float)) or not table[name].low <= value <= table[name].high:
            raise TuningError(f"{path}: {task}.{name} = {value}: must lie in {table[name].low}..{table[name].high}")
    return [float(found[name]) for name in table]


def smoothed(wanted: Tensor, memory: Kept, tau: Tensor, dt: Tensor) -> Tensor:
    """Setpoints (N, 4) through a first-order filter with time constants `tau` (N or 1,) s, limited to ±1."""
    share = (dt / (dt + tau.clamp(min=0.0)))[:, None]
    return (memory.last + share * (wanted.clamp(-1.0, 1.0) - memory.last)).clamp(-1.0, 1.0)


Controller = Callable[[Sources, Tensor, Any, "Kept | None"], "tuple[Tensor, Kept]"]
"""`controller(sources, maps, truth, memory)` -> setpoint (N, 4) and memory; None begins."""
