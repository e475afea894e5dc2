"""Least squares with priors, by Levenberg–Marquardt on exact derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sim.fit.prediction import NAMES, Guess, Problem, predict, spread_out
from sim.fit.windows import join
from sim.vehicle import DT

OUTLIER = 5.0
"""Errors above this many standard deviations count less (Cauchy loss): a tug at the tether, a touch of the ground."""
STEPS_MAX, ENOUGH = 15, 1e-3
"""Most iterations per horizon; it ends earlier when one improves the cost by less than this share."""
STRIDE_MAX = 0.5
"""Largest change of a θ in one iteration."""


def descend(problem: Problem, x: Tensor, report: Callable[[float, float], object]) -> Tensor:
    """Minimise the cost from `x`; returns the unknowns (X,). `report` gets horizon (s) and cost of each iteration."""
    damping = 1e-3
    now = cost(problem, x)
    for _ in range(STEPS_MAX):
        report(problem.steps * DT, now)
        matrix, pull = normal(problem, x)
        then = math.inf
        while not then < now and damping < 1e6:
            move = torch.linalg.solve(matrix + damping * torch.diag(matrix.diag()), -pull)
            move[: len(NAMES)] = move[: len(NAMES)].clamp(-STRIDE_MAX, STRIDE_MAX)
            then = cost(problem, x + move)
            damping = max(damping / 5, 1e-9) if then < now else damping * 8
        if not then < now:
            break
        x, gained, now = x + move, (now - then) / now, then
        if gained < ENOUGH:
            break
    return x


def cost(problem: Problem, x: Tensor) -> float:
    """The robust squared errors plus the squared deviations from the priors."""
    residual = predict(problem, spread_out(problem, x))
    return float(OUTLIER**2 * (residual / OUTLIER).square().log1p().sum() + (x / problem.prior).square().sum())


def spreads(problem: Problem, x: Tensor) -> Tensor:
    """(X,) standard deviation of each unknown, marginal over the others: by the inverse of the curvature."""
    variance: Tensor = torch.linalg.inv(normal(problem, x)[0]).diag()
    return variance.clamp(min=0).sqrt()


def normal(problem: Problem, x: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix (X, X) of the normal equations, Fisher information plus priors, and half the cost's gradient."""
    guess = spread_out(problem, x)
    residual, slopes = jacobian(problem, guess)
    weight = (1 + (residual / OUTLIER).square()).rsqrt()
    residual, slopes = residual * weight, slopes * weight
    shared, own = slopes[: len(NAMES)], slopes[len(NAMES) :]
    across = torch.einsum("pmw,imw->pwi", shared, own).flatten(1)
    blocks = torch.block_diag(*torch.einsum("imw,jmw->wij", own, own))  # type: ignore[no-untyped-call]
    whole = torch.cat(
        [torch.cat([torch.einsum("pmw,qmw->pq", shared, shared), across], 1), torch.cat([across.T, blocks], 1)]
    )
    pulls = torch.cat(
        [torch.einsum("pmw,mw->p", shared, residual), torch.einsum("imw,mw->wi", own, residual).flatten()]
    )
    # So far each window has its own flaws; the windows of a dive share them.
    same = torch.func.jacfwd(lambda each: _flat(spread_out(problem, each)))(x)
    return same.T @ whole @ same + torch.diag(problem.prior**-2), same.T @ pulls + x / problem.prior**2


def _flat(guess: Guess) -> Tensor:
    """θ once, then the flaws and the start velocity of each window."""
    return torch.cat([guess.theta[:, 0], torch.cat([guess.flaws, guess.speed]).T.flatten()])


def jacobian(problem: Problem, guess: Guess) -> tuple[Tensor, Tensor]:
    """Errors (m, W), and their derivatives (P + 8 + 3, m, W) by each parameter and each window's flaws and velocity.

    Exact, by forward differentiation: the batch is repeated per unknown, and each copy carries its tangent."""
    count = guess.theta.shape[1]
    sizes = [len(part) for part in guess]
    copies = sum(sizes)
    repeated = join([problem.windows] * copies)
    unit = torch.eye(copies, dtype=guess.theta.dtype).repeat_interleave(count, dim=1)  # (P + 11, copies · W)
    with forward_ad.dual_level():
        dual = [
            forward_ad.make_dual(part.repeat(1, copies), tangent.contiguous())  # type: ignore[no-untyped-call]
            for part, tangent in zip(guess, torch.split(unit, sizes), strict=True)
        ]
        out = predict(problem._replace(windows=repeated), Guess(*dual))
        primal, tangent = forward_ad.unpack_dual(out)  # type: ignore[no-untyped-call]
    assert tangent is not None
    shaped = tangent.reshape(-1, copies, count, tangent.shape[-1]).permute(1, 0, 3, 2).reshape(copies, -1, count)
    return primal[:, :count].permute(0, 2, 1).reshape(-1, count), shaped
