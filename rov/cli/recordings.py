"""Commands on recordings (replay, detect, bench) and on this machine (doctor)."""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from rov.cli import common
from rov.cli.common import ConfigFile, Settings, configuration, console, own_file
from rov.config.schema import Config, ConfigError, override
from rov.errors import UserError
from rov.printing import print_line, printable
from rov.terminal import PlainConsole
from rov.validate import target_problems

if TYPE_CHECKING:
    from rov.offline.replay import ReplayResult
    from rov.offline.source import Recording

app = typer.Typer()

Camera = Annotated[str | None, typer.Option(help="Topic of the camera to use, where a dive (.mcap) has several.")]


@app.command(
    epilog="Examples: `rov replay dive.mcap --out out/`, `rov replay *.mp4 --out out/ --no-overlay`,"
    " `rov replay dive.mcap --out out/ --diff`, `rov replay pool.mp4 --out out/ --set steering.target=gate_post`"
)
def replay(
    sources: Annotated[list[Path], typer.Argument(help="Dives (.mcap, also of other tools) and videos.")],
    out: Annotated[Path, typer.Option(help="Folder for dive.mcap, report.json, report.html and overlay.mp4.")],
    config: ConfigFile = None,
    setting: Settings = None,
    overlay: Annotated[bool, typer.Option(help="Also draw overlay.mp4.")] = True,
    diff: Annotated[
        bool, typer.Option("--diff", help="Compare with the recorded outputs; exit 1 on a difference.")
    ] = False,
    camera: Camera = None,
) -> None:
    """Run every stage over recordings, on recorded time. Several sources get one folder each below OUT. A dive is
    replayed with the configuration of its recording, unless another is named."""
    from rov.offline.source import open_recording

    settings = configuration(config)
    if len({source.stem for source in sources}) < len(sources):
        raise UserError("two sources have the same name; replay them one by one into folders of their own")
    opened = [open_recording(source, camera) for source in sources]
    for source in opened:
        for note in source.notes:
            print_line(f"note: {source.path}: {note}", error=True)
        if diff and source.path.suffix != ".mcap":
            raise UserError(f"{source.path}: a video holds nothing to compare with; --diff needs a dive (.mcap)")
    different, faults = False, []
    with TemporaryDirectory(prefix="rov-") as folder, ExitStack() as stack:
        for source in opened:
            stack.callback(source.close)
        chosen = [
            _as_recorded(source, settings, setting or [], Path(mkdtemp(dir=folder)), named=config is not None)
            for source in opened
        ]
        for source, own in zip(opened, chosen, strict=True):
            into = out if len(opened) == 1 else out / source.path.stem
            result = _replay(source, own, into, overlay, diff)
            different |= result.differences is not None and _print_differences(result.differences)
            if result.fault:
                faults.append(f"{result.fault}; {into} holds the results")
            if result.interrupted:
                print_line(f"interrupted; {into} holds the results so far", error=True)
                raise typer.Exit(130)
    if faults:
        raise UserError("\n".join(faults))
    if different:
        raise typer.Exit(1)


def _as_recorded(source: Recording, here: Config, setting: list[str], folder: Path, *, named: bool) -> Config:
    """The configuration for a source: the recorded one, or `here` if that was `named` or the source holds none. Prints
    notes on differences; files that the source holds (calibration) are written into `folder`. Raises ConfigError."""
    if source.dive is None:
        config = override(here, setting)
        if wrong := target_problems(config):
            raise ConfigError(wrong)
        return config
    from rov.dives.origin import DiveOrigin, differences

    origin = DiveOrigin(source.dive, here, folder)
    config = override(here if named or origin.config is None else origin.config, setting)
    taken = "replayed with the configuration of its recording" if origin.whole and not named else ""
    for note in (taken, *origin.notes, differences(config, origin)):
        if note:
            print_line(f"note: {source.path}: {note}", error=True)
    if wrong := target_problems(config):
        raise ConfigError(wrong)
    return config


def _replay(source: Recording, config: Config, folder: Path, overlay: bool, diff: bool) -> ReplayResult:
    """Replay one source into `folder` and print a summary."""
    from rov.dives.origin import weights_note
    from rov.offline.replay import replay as run  # imports torch, which takes seconds: bad sources were reported before
    from rov.offline.report import write

    detector = common.detector(config)
    if source.dive and (note := weights_note(source.dive, detector.card.weights_sha256)):
        print_line(f"note: {source.path}: {note}", error=True)
    steered = source.dive is not None and "policy_input" in source.dive.readable
    policy = common.policy(config, wanted=steered or config.task.name != "none")
    with common.progress() as bar:
        step = partial(bar.advance, bar.add_task(printable(source.path.name), total=source.expected or None))
        result = run(
            source, config, detector, common.curve(config), folder, overlay=overlay, diff=diff, policy=policy,
            progress=step,
        )  # fmt: skip
    report = write(result, folder)
    for sentence in report["skipped"]:
        print_line(f"note: {source.path}: {sentence}", error=True)
    found = ", ".join(f"{n} {label}" for label, n in report["detections"].items()) or "no objects"
    print_line(
        f"{source.path.name}: {report['processed']} of {report['frames']} frames in {report['wall_s']:.1f} s"
        f" ({report['fps']:.0f} frames/s, {report['realtime_factor']:.1f} × real time); {found};"
        f" see {folder}/report.html"
    )
    return result


@app.command(
    epilog="Examples: `rov detect reef.jpg --out dets.json`, `rov detect photos/ dive.mp4 --batch 8 --out d.json`,"
    " `rov detect reef.jpg --score-min 0.2 --top 10 --out d.json`"
)
def detect(
    paths: Annotated[list[Path], typer.Argument(help="Images, folders of them, videos, dives (.mcap).")],
    out: Annotated[Path, typer.Option(help="COCO JSON to write.")],
    batch: Annotated[int | None, typer.Option(min=1, max=256, help="Pictures per network call.")] = None,
    preview: Annotated[Path | None, typer.Option(help="Folder for pictures with the boxes drawn.")] = None,
    score_min: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least score; without it, as perception.score_min says.")
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="At most so many objects of each picture, the best.")] = None,
    config: ConfigFile = None,
    setting: Settings = None,
    camera: Camera = None,
) -> None:
    """Recognise objects in images, folders, videos and dives."""
    from rov.media.files import write_text
    from rov.offline.detect import PictureSource, detect_all

    settings = configuration(config, setting)
    stills = PictureSource(paths, camera)
    detector = common.detector(settings, batch)
    with common.progress() as bar:
        task = bar.add_task("detecting", total=stills.total or None)
        least = settings.perception.score_min if score_min is None else score_min
        answer = detect_all(stills, detector, least, preview, lambda: bar.advance(task), top)
    for sentence in answer["skipped"]:
        print_line(f"note: skipped: {sentence}", error=True)
    if not answer["images"]:
        raise UserError("none of the pictures could be read")
    write_text(out, json.dumps(answer) + "\n")
    print_line(f"{len(answer['annotations'])} objects in {len(answer['images'])} pictures: {out}")
    if fault := answer.get("fault"):
        raise UserError(f"{fault}; {out} holds what was found")


@app.command(epilog="Examples: `rov bench dive.mp4`, `rov bench dive.mp4 --rounds 5 --json bench.json`")
def bench(
    video: Annotated[Path, typer.Argument(help="The video to run on.")],
    frames: Annotated[int, typer.Option(min=8, help="Frames per round.")] = 300,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 3,
    out: Annotated[Path | None, typer.Option("--json", help="File for the figures, for programs.")] = None,
    config: ConfigFile = None,
    setting: Settings = None,
) -> None:
    """Measure the pipeline against the bare network and the bare decoder, in the same run."""
    from rov.media.files import write_text
    from rov.offline.bench import bench as run

    settings = configuration(config, setting, steers=True)
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
    PlainConsole().print(speed, stages, f"pipeline {figures['realtime_factor']} × real time, on {figures['device']}")
    if out:
        write_text(out, json.dumps(figures, indent=2) + "\n")


@app.command(epilog="Examples: `rov doctor`, `rov doctor --dive` (with the daemon running)")
def doctor(
    config: ConfigFile = None,
    setting: Settings = None,
    dive: Annotated[
        bool, typer.Option("--dive", help="The check list before a dive; exit 1 when something must be fixed first.")
    ] = False,
) -> None:
    """Report what this machine has and lacks, and what to do. Exit 1 when replay could not run."""
    from rov.host.doctor import examine
    from rov.host.predive import check

    settings = configuration(config, setting)
    own = config or own_file()

    table = Table("", "what", "found", "what to do")
    marks = {"ok": Text("✓", "green"), "slow": Text("~", "yellow"), "missing": Text("✗", "red")}
    broken = False
    for finding in check(settings, own) if dive else examine(settings):
        table.add_row(marks[finding.state], finding.what, finding.found, finding.do)
        broken |= finding.state == "missing" and finding.needed
    PlainConsole().print(table)
    if broken:
        raise typer.Exit(1)


VERDICTS = {"same": "green", "differs": "red", "not compared": "yellow"}


def _print_differences(differences: list[Any]) -> bool:
    """Print a row per topic. True when something differs, or nothing could be compared."""
    table = Table("topic", "compared", "differing", "worst", "tolerance", "", title="against what was recorded")
    for row in differences:
        first = f" {printable(row.first)}" if row.verdict == "differs" else ""
        verdict = Text.assemble((row.verdict, VERDICTS[row.verdict]), first)
        table.add_row(row.topic, str(row.compared), str(row.differing), f"{row.worst:.3g}", row.tolerance, verdict)
    PlainConsole().print(table)
    verdicts = {row.verdict for row in differences}
    return "differs" in verdicts or verdicts == {"not compared"}
