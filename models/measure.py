"""Measure weights again, all by the same code: `python -m models.measure models/detector.safetensors`.

Each detector answers to the val and test pictures of the real sets. The figures go onto its card, in place of older
ones: per class, per scene, and over everything with a bootstrap interval over clips.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from models import metrics, results
from rov import toml
from rov.errors import UserError
from rov.printing import print_line
from rov.vision.detector import Detector

SETS = ["transdec", "tub", "aquarium", "rov25"]
EVERYTHING = "val and test"
app = typer.Typer(rich_markup_mode="markdown", add_completion=False)


@app.command()
def main(
    weights: Annotated[list[Path], typer.Argument(help="Weights with their cards; the cards are rewritten.")],
    sets: Annotated[str, typer.Option(help="a,b,c: names of sets, or folders.")] = ",".join(SETS),
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: all.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Measure detectors on the pictures kept aside and write the figures onto their cards."""
    if threads:
        torch.set_num_threads(threads)
    try:
        for path in weights:
            for line in measure(path, sets.split(","), device):
                print_line(line)
    except UserError as error:
        print_line(f"error: {error}", error=True)
        raise typer.Exit(2) from None


def measure(weights: Path, sets: list[str], device: str) -> list[str]:
    """Rewrite the figures on the card of the weights; returns lines that tell them."""
    detector = Detector(weights, device)
    names, path = detector.card.classes, weights.with_suffix(".toml")
    found = results.answers(detector, sets)
    top = detector.card.network.top
    told = {
        key: results.report(metrics.evaluate(own, given, names), results.full_lists(given, top))
        for key, (own, given) in found.items()
    }
    card = toml.parse(toml.read_text(path))
    results.put_on_card(card, told)
    card["means"][EVERYTHING] = everything(found, names)
    results.write_card(weights, card)
    scenes = {scene: row for each in told.values() for scene, row in each["per_scene"].items()}
    lines = [f"  {scene}: mAP50 {row['map50']}, mAP50-95 {row['map50_95']}" for scene, row in scenes.items()]
    return [f"{weights}: {card['means'][EVERYTHING]}", *lines]


def everything(found: results.Answers, names: tuple[str, ...]) -> dict[str, Any]:
    """mAP50 over all real pictures, with its interval over clips where there are several."""
    real = [found[key] for key in ("val", "test") if key in found]
    samples = [sample for own, _ in real for sample in own]
    judged = metrics.evaluate(samples, [each for _, given in real for each in given], names)
    map50, strict = judged.mean()
    row: dict[str, Any] = {"map50": round(map50, 4), "map50_95": round(strict, 4), "pictures": len(samples)}
    clips = [f"{sample.set_name}/{sample.group}" for sample in samples]
    if interval := judged.interval(range(len(samples)), clips):
        row |= {"low": round(interval[0], 4), "high": round(interval[1], 4)}
    return row


if __name__ == "__main__":
    app()
