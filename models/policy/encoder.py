"""The encoder's stage: renders its pictures, trains it on their range and pipeline, and measures it on worlds and
waters that it has not seen."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from models.policy import pictures
from models.policy.pictures import FIRST_TEST_SEED, Draw, Labelled
from models.policy.recipe import EncoderRecipe, claim
from models.policy.workers import quiet
from rov.steering.disengagement import sanity
from rov.steering.encoder import Encoded, Encoder

SHARD = 8
"""Scenes per file."""
RIDGE = 1e-3
"""Added to the covariance of looks, as a share of its mean variance: without it a dead channel would count most."""

RARE, ROOM = 0.005, 1.15
"""Share of unseen pictures outside the limits of normal pictures, and how much wider the limits are than that."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done and how much there is."""


def run(recipe: EncoderRecipe, folder: Path, device: torch.device, workers: int, progress: Progress) -> Path:
    """Run or resume the stage; returns the weights."""
    claim(folder, recipe)
    train, test, usual, usual_test = (
        pictures.open_all(render(recipe, part, folder / part.name, workers, progress)) for part in parts(recipe)
    )
    encoder = learn(recipe, train, folder, device, progress)
    fit_looks(encoder, usual, device)
    metrics = measure(encoder, test, device)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
    (folder / "thresholds.json").write_text(json.dumps(normal(encoder, test, usual_test, device), indent=1))
    weights = folder / "encoder.safetensors"
    save_file({key: value.contiguous().cpu() for key, value in encoder.state_dict().items()}, weights)
    return weights


class Part(NamedTuple):
    """Pictures that are rendered."""

    name: str
    scenes: int
    worlds: tuple[str, ...]
    waters: tuple[str, ...]
    first: int
    """Seed of the first scene."""


def parts(recipe: EncoderRecipe) -> tuple[Part, ...]:
    """What is learned from, what measures it, and the same of worlds as they are, for the looks."""
    first, both = recipe.seed * 100_000, recipe.test_worlds + recipe.worlds
    return (
        Part("train", recipe.scenes, recipe.worlds, recipe.waters, first),
        Part("test", recipe.test_scenes, recipe.test_worlds, recipe.test_waters, first + FIRST_TEST_SEED),
        Part("usual", recipe.usual_scenes, recipe.worlds, (), first),
        Part("usual_test", recipe.usual_scenes // 2, both, (), first + FIRST_TEST_SEED),
    )


def render(recipe: EncoderRecipe, part: Part, folder: Path, workers: int, progress: Progress) -> list[Path]:
    """The files of a part's pictures; those that exist are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    number = math.ceil(part.scenes / SHARD)
    paths = [folder / f"{i:04d}.npz" for i in range(number)]
    missing = [i for i, path in enumerate(paths) if not path.exists()]
    done = number - len(missing)
    what = f"{part.name.replace('_', ' ')} pictures"
    progress(what, done, number)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=quiet) as pool:
        try:
            for future in as_completed([pool.submit(shard, recipe, part, paths[i], i) for i in missing]):
                future.result()
                done += 1
                progress(what, done, number)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return paths


def shard(recipe: EncoderRecipe, part: Part, path: Path, number: int) -> None:
    """Render one file."""
    first = part.first + number * SHARD
    scenes = [
        pictures.draw(Draw(part.worlds[seed % len(part.worlds)], part.waters, recipe.night, seed, recipe.views))
        for seed in range(first, first + SHARD)
    ]
    pictures.save(path, Labelled(*(torch.cat(each) for each in zip(*scenes, strict=True))))


def learn(recipe: EncoderRecipe, data: Labelled, folder: Path, device: torch.device, progress: Progress) -> Encoder:
    """Train, or go on from the last whole epoch."""
    torch.manual_seed(recipe.seed)
    encoder = Encoder().to(device)
    # A quarter faster on a CPU.
    encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=recipe.rate, weight_decay=0.01)
    per_epoch = len(data.pictures) // recipe.batch
    total, epoch, checkpoint = recipe.epochs * per_epoch, 0, folder / "checkpoint.pt"
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step, total))
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        encoder.load_state_dict(state["encoder"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        epoch = state["epoch"]
    while epoch < recipe.epochs:
        sums = torch.zeros(2)
        random = torch.Generator().manual_seed(recipe.seed * 1000 + epoch)
        for step, (picture, inverse, pipeline) in enumerate(batches(data, recipe.batch, random, device)):
            found = encoder(augment(picture, random))
            parts = losses(found, inverse, pipeline)
            optimiser.zero_grad(set_to_none=True)
            parts.sum().backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            if step % 50 == 0:
                progress(f"encoder, epoch {epoch + 1}", epoch * per_epoch + step, total)
            sums += parts.detach().cpu()
        epoch += 1
        line = {"epoch": epoch, "range": sums[0].item() / per_epoch, "pipeline": sums[1].item() / per_epoch}
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        state = {"encoder": encoder.state_dict(), "optimiser": optimiser.state_dict()}
        state |= {"schedule": schedule.state_dict(), "epoch": epoch}
        torch.save(state, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)
    progress("encoder", total, total)
    return encoder


def rate(step: int, total: int) -> float:
    """Share of the peak learning rate."""
    warm = min(1.0, (step + 1) / 200)
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(total, 1)))))


def batches(
    data: Labelled, size: int, random: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The pictures in random order, half of them mirrored; 0..1, (B, 3, 48, 64) and maps (B, 12, 16)."""
    order = torch.randperm(len(data.pictures), generator=random)
    for start in range(0, len(order) - size + 1, size):
        chosen = order[start : start + size]
        picture, inverse, pipeline = (each[chosen].to(device).float() for each in data)
        if torch.rand(1, generator=random).item() < 0.5:
            picture, inverse, pipeline = (each.flip(-1) for each in (picture, inverse, pipeline))
        yield picture / 255, inverse, pipeline


def augment(picture: Tensor, random: torch.Generator) -> Tensor:
    """Other exposures, colours and noise than the simulated sensor's."""
    n = len(picture)
    gain, gamma, noise = (torch.rand(n, columns, generator=random) for columns in (3, 1, 1))
    gain, gamma, noise = (each.to(picture.device)[..., None, None] for each in (gain, gamma, noise))
    picture = (picture.clamp(min=1e-3) ** (0.8 + 0.45 * gamma)) * (0.88 + 0.24 * gain)
    return (picture + 0.02 * noise * torch.randn_like(picture)).clamp(0, 1)


def losses(found: Encoded, inverse: Tensor, pipeline: Tensor) -> Tensor:
    """(2,): the Gaussian negative log-likelihood of the inverse range, and the cross-entropy of the pipeline.

    Each cell's likelihood is weighed by its own deviation, as a constant (Seitzer et al. 2022, beta 0.5): else the
    network explains what is hard by its variance, and learns its mean last."""
    miss = (found.inverse_range[:, 0] - inverse) ** 2
    spread = found.log_variance[:, 0]
    likelihood = 0.5 * (miss * torch.exp(-spread) + spread) * torch.exp(0.5 * spread).detach()
    return torch.stack((likelihood.mean(), 4 * binary_cross_entropy_with_logits(found.pipeline[:, 0], pipeline)))


@torch.inference_mode()
def encoded(encoder: Encoder, data: Labelled, device: torch.device) -> Encoded:
    """What the encoder makes of all pictures."""
    parts = [encoder(each.to(device).float() / 255) for each in torch.split(data.pictures, 1024)]
    return Encoded(*(torch.cat(each).cpu() for each in zip(*parts, strict=True)))


def fit_looks(encoder: Encoder, data: Labelled, device: torch.device) -> None:
    """Set the mean and the whitening of the looks of usual pictures (Mahalanobis' distance)."""
    looks = encoded(encoder, data, device).looks.double()
    centred = looks - looks.mean(0)
    covariance = centred.T @ centred / len(looks)
    covariance += RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    whitening = torch.linalg.cholesky(torch.linalg.inv(covariance))
    encoder.load_state_dict(encoder.state_dict() | {"looks_mean": looks.mean(0), "looks_whitening": whitening})


def measure(encoder: Encoder, data: Labelled, device: torch.device) -> dict[str, float]:
    """Figures on pictures not trained on. Ranges: of cells within 4 m whose variance says that they are known to half
    of their value. Calibration: share of errors within one and two standard deviations (of a Gaussian: 0.68, 0.95)."""
    found = encoded(encoder, data, device)
    true, mean = data.inverse_range.float(), found.inverse_range[:, 0]
    deviation = torch.exp(0.5 * found.log_variance[:, 0])
    error = (mean - true).abs()
    near = true > 0.25
    known = near & (deviation < 0.5 * mean)
    pipe, said = data.pipeline > 0.5, found.pipeline[:, 0] > 0
    return {
        "pictures": float(len(true)),
        "range_error_median": (mean / true - 1)[known].abs().median().item(),
        "known_share_within_4_m": (known.sum() / near.sum()).item(),
        "within_1_deviation": (error < deviation).float().mean().item(),
        "within_2_deviations": (error < 2 * deviation).float().mean().item(),
        "inverse_range_rmse": error.square().mean().sqrt().item(),
        "inverse_range_rmse_of_the_mean": (true - true.mean()).square().mean().sqrt().item(),
        "pipeline_iou": ((pipe & said).sum() / (pipe | said).sum().clamp(min=1)).item(),
    }


def normal(encoder: Encoder, data: Labelled, usual: Labelled, device: torch.device) -> dict[str, float | list[float]]:
    """Limits that all but RARE of the pictures keep, in worlds and waters that were not trained on, with room. That
    of the looks is of worlds as they are: wider ones would let a deck pass."""
    unlike = encoder.unlike(encoded(encoder, usual, device).looks.to(device)).cpu()
    looked = torch.tensor([sanity(each[None].float() / 255) for each in data.pictures])
    low, high = torch.quantile(looked, RARE, dim=0).tolist(), torch.quantile(looked, 1 - RARE, dim=0).tolist()
    return {
        "unlike": round(ROOM * torch.quantile(unlike, 1 - RARE).item(), 3),
        "mean": [round(low[0] / ROOM, 4), round(min(1.0, high[0] * ROOM), 4)],
        "contrast": round(low[1] / ROOM, 5),
        "gradient": round(low[2] / ROOM, 5),
        "saturated": round(min(0.9, high[3] * ROOM + 0.05), 3),
    }
