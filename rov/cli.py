"""The command line: each command is a few lines around a module. What a user can put right is one sentence, exit 2."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rov import __version__
from rov.assets import find
from rov.config import Config, ConfigError, load, override, schema
from rov.errors import UserError

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # its complaints about broken files; ours say more
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Perception and autopilot daemon of an underwater rover.",
)
config_app = typer.Typer(no_args_is_help=True, help="Check, show and describe `rover.toml`.")
dive_app = typer.Typer(no_args_is_help=True, help="Look into recorded dives, mend, cut and mark them.")
app.add_typer(config_app, name="config")
app.add_typer(dive_app, name="dive")

console = Console(stderr=True)

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration; without it `rover.toml` here, else the default one."),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Change one key for this run, as `--set steering.target=bottle`.")
]


def main() -> NoReturn:
    """Run a command; exit code 2 for what the user can put right, 130 for Ctrl-C."""
    try:
        app()
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `rov … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(0)


def configuration(path: Path | None, settings: list[str] | None = None) -> Config:
    """The configuration a command runs with."""
    local = Path("rover.toml")
    chosen = path or (local if local.is_file() else find("rover.toml"))
    return override(load(chosen), settings or [])


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


# ---- replay, detect, bench, doctor -----------------------------------------------------------------------------


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
    from rov.offline.replay import replay as run
    from rov.offline.report import write
    from rov.offline.source import open_source

    settings = configuration(config, setting)
    if len({source.stem for source in sources}) < len(sources):
        raise UserError("two sources have the same name; replay them one by one into folders of their own")
    opened = [open_source(source) for source in sources]
    for source in opened:
        if diff and source.path.suffix != ".mcap":
            raise UserError(f"{source.path}: a video holds nothing to compare with; --diff wants a dive (.mcap)")
    detector, curve = _detector(settings), _curve(settings)
    different = False
    for source in opened:
        folder = out if len(opened) == 1 else out / source.path.stem
        with _progress() as bar:
            task = bar.add_task(source.path.name, total=source.frames or None)
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
            print(f"note: {source.path}: {sentence}", file=sys.stderr)
        found = ", ".join(f"{n} {label}" for label, n in report["detections"].items()) or "no objects"
        print(
            f"{source.path.name}: {report['processed']} of {report['frames']} frames in {report['wall_s']:.1f} s"
            f" ({report['fps']:.0f} frames/s, {report['realtime_factor']:.1f} × real time); {found};"
            f" see {folder}/report.html"
        )
        if result.differences is not None:
            different |= _print_differences(result.differences)
        if result.interrupted:
            print(f"interrupted; {folder} holds what was done so far", file=sys.stderr)
            raise typer.Exit(130)
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
    from rov.vision.batch import Stills, detect_all

    settings = configuration(config, setting)
    stills = Stills(paths)
    detector = _detector(settings, batch)
    with _progress() as bar:
        task = bar.add_task("detecting", total=stills.total or None)
        answer = detect_all(stills, detector, settings.perception.score_min, preview, lambda: bar.advance(task))
    for sentence in answer["skipped"]:
        print(f"note: skipped: {sentence}", file=sys.stderr)
    if not answer["images"]:
        raise UserError("none of the pictures could be read")
    try:
        out.write_text(json.dumps(answer) + "\n")
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from None
    print(f"{len(answer['annotations'])} objects in {len(answer['images'])} pictures: {out}")


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
    from rov.offline.bench import bench as run

    settings = configuration(config, setting)
    figures = run(
        video, settings, _detector(settings), _curve(settings), frames, rounds, lambda text: console.print(text)
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
        out.write_text(json.dumps(figures, indent=2) + "\n")


@app.command(epilog="Example: `rov doctor`")
def doctor(config: ConfigFile = None, setting: Settings = None) -> None:
    """Say what this machine has and lacks, and what to do. Exit 1 when replay could not run."""
    from rov.doctor import examine

    table = Table("", "what", "found", "what to do")
    marks = {"ok": "[green]✓[/]", "slow": "[yellow]~[/]", "missing": "[red]✗[/]"}
    broken = False
    for finding in examine(configuration(config, setting)):
        table.add_row(marks[finding.state], finding.what, finding.found, finding.do)
        broken |= finding.state == "missing" and finding.needed
    Console().print(table)
    if broken:
        raise typer.Exit(1)


# ---- live ------------------------------------------------------------------------------------------------------


@app.command(epilog="Examples: `rov run rover.toml`, `rov run` (with `rover.toml` here)")
def run(path: Annotated[Path, typer.Argument(help="The configuration.")] = Path("rover.toml")) -> None:
    """Run the daemon: camera, perception, pilot and recorder. Ctrl-C stops it, neutral and disarmed."""
    from rov.supervisor import run as supervise

    raise typer.Exit(supervise(path, load(path), lambda text: console.print(text, highlight=False)))


@app.command(epilog="Examples: `rov listen`, `rov listen events pilot`")
def listen(
    topics: Annotated[list[str] | None, typer.Argument(help="Topics; without any, all.")] = None,
    config: ConfigFile = None,
) -> None:
    """Print what the daemon says, with the age of each message."""
    import time

    import msgspec

    from rov.bus import listen as hear
    from rov.messages import TOPICS

    for topic in topics or []:
        if topic not in TOPICS:
            raise UserError(f"{topic}: no such topic; there are {', '.join(TOPICS)}")
    reader = hear(configuration(config).bus.public, topics or [])
    try:
        while True:
            reader.wait(1000)
            for entry in reader.read():
                age = (time.monotonic_ns() - entry.message.t) / 1e6
                print(f"{entry.topic:12} {age:7.1f} ms  {msgspec.json.encode(entry.message).decode()}", flush=True)
    finally:
        reader.close()


@app.command(epilog="Examples: `rov ctl stop`, `rov ctl arm`, `rov ctl mode hold`, `rov ctl target gate_post`")
def ctl(
    verb: Annotated[str, typer.Argument(help="arm, disarm, stop, mode or target.")],
    what: Annotated[str, typer.Argument(help="The mode, or the class to follow.")] = "",
    config: ConfigFile = None,
) -> None:
    """Send one command. Anyone may stop; for all else this becomes the operator first, for as long as it takes:
    what must go on needs a program that keeps its heartbeat."""
    from rov.operator import order

    print(order(configuration(config).bus.commands, verb, what))


# ---- config ----------------------------------------------------------------------------------------------------


@config_app.command("check", epilog="Example: `rov config check rover.toml`")
def config_check(path: Annotated[Path, typer.Argument(help="The file.")] = Path("rover.toml")) -> None:
    """Report everything that is wrong with a configuration, at once."""
    load(path)
    print(f"{path}: good")


@config_app.command("show", epilog="Example: `rov config show > rover.toml`")
def config_show(
    path: Annotated[Path | None, typer.Argument(help="The file; without it the annotated default is printed.")] = None,
) -> None:
    """Print a configuration with every default filled in; without a file, the annotated default one."""
    if path is None:
        print(find("rover.toml").read_text(), end="")
        return
    import tomli_w

    print(tomli_w.dumps(load(path).model_dump()), end="")


@config_app.command("schema", epilog="Example: `rov config schema > rover.schema.json`")
def config_schema() -> None:
    """Print the JSON Schema of the file, for editors."""
    print(json.dumps(schema(), indent=2))


# ---- dive ------------------------------------------------------------------------------------------------------

DiveFile = Annotated[Path, typer.Argument(help="A dive (.mcap).")]
OutFile = Annotated[Path, typer.Option(help="The dive to write.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")]


@dive_app.command("info", epilog="Example: `rov dive info dive.mcap`")
def dive_info(path: DiveFile, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Say what a dive holds, whether it is whole, and what to do if not."""
    import msgspec

    from rov.dives.recovery import info

    found = info(path)
    if as_json:
        print(msgspec.json.encode(found).decode())
        return
    table = Table(
        "topic", "messages", "Hz", "sha256", title=f"{path.name}: {found.duration_s:.1f} s, {found.size_bytes} B"
    )
    for name, topic in found.topics.items():
        table.add_row(name, str(topic.count), f"{topic.rate_hz:.2f}", topic.sha256[:16])
    Console().print(table)
    for key, value in found.metadata.items():
        print(f"{key}: {value}")
    if found.mark:
        print(f"marked {found.mark.marked:%Y-%m-%d}: {found.mark.note or '(no note)'}")
    for problem in found.problems:
        print(f"problem: {problem}")
    if found.advice:
        print(found.advice)


@dive_app.command(
    "recover", epilog="Examples: `rov dive recover dive.mcap`, `rov dive recover dive.mcap --out whole.mcap`"
)
def dive_recover(
    path: DiveFile,
    out: Annotated[Path | None, typer.Option(help="Where to; without it the dive itself is mended.")] = None,
    force: Force = False,
) -> None:
    """Save every intact message of a cut-off or damaged dive; the result is checked before it replaces anything."""
    from rov.dives.recovery import recover

    report = recover(path, out, overwrite=force)
    kept = sum(topic.count for topic in report.topics.values())
    did = (
        f"kept {kept} messages in {report.path}, lost {report.lost_bytes} bytes"
        if report.changed
        else "was whole already"
    )
    print(f"{path}: {did}")
    for problem in report.problems:
        print(f"problem: {problem}")


@dive_app.command("cut", epilog="Example: `rov dive cut dive.mcap --start 12.5 --end 40 --out part.mcap`")
def dive_cut(
    path: DiveFile,
    start: Annotated[float, typer.Option(min=0, help="Seconds from the start.")],
    end: Annotated[float, typer.Option(min=0, help="Seconds from the start.")],
    out: OutFile,
    force: Force = False,
) -> None:
    """Copy a stretch of a dive."""
    from rov.dives.recovery import cut

    topics = cut(path, out, start, end, overwrite=force)
    print(f"{out}: {sum(topic.count for topic in topics.values())} messages")


@dive_app.command(
    "mark", epilog="Examples: `rov dive mark dive.mcap --note 'the big grouper'`, `rov dive mark dive.mcap --off`"
)
def dive_mark(
    path: DiveFile,
    note: Annotated[str, typer.Option(help="Why.")] = "",
    off: Annotated[bool, typer.Option("--off", help="Take the mark away.")] = False,
) -> None:
    """Mark a dive, so that it is never deleted to make room."""
    from rov.dives.recovery import mark, unmark

    if off:
        unmark(path)
        print(f"{path}: no longer marked")
    else:
        mark(path, note)
        print(f"{path}: marked; it is kept until the mark is taken away")


# ---- shared ----------------------------------------------------------------------------------------------------


def _detector(config: Config, batch: int | None = None) -> Any:
    import torch

    from rov.vision.detector import Detector

    torch.set_num_threads(config.perception.threads)
    perception = config.perception
    weights = find(perception.weights)
    return Detector(weights, perception.device, perception.precision, batch or perception.batch)


def _curve(config: Config) -> Any:
    from rov.motion.thrusters import load as load_curve

    return load_curve(find(config.vehicle.thrusters), config.vehicle.battery_cells)


def _progress() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True)


def _print_differences(differences: list[Any]) -> bool:
    table = Table("topic", "compared", "differing", "worst", "tolerance", "", title="against what was recorded")
    for row in differences:
        verdict = "[green]same[/]" if row.same else f"[red]differs[/] {row.first}"
        table.add_row(row.topic, str(row.compared), str(row.differing), f"{row.worst:.3g}", row.tolerance, verdict)
    Console().print(table)
    return not all(row.same for row in differences)


__all__ = ["ConfigError", "app", "main"]
