"""Commands on recordings and on this machine: replay, detect, bench, doctor."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from rov.cli import common
from rov.cli.common import ConfigFile, Settings, configuration, console
from rov.errors import UserError

app = typer.Typer()


@app.command(
    epilog="Examples: `rov replay dive.mcap --out out/`, `rov replay *.mp4 --out out/ --no-overlay`,"
    " `rov replay dive.mcap --out out/ --diff`, `rov replay pool.mp4 --out out/ --set steering.target=gate_post`"
)
def replay(
    sources: Annotated[list[Path], typer.Argument(help="Dives (.mcap) and videos.")],
    out: Annotated[Path, typer.Option(help="Folder for dive.mcap, report.json, report.html and overlay.mp4.")],
    config: ConfigFile = None,
    setting: Settings = None,
    overlay: Annotated[bool, typer.Option(help="Draw overlay.mp4, too.")] = True,
    diff: Annotated[
        bool, typer.Option("--diff", help="Compare with what a dive recorded; exit 1 on a difference.")
    ] = False,
) -> None:
    """Run every stage over recordings, on recorded time. Several sources get a folder each below OUT."""
    from rov.media.files import shown
    from rov.offline.source import open_source

    settings = configuration(config, setting)
    if len({source.stem for source in sources}) < len(sources):
        raise UserError("two sources have the same name; replay them one by one into folders of their own")
    opened = [open_source(source) for source in sources]
    for source in opened:
        if diff and source.path.suffix != ".mcap":
            raise UserError(f"{source.path}: a video holds nothing to compare with; --diff wants a dive (.mcap)")

    from rov.offline.replay import replay as run  # torch takes seconds: what cannot be opened is told before
    from rov.offline.report import write

    detector, curve = common.detector(settings), common.curve(settings)
    different, faults = False, []
    for source in opened:
        folder = out if len(opened) == 1 else out / source.path.stem
        with common.progress() as bar:
            task = bar.add_task(shown(source.path.name), total=source.expected or None)
            result = run(
                source,
                settings,
                detector,
                curve,
                folder,
                overlay=overlay,
                diff=diff,
                progress=partial(bar.advance, task),
            )
        report = write(result, folder)
        for sentence in report["skipped"]:
            print(f"note: {shown(source.path)}: {sentence}", file=sys.stderr)
        found = ", ".join(f"{n} {label}" for label, n in report["detections"].items()) or "no objects"
        print(
            f"{shown(source.path.name)}: {report['processed']} of {report['frames']} frames in {report['wall_s']:.1f} s"
            f" ({report['fps']:.0f} frames/s, {report['realtime_factor']:.1f} × real time); {found};"
            f" see {folder}/report.html"
        )
        if result.differences is not None:
            different |= _print_differences(result.differences)
        if result.fault:
            faults.append(f"{result.fault}; {shown(folder)} holds what was made of it")
        if result.interrupted:
            print(f"interrupted; {folder} holds what was done so far", file=sys.stderr)
            raise typer.Exit(130)
    if faults:
        raise UserError("\n".join(faults))
    if different:
        raise typer.Exit(1)


@app.command(
    epilog="Examples: `rov detect reef.jpg --out dets.json`, `rov detect photos/ dive.mp4 --batch 8 --out d.json`"
)
def detect(
    paths: Annotated[list[Path], typer.Argument(help="Images, folders of them, videos.")],
    out: Annotated[Path, typer.Option(help="COCO JSON to write.")],
    batch: Annotated[int | None, typer.Option(min=1, max=256, help="Pictures per network call.")] = None,
    preview: Annotated[Path | None, typer.Option(help="Folder for pictures with the boxes drawn.")] = None,
    config: ConfigFile = None,
    setting: Settings = None,
) -> None:
    """Recognise objects in images, folders and videos."""
    from rov.media.files import write_text
    from rov.vision.batch import Stills, detect_all

    settings = configuration(config, setting)
    stills = Stills(paths)
    detector = common.detector(settings, batch)
    with common.progress() as bar:
        task = bar.add_task("detecting", total=stills.total or None)
        answer = detect_all(stills, detector, settings.perception.score_min, preview, lambda: bar.advance(task))
    for sentence in answer["skipped"]:
        print(f"note: skipped: {sentence}", file=sys.stderr)
    if not answer["images"]:
        raise UserError("none of the pictures could be read")
    write_text(out, json.dumps(answer) + "\n")
    print(f"{len(answer['annotations'])} objects in {len(answer['images'])} pictures: {out}")
    if fault := answer.get("fault"):
        raise UserError(f"{fault}; {out} holds what was found")


@app.command(epilog="Examples: `rov bench dive.mp4`, `rov bench dive.mp4 --rounds 5 --json bench.json`")
def bench(
    video: Annotated[Path, typer.Argument(help="The video to run on.")],
    frames: Annotated[int, typer.Option(min=8, help="Frames per round.")] = 300,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 3,
    out: Annotated[Path | None, typer.Option("--json", help="Write the figures there.")] = None,
    config: ConfigFile = None,
    setting: Settings = None,
) -> None:
    """Measure the pipeline against the bare network and the bare decoder, in the same run."""
    from rov.media.files import write_text
    from rov.offline.bench import bench as run

    settings = configuration(config, setting)
    figures = run(
        video,
        settings,
        common.detector(settings),
        common.curve(settings),
        frames,
        rounds,
        lambda text: console.print(text),
    )
    speed = Table(
        "part", "fps", "pipeline's fps over it", title=f"{video.name}, {figures['frames']} frames, median of {rounds}"
    )
    for name, fps in figures["fps"].items():
        speed.add_row(name, f"{fps}", f"{figures['pipeline_over'].get(name, '')}")
    stages = Table("stage", "p50 ms", "p95 ms", "p99 ms")
    for name, ms in figures["stages_ms"].items():
        stages.add_row(name, *(f"{value}" for value in ms.values()))
    Console().print(speed, stages, f"pipeline {figures['realtime_factor']} × real time, on {figures['device']}")
    if out:
        write_text(out, json.dumps(figures, indent=2) + "\n")


@app.command(epilog="Examples: `rov doctor`, `rov doctor --dive` (with the daemon running)")
def doctor(
    config: ConfigFile = None,
    setting: Settings = None,
    dive: Annotated[
        bool, typer.Option("--dive", help="The check list before a dive; exit 1 when not to dive.")
    ] = False,
) -> None:
    """Say what this machine has and lacks, and what to do. Exit 1 when replay could not run."""
    from rov.machine.doctor import examine
    from rov.machine.predive import check

    settings = configuration(config, setting)
    own = config or (Path("rover.toml") if Path("rover.toml").is_file() else None)

    table = Table("", "what", "found", "what to do")
    marks = {"ok": "[green]✓[/]", "slow": "[yellow]~[/]", "missing": "[red]✗[/]"}
    broken = False
    for finding in check(settings, own) if dive else examine(settings):
        table.add_row(marks[finding.state], finding.what, finding.found, finding.do)
        broken |= finding.state == "missing" and finding.needed
    Console().print(table)
    if broken:
        raise typer.Exit(1)


VERDICTS = {"same": "[green]same[/]", "differs": "[red]differs[/] {}", "not compared": "[yellow]not compared[/]"}


def _print_differences(differences: list[Any]) -> bool:
    table = Table("topic", "compared", "differing", "worst", "tolerance", "", title="against what was recorded")
    for row in differences:
        verdict = VERDICTS[row.verdict].format(row.first)
        table.add_row(row.topic, str(row.compared), str(row.differing), f"{row.worst:.3g}", row.tolerance, verdict)
    Console().print(table)
    verdicts = {row.verdict for row in differences}
    return "differs" in verdicts or verdicts == {"not compared"}
