"""Rows of nested tuples of tensors: vehicles are replaced, chosen and joined by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Rows = TypeVar("Rows")


def put(old: Rows, rows: Tensor, new: Rows) -> Rows:
    """`old` with the rows (K,) replaced by those of `new`, in every tensor whose first dimension is N; what is not a
    tensor stays."""
    if isinstance(old, Tensor):
        made = old.clone()
        made[rows] = new.to(made.dtype)  # type: ignore[attr-defined]
        return made  # type: ignore[return-value]
    if isinstance(old, tuple):
        pairs: Any = zip(old, new, strict=True)  # type: ignore[call-overload]
        return type(old)(*(put(a, rows, b) for a, b in pairs))
    return old


def take(some: Rows, rows: slice | Tensor) -> Rows:
    """The rows of every tensor."""
    if isinstance(some, Tensor):
        return some[rows]  # type: ignore[return-value]
    if isinstance(some, tuple):
        return type(some)(*(take(each, rows) for each in some))
    return some


def join(some: Sequence[Rows]) -> Rows:
    """The rows of all, one after the other; what is not a tensor is the first's."""
    first: Any = some[0]
    if isinstance(first, Tensor):
        whole: Any = torch.cat(list(some))  # type: ignore[arg-type]
    elif isinstance(first, tuple):
        members: Any = zip(*some, strict=True)
        whole = type(first)(*(join(each) for each in members))
    else:
        whole = first
    return whole  # type: ignore[no-any-return]
