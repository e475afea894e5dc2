"""`rov import`: dives that others recorded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rov.cli import common
from rov.errors import UserError

app = typer.Typer()


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
        str, typer.Option(help="auto, or how many seconds after the log's first attitude the video begins.")
    ] = "auto",
    plot: Annotated[Path | None, typer.Option(help="Where to draw how they were aligned; OUT.png by default.")] = None,
    quality: Annotated[int, typer.Option(min=30, max=100, help="JPEG quality, where packets cannot be copied.")] = 90,
    force: Annotated[bool, typer.Option("--force", help="Replace the dive if it is there.")] = False,
) -> None:
    """Make one dive of a video and an autopilot's log: pictures, state, the pilot's commands. Where the video belongs
    in the log is found from its motion."""
    from rov.imports import align, dive, logs
    from rov.media.files import shown
    from rov.media.films import Video

    path = tlog or binary
    if path is None or (tlog and binary):
        raise UserError("name the log: either --tlog FILE or --bin FILE")
    if binary and binary.suffix.lower() != ".bin":
        raise UserError(f"{binary}: --bin wants ArduSub's own log, *.BIN")
    if tlog and tlog.suffix.lower() == ".bin":
        raise UserError(f"{tlog}: this is ArduSub's own log; name it with --bin")
    if offset != "auto":
        try:
            float(offset)
        except ValueError:
            raise UserError(f"--offset {offset}: must be auto or seconds, as 12.5") from None
    if out.exists() and not force:
        raise UserError(f"{out}: is there already; --force replaces it")
    film = Video(video) if video else None
    with common.progress() as bar:
        task = bar.add_task(shown(path.name), total=100)
        log = logs.read(path, lambda share: bar.update(task, completed=100 * share))
    seconds = 0.0
    metadata = {"source": shown((video or path).name), "log": shown(path.name)}
    if film is not None and offset == "auto":
        with common.progress() as bar:
            task = bar.add_task("following the picture", total=film.expected or None)
            seen = align.motion(film.shots(), lambda: bar.advance(task))
        found = align.align(seen, log.states)
        seconds = found.offset_s
        picture = plot or out.with_suffix(".png")
        align.plot(seen, log.states, found, picture)
        metadata["offset_confidence"] = f"{found.confidence:.2f}"
        print(
            f"offset {seconds:.2f} s (confidence {found.confidence:.2f}, yaw correlation {found.correlation:.2f});"
            f" see {picture}"
        )
    elif film is not None:
        seconds = float(offset)
    if film is not None:
        metadata["offset_s"] = f"{seconds:.3f}"
    notes: list[str] = []
    with common.progress() as bar:
        task = bar.add_task(shown(out.name), total=film.expected or None if film else None)
        done = dive.write(
            out, log, video, seconds, metadata,
            quality=quality, overwrite=force, progress=lambda: bar.advance(task), note=notes.append,
        )  # fmt: skip
    how = (
        f"copied as {done.copied}"
        if done.copied
        else "as JPEG (its packets are no H.264 or HEVC, or not as they are shown)"
    )
    pictures = f"{done.pictures} pictures {how}, " if video else ""
    print(f"{shown(out)}: {pictures}{done.states} states, {done.commands} commands")
    for note in notes:
        print(f"note: {shown(video or '')}: {note}", file=sys.stderr)
    for why, number in sorted(log.dropped.items()):
        print(f"dropped {number}: {why}")
    for note in log.notes:
        print(f"note: {note}")
