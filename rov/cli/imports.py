"""`rov import`: makes a dive of another vehicle's video and log."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rov.cli import common
from rov.errors import UserError
from rov.extras import explained
from rov.media.files import shown
from rov.printing import print_line

if TYPE_CHECKING:
    from rov.imports.dive import ImportedDive
    from rov.imports.logs import Log
    from rov.media.films import Video

app = typer.Typer()

COUNTED = {
    "vehicle": "states",
    "commands": "commands",
    "events": "events",
    "thrusters": "thruster outputs",
    "clock": "times of day",
}
PLOT_FORMATS = {".png", ".svg", ".pdf", ".jpg", ".jpeg"}


@app.command(
    "import",
    epilog="Examples: `rov import dive.mp4 --tlog dive.tlog --out dive.mcap`,"
    " `rov import dive.mp4 --bin 42.BIN --offset 12.5 --out dive.mcap`, `rov import --tlog dive.tlog --out dive.mcap`",
)
def import_dive(
    out: Annotated[Path, typer.Option(help="The dive (.mcap) to write.")],
    video: Annotated[Path | None, typer.Argument(help="The recorded video; without it, the log alone.")] = None,
    tlog: Annotated[Path | None, typer.Option(help="The ground station's log (QGroundControl, Cockpit).")] = None,
    binary: Annotated[Path | None, typer.Option("--bin", help="ArduSub's own log.")] = None,
    offset: Annotated[
        str, typer.Option(help="auto, or the seconds from the log's first attitude to the start of the video.")
    ] = "auto",
    plot: Annotated[Path | None, typer.Option(help="Plot of the alignment; OUT.png by default.")] = None,
    quality: Annotated[int, typer.Option(min=30, max=100, help="JPEG quality, where packets cannot be copied.")] = 90,
    system: Annotated[int | None, typer.Option(min=1, max=255, help="Which MAVLink system of a .tlog to take.")] = None,
    surface_pa: Annotated[
        float | None,
        typer.Option(min=50_000, max=120_000, help="Air pressure at the surface, Pa; else taken from the log."),
    ] = None,
    density: Annotated[
        float | None, typer.Option(min=950, max=1080, help="Density of the water, kg/m³; else taken from the log.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the dive if it is there.")] = False,
) -> None:
    """Make one dive of a video and an autopilot's log: pictures, vehicle state, the pilot's commands. The time offset
    of the video in the log is found from its motion."""
    from rov.imports import dive, logs
    from rov.media.films import Video

    path = _log(tlog, binary)
    if binary and system is not None:
        raise UserError("--system chooses among the vehicles of a .tlog; a .BIN has one")
    seconds = None if offset == "auto" else _seconds(offset)
    picture = plot or out.with_suffix(".png")
    _apart(out, picture, video, path)
    dive.must_be_free(out, force)
    film = Video(video) if video else None
    with common.progress() as bar:
        task = bar.add_task(shown(path.name), total=100)
        log = logs.read(
            path, lambda share: bar.update(task, completed=100 * share),
            system=system, surface_pa=surface_pa, density=density,
        )  # fmt: skip
    metadata = {"source": shown((video or path).name), "log": shown(path.name)}
    if film is not None and seconds is None:
        seconds, metadata["offset_confidence"] = _align(film, log, picture)
    if film is not None:
        metadata["offset_s"] = f"{seconds or 0.0:.3f}"
    with common.progress() as bar:
        task = bar.add_task(shown(out.name), total=film.expected or None if film else None)
        done = dive.write(
            out, log, video, seconds or 0.0, metadata,
            quality=quality, overwrite=force, progress=lambda: bar.advance(task),
        )  # fmt: skip
    _report(out, video, log, done)


def _align(film: Video, log: Log, picture: Path) -> tuple[float, str]:
    """Find the video's offset in the log (s) from its motion, and plot it. Returns it and its confidence as text."""
    from rov.imports import align

    with common.progress() as bar:
        task = bar.add_task("measuring the motion", total=film.expected or None)
        motion = align.motion(film.shots(), lambda: bar.advance(task))
    found = align.align(motion, log.states)
    try:
        align.plot(motion, log.states, found, picture)
        see = f"; see {picture}"
    except ModuleNotFoundError as error:
        see = ""
        common.note(f"no plot of the alignment: {explained(error) or error}")
    print_line(
        f"offset {found.offset_s:.2f} s (confidence {found.confidence:.2f}, yaw correlation {found.correlation:.2f})"
        + see
    )
    return found.offset_s, f"{found.confidence:.2f}"


def _report(out: Path, video: Path | None, log: Log, done: ImportedDive) -> None:
    """Print what the dive holds, and what was left out of it."""
    how = (
        f"copied as {done.copied}"
        if done.copied
        else "as JPEG (its packets are not H.264 or HEVC, or cannot be copied as they are shown)"
    )
    pictures = f"{done.pictures} pictures {how}, " if video else ""
    counted = {COUNTED[topic]: number for topic, number in done.messages.items() if number}
    print_line(f"{out}: {pictures}{', '.join(f'{number} {word}' for word, number in counted.items())}")
    for note in done.notes:
        print_line(f"note: {video}: {note}", error=True)
    for why, number in sorted(log.dropped.items()):
        print_line(f"dropped {number}: {why}")
    for note in log.notes:
        print_line(f"note: {note}")


def _log(tlog: Path | None, binary: Path | None) -> Path:
    """The path of the log that was named. Raises UserError."""
    path = tlog or binary
    if path is None or (tlog and binary):
        raise UserError("name the log: either --tlog FILE or --bin FILE")
    if binary and binary.suffix.lower() != ".bin":
        raise UserError(f"{binary}: --bin wants ArduSub's own log, *.BIN")
    if tlog and tlog.suffix.lower() == ".bin":
        raise UserError(f"{tlog}: this is ArduSub's own log; name it with --bin")
    return path


def _seconds(offset: str) -> float:
    try:
        seconds = float(offset)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise UserError(f"--offset {offset}: must be auto or seconds, as 12.5")
    return seconds


def _apart(out: Path, picture: Path, video: Path | None, log: Path) -> None:
    """Raises UserError when an output would replace an input, or the plot cannot be written."""
    for source in (video, log):
        for target in (out, picture):
            if source and source.exists() and target.exists() and target.samefile(source):
                raise UserError(f"{target}: is an input of the import; choose another name for --out or --plot")
    if picture.suffix.lower() not in PLOT_FORMATS:
        raise UserError(f"{picture}: --plot writes {', '.join(sorted(PLOT_FORMATS))}")
    if not picture.parent.is_dir():
        raise UserError(f"{picture}: there is no folder {picture.parent}")
