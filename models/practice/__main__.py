"""`python -m models.practice --data mnist --model cnn --optimizer adam`: train one model on one practice set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from rov.errors import UserError
from rov.printing import print_line

EXAMPLES = (
    "Examples: `python -m models.practice --data mnist --model softmax --optimizer sgd`,"
    " `python -m models.practice --data fashion-mnist --model cnn --optimizer adam --epochs 30`"
)
app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.command(epilog=EXAMPLES)
def main(
    data: Annotated[Literal["mnist", "fashion-mnist"], typer.Option(help="The set.")] = "mnist",
    model: Annotated[
        Literal["linear", "softmax", "svm", "mlp", "cnn"],
        typer.Option(help="linear: least squares; softmax: its regression; svm: hinge loss. One matrix each."),
    ] = "cnn",
    optimizer: Annotated[Literal["sgd", "adam"], typer.Option(help="How weights follow the slope.")] = "adam",
    epochs: Annotated[int, typer.Option(min=0, help="Passes over the pictures; 0: as fits the model.")] = 0,
    rate: Annotated[float, typer.Option(min=0, max=10, help="Peak learning rate; 0: as fits the model.")] = 0.0,
    batch: Annotated[int, typer.Option(min=2, max=10_000, help="Pictures per step.")] = 128,
    augment: Annotated[bool | None, typer.Option(help="Change pictures at random; as given: for the CNN.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Learn from so many pictures only; 0: all 55,000.")] = 0,
    reference: Annotated[bool, typer.Option(help="Also let scikit-learn's model learn.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of all random draws.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Processor threads; 0: all.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda; auto: cuda where there is one.")] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; else runs/practice/DATA-MODEL-OPTIMIZER.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of the unpacked sets; else ~/.cache/rov/practice.")] = None,
) -> None:
    """Train one model on MNIST or Fashion-MNIST, and hold it against scikit-learn's. After an interruption the same
    command resumes."""
    try:
        from models.practice import reference as peers
        from models.practice import results, sets
        from models.practice import train as training
    except ModuleNotFoundError as error:
        print_line(f"error: {error.name} is not installed here; `make .venv-train/ready` installs what practice needs,"
                   " then run it with .venv-train/bin/python", error=True)  # fmt: skip
        raise typer.Exit(2) from None
    if threads:
        torch.set_num_threads(threads)
    chosen = torch.device("cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu"))
    recipe = training.Recipe(
        data, model, optimizer, epochs or training.EPOCHS[data][model], rate or training.RATES[optimizer][model], batch,
        augment=model == "cnn" if augment is None else augment, seed=seed, limit=limit,
    )  # fmt: skip
    folder = out or Path("runs/practice") / f"{data}-{model}-{optimizer}"
    console = Console(stderr=True)
    try:
        pictures = sets.load_set(data, cache or default_cache(), limit)
        if len(pictures.train.labels) < batch:
            raise UserError(f"--limit {limit}: is less than one batch of {batch} pictures")
        folder.mkdir(parents=True, exist_ok=True)
        with progress(console) as bar:
            net, history = training.train(recipe, pictures, folder, chosen, bar)
            peer = None
            if reference:
                task = bar.add_task("scikit-learn learns", total=None)
                peer = peers.reference(model, pictures)
                bar.remove_task(task)
        outputs = training.answers(net, data, pictures.test.pictures)
        card = results.save_results(net, recipe, pictures, history, outputs, peer, folder)
    except UserError as error:
        print_line(f"error: {error}", error=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        print_line(f"stopped; the same command resumes from the last whole epoch in {folder}", error=True)
        raise typer.Exit(130) from None
    summary = Table("", "right in test", "95 % interval", "learned in", title=f"{data}: 10,000 test pictures")
    figures = card["metrics"]
    low, high = figures["test_interval"]
    summary.add_row(f"{model}, {optimizer}", f"{figures['test']:.2%}", f"{low:.2%} to {high:.2%}",
                    f"{figures['train_seconds']:.0f} s")  # fmt: skip
    if peer:
        low, high = results.interval(peer.test, len(pictures.test.labels))
        summary.add_row(f"scikit-learn's {peer.name}", f"{peer.test:.2%}", f"{low:.2%} to {high:.2%}",
                        f"{peer.seconds:.0f} s")  # fmt: skip
    Console().print(summary)
    print_line(f"{folder}: model.safetensors, its card model.toml, curves.png, confusion.png, mistakes.png")


def default_cache() -> Path:
    """Where the XDG Base Directory Specification puts what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rov" / "practice"


def progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    return Progress(*columns, console=console)


if __name__ == "__main__":
    app()
