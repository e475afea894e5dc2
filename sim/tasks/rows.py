"""Rows of nested tuples of tensors: vehicles are replaced and chosen by them."""

from __future__ import annotations

from typing import Any, TypeVar

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
