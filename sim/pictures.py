"""Commands that make pictures: data sets, contact sheets, and the speed of the camera."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from rov.errors import UserError
from rov.printing import print_line

app = typer.Typer(rich_markup_mode="markdown")


@app.command(
    epilog="Examples: `python -m sim dataset pool pond --images 500 --seed 1 --out sets/course`,"
    " `python -m sim dataset my.toml --images 20 --out try --size 320x240`"
)
def dataset(
    worlds: Annotated[list[str], typer.Argument(help="Worlds by name (sim/worlds), or paths to .toml files.")],
    out: Annotated[Path, typer.Option(help="Folder for images/, annotations.json (COCO) and dataset.toml (card).")],
    images: Annotated[int, typer.Option(min=1, help="Pictures of each world.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same pictures.")] = 0,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels.")] = "640x480",
    camera: Annotated[
        Path | None, typer.Option(help="ROS camera_info file as `rov calibrate camera` writes it: the lens.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = max(1, os.cpu_count() or 1),
    views: Annotated[
        int, typer.Option(min=1, help="Pictures of each world as it is realised; several save time on a GPU.")
    ] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Make a labelled data set. The same command continues an interrupted run."""
    from rov.cli.common import progress
    from sim.dataset import dataset as run

    match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", size)
    if match is None:
        raise UserError(f"--size {size}: must look like 640x480")
    with progress() as bar:
        task = bar.add_task("pictures", total=images * len(worlds))
        coco = run(
            worlds, images, seed, out, (int(match[1]), int(match[2])), workers, partial(bar.advance, task), camera,
            views, device,
        )  # fmt: skip
    print_line(f"{len(coco['images'])} pictures, {len(coco['annotations'])} boxes: {out}/annotations.json")


@app.command(epilog="Example: `python -m sim sheet --out sheet.jpg`")
def sheet(
    out: Annotated[Path, typer.Option(help="JPEG to write.")],
    worlds: Annotated[list[str] | None, typer.Argument(help="Worlds; without any: all of sim/worlds.")] = None,
    columns: Annotated[int, typer.Option(min=1, help="Pictures of each world.")] = 6,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Draw a contact sheet: a row of pictures with their boxes for each world."""
    from rov.cli.common import progress
    from sim.contact_sheet import sheet as run
    from sim.world import names

    chosen = worlds or names()
    with progress() as bar:
        task = bar.add_task("pictures", total=columns * len(chosen))
        run(chosen, columns, seed, out, partial(bar.advance, task))
    print_line(out)


@app.command("camera-bench", epilog="Example: `python -m sim camera-bench pool --device cuda`")
def camera_bench(
    world: Annotated[str, typer.Argument(help="World to look at.")] = "pool",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seconds: Annotated[float, typer.Option(help="Shortest time of each measurement.")] = 3.0,
) -> None:
    """Measure how many pictures a second the simulated camera takes."""
    from rich.table import Table

    from rov.cli.common import progress
    from rov.terminal import PlainConsole
    from sim.camera_bench import NUMBERS, SIZES
    from sim.camera_bench import camera_bench as run

    with progress() as bar:
        task = bar.add_task("measuring", total=len(SIZES) * len(NUMBERS))
        speeds = run(world, device, seconds, partial(bar.advance, task))
    table = Table("size", *(f"{n} cameras" for n in NUMBERS), title=f"pictures/s, {world}, {device}")
    for size in SIZES:
        cells = [f"{s.fps:.1f}" if s.fps else "not measured" for s in speeds if s.size == size]
        table.add_row(f"{size[0]}×{size[1]}", *cells)
    PlainConsole().print(table)
