"""`rov calibrate`: measures this vehicle's camera, port, white balance and thrusters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from rov.cli import common
from rov.cli.common import ConfigFile, configuration, console
from rov.errors import UserError
from rov.printing import print_line
from rov.terminal import PlainConsole

app = typer.Typer(no_args_is_help=True, help="Measure this vehicle: camera, port, colours, thrusters.")

VIDEO_SAMPLES_HZ = 3.0
"""In how many pictures per second of a video the board is searched."""


@app.command(
    "camera",
    epilog="Examples: `rov calibrate camera boards/ --board chessboard:8x6 --out calibration/camera.yaml`,"
    " `rov calibrate camera pool.mp4 --board charuco:11x8:5X5_100 --square 30 --out camera.yaml`,"
    " `rov calibrate camera /dev/video0 --board chessboard:9x6 --model fisheye --out camera.yaml`",
)
def camera(
    source: Annotated[str, typer.Argument(help="A folder of pictures, a video, or a live camera (0, rtp://:5600, …).")],
    board: Annotated[str, typer.Option(help="chessboard:8x6 (inner corners) or charuco:11x8[:5X5_100] (squares).")],
    out: Annotated[Path, typer.Option(help="ROS camera_info YAML to write.")],
    square: Annotated[float, typer.Option(min=0.1, help="Side of a square, mm. Affects distances only.")] = 25.0,
    model: Annotated[str, typer.Option(help="pinhole, fisheye or auto.")] = "pinhole",
) -> None:
    """Find a camera's focal length and distortion from views of a flat board, in air or in water. Behind a dome port a
    calibration in air also holds in water; behind a flat port, continue with `rov calibrate port`."""
    from rov.calibrate import camera as calibrate
    from rov.optics import lens

    if model not in ("pinhole", "fisheye", "auto"):
        raise UserError(f"--model {model}: must be pinhole, fisheye or auto")
    search = calibrate.BoardSearch(calibrate.parse_board(board, square))
    views, rejected = _views(source, search)
    kind: Any = model
    with common.progress() as bar:
        task = bar.add_task("fitting", total=None)
        found = calibrate.fit(views, rejected, kind, out.stem, lambda: bar.advance(task), search.hint)
    c = found.calibration
    print_line(f"rms: {found.rms:.3f} px over {len(found.views)} boards ({c.model}, {c.width}×{c.height})")
    print_line(f"fx {c.matrix[0, 0]:.1f}  fy {c.matrix[1, 1]:.1f}  cx {c.matrix[0, 2]:.1f}  cy {c.matrix[1, 2]:.1f} px;"
          f" {c.hfov_deg:.1f}° across, {lens.Lens(c).hfov_deg:.1f}° in the straight picture")  # fmt: skip
    print_line("distortion " + " ".join(f"{each:.5f}" for each in c.distortion))
    if any(view.older for view in found.views):
        print_line("the board has the pattern that OpenCV drew before 4.6 and calib.io sells; it was used as such")
    for name, why in found.rejected:
        print_line(f"rejected {name}: {why}")
    counts = calibrate.coverage(found.views, (c.width, c.height))
    print_line("corners over the picture (. none, + some, * 10, # 40 and more):")
    print_line(calibrate.coverage_map(counts))
    if empty := int((counts == 0).sum()):
        print_line(f"{empty} of {counts.size} parts of the picture never showed the board: the fit is a guess there")
    if (share := calibrate.valid_share(c)) < 0.99:
        print_line(f"the model does not cover the outer {1 - share:.0%} of the picture; --model fisheye may")
    lens.save(c, out, [f"rms {found.rms:.3f} px over {len(found.views)} boards, {board}"])
    print_line(f"{out}: set camera.calibration to it")


@app.command(
    "port",
    epilog="Example: `rov calibrate port air.yaml --out water.yaml --gap 8 --glass 6`",
)
def port(
    air: Annotated[Path, typer.Argument(help="The calibration in air.")],
    out: Annotated[Path, typer.Option(help="ROS camera_info YAML to write.")],
    gap: Annotated[float, typer.Option(min=0, help="From the lens's pupil to the port's inner face, mm.")] = 10.0,
    glass: Annotated[float, typer.Option(min=0, help="Thickness of the port, mm.")] = 5.0,
    glass_index: Annotated[float, typer.Option(min=1, max=2.5, help="1.49 acrylic, 1.585 polycarbonate.")] = 1.49,
    water_index: Annotated[float, typer.Option(min=1, max=1.5, help="1.333 fresh, 1.339 sea.")] = 1.333,
    distance: Annotated[float, typer.Option(min=0.05, help="Distance at which the model is exact, m.")] = 2.0,
) -> None:
    """Compute the calibration in water, behind a flat port, from the one in air (Snell's law). A dome needs none."""
    from rov.calibrate.port import Port, behind_flat_port
    from rov.optics import lens

    before = lens.load(air)
    flat = Port(gap / 1e3, glass / 1e3, glass_index, water_index, distance)
    found = behind_flat_port(before, flat)
    after = found.calibration
    print_line(
        f"fx {before.matrix[0, 0]:.1f} -> {after.matrix[0, 0]:.1f} px"
        f" (× {after.matrix[0, 0] / before.matrix[0, 0]:.4f}),"
        f" {before.hfov_deg:.1f}° -> {after.hfov_deg:.1f}° across"
    )
    print_line(f"against traced rays: {found.rms:.3f} px RMS, {found.worst:.3f} px at worst")
    lens.save(
        after, out, [f"in water behind a flat port, from {air.name}: {gap:g} mm, {glass:g} mm of n {glass_index:g}"]
    )
    print_line(f"{out}: set camera.calibration to it")


@app.command("straighten", epilog="Example: `rov calibrate straighten camera.yaml reef.jpg boards/ --out straight/`")
def straighten(
    calibration: Annotated[Path, typer.Argument(help="ROS camera_info YAML.")],
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, folders, videos.")],
    out: Annotated[Path, typer.Option(help="Folder for the straight pictures.")],
) -> None:
    """Write pictures as the network sees them, for checking: straight edges of the world are straight in them."""
    from rov.calibrate.straighten import straighten as run
    from rov.optics import lens

    made = lens.Lens(lens.load(calibration))
    with common.progress() as bar:
        task = bar.add_task("straightening", total=None)
        done = run(made, pictures, out, lambda: bar.advance(task))
    for sentence in done.skipped:
        print_line(f"skipped: {sentence}", error=True)
    if not done.written:
        raise UserError("none of the pictures could be straightened")
    print_line(f"{done.written} pictures in {out}")


@app.command(
    "colour",
    epilog="Examples: `rov calibrate colour dive.mcap --out colour.toml`,"
    " `rov calibrate colour slate.jpg --patch 400,300,60,60 --depth 8 --out colour.toml`",
)
def colour(
    source: Annotated[Path, typer.Argument(help="A dive (its depths are used), a video, a picture or a folder.")],
    out: Annotated[Path, typer.Option(help="TOML to write.")],
    patch: Annotated[str, typer.Option(help="x,y,width,height of something grey or white, in pixels.")] = "",
    depth: Annotated[float, typer.Option(min=0, help="Depth in m, if the source holds none.")] = 0.0,
) -> None:
    """Find the white balance by depth: from a grey patch, or from the average colour of the pictures."""
    from rov.calibrate import colour as calibrate
    from rov.media.files import VIDEOS, TimedFrame, shown
    from rov.messages import VehicleState
    from rov.offline.detect import PictureSource
    from rov.offline.source import open_recording

    where = calibrate.parse_patch(patch) if patch else None
    measured = []
    if source.suffix.lower() in VIDEOS | {".mcap"}:
        opened = open_recording(source)
        with common.progress() as bar:
            task = bar.add_task("measuring", total=opened.expected or None)
            for item in opened.items:
                if isinstance(item, TimedFrame):
                    bar.advance(task)
                    if (gains := calibrate.measure(item.image, where)) is not None:
                        measured.append((depth, gains))
                elif isinstance(item.data, VehicleState) and item.data.depth_t is not None:
                    depth = item.data.depth
        common.note(*opened.skipped)
        if fault := opened.fault():
            raise UserError(fault)
    else:
        stills = PictureSource([source])
        found = (calibrate.measure(still.image, where) for still in stills)
        measured = [(depth, gains) for gains in found if gains is not None]
        common.note(*stills.skipped)
    rows = calibrate.rows(measured)
    for row in rows:
        print_line(f"{row.depth_m:6.2f} m: blue × {row.blue:.3f}, green × {row.green:.3f}, red × {row.red:.3f}")
    calibrate.write(
        out, f"{shown(source.name)}, {'grey patch' if where else 'grey on average'}, {len(measured)} pictures", rows
    )
    print_line(f"{out}: set camera.colour to it")


@app.command(
    "thrusters",
    epilog="Examples: `rov calibrate thrusters --points bench.csv --out calibration/thrusters.toml`,"
    " `rov calibrate thrusters --turn`",
)
def thrusters(
    points: Annotated[Path | None, typer.Option(help="CSV: pwm_us,force_n[,voltage_v,current_a].")] = None,
    out: Annotated[Path | None, typer.Option(help="Curve file to write, for vehicle.thrusters.")] = None,
    voltage: Annotated[float, typer.Option(min=1, help="Battery voltage, if the points hold none, V.")] = 16.0,
    turn: Annotated[bool, typer.Option("--turn", help="Turn each one while a key is held; keep fingers away.")] = False,
    config: ConfigFile = None,
) -> None:
    """Fit the thrust curve to measured points, or turn the thrusters one at a time to find order, direction and dead
    band. A thruster turns while a key is held; q ends."""
    if turn == (points is not None):
        raise UserError("give either --points FILE.csv with --out, or --turn")
    if turn:
        from rov.calibrate.turning import turn_all

        sentences = turn_all(configuration(config), lambda text: console.print(text, highlight=False))
        for sentence in sentences:
            print_line(sentence)
        return
    if points is None or out is None:
        raise UserError("--points needs --out, the curve file to write")
    from rov.calibrate import thrusters as calibrate
    from rov.motion.thrusters import load
    from rov.resources import find_resource

    published = load(find_resource("calibration/t200.toml"), 4)
    measured = calibrate.read_points(points)
    with common.progress() as bar:
        bar.add_task("fitting", total=None)
        fits = calibrate.fit(measured, voltage, published.current)
    table = Table("V", "points", "dead band us", "full astern N", "full ahead N", "RMS N", "worst N")
    for each in fits:
        low, high = each.dead_us
        table.add_row(f"{each.table.voltage_v:g}", str(each.points), f"{low:.0f} to {high:.0f}",
                      f"{each.table.force_n[0]:.1f}", f"{each.table.force_n[-1]:.1f}",
                      f"{each.rms_n:.2f}", f"{each.worst_n:.2f}")  # fmt: skip
    PlainConsole().print(table)
    worst = max(each.rms_n for each in fits)
    assumed = "" if any(point.current_a is not None for point in measured) else "; currents are a T200's"
    calibrate.write(
        out, f"{points.name}, {len(measured)} points, gradient descent, RMS error {worst:.2f} N{assumed}", fits
    )
    load(out, 4)  # check the file as the pilot will read it
    print_line(f"{out}: set vehicle.thrusters to it")


def _views(source: str, search: Any) -> tuple[list[Any], list[tuple[str, str]]]:
    """The views of the board in a folder, a video or a live camera, and the rejected ones with reasons."""
    from rov.media.files import VIDEOS

    path = Path(source)
    if path.is_dir():
        return _views_in_folder(path, search)
    if path.suffix.lower() in VIDEOS:
        return _views_in_video(path, search)
    if not source.isdecimal() and "/" not in source and ":" not in source:
        raise UserError(f"{source}: no such folder")
    return _views_of_camera(source, search)


def _views_in_folder(path: Path, search: Any) -> tuple[list[Any], list[tuple[str, str]]]:
    from rov.calibrate.camera import as_stored, select_views
    from rov.media.check import ContentCheck
    from rov.media.files import images_in, others_in
    from rov.media.pictures import read_image

    found: list[Any] = []
    files = images_in(path)
    if not files:
        raise UserError(f"{path}: holds no pictures")
    common.note(others_in(path))
    stored, check = as_stored(files), ContentCheck()
    with common.progress() as bar:
        for file in bar.track(files, description="looking for the board"):
            name = str(file.relative_to(path))
            try:
                check.add(image := read_image(file, stored=stored))
                found.append((name, search(name, image)))
            except UserError as error:
                found.append((name, str(error)))
    check.finish(str(path), len(files))
    return select_views(found, moving=False)


def _views_in_video(path: Path, search: Any) -> tuple[list[Any], list[tuple[str, str]]]:
    from rov.calibrate.camera import select_views
    from rov.media.films import Video

    video = Video(path)
    every = max(1, round(video.fps / VIDEO_SAMPLES_HZ))
    found = []
    with common.progress() as bar:
        task = bar.add_task("looking for the board", total=video.expected or None)
        for shot in video.shots():
            bar.advance(task)
            if shot.frame_id % every == 0:
                name = f"frame {shot.frame_id}"
                found.append((name, search(name, shot.image)))
    common.note(*video.notes)
    return select_views(found, moving=True)


def _views_of_camera(source: str, search: Any) -> tuple[list[Any], list[tuple[str, str]]]:
    """Views of a live camera, with guidance on the terminal, until there are enough or Ctrl-C."""
    from rov.calibrate.camera import guide_views, select_views
    from rov.media.camera import Camera
    from rov.media.sources import CaptureSettings, parse_camera_source

    live = Camera(parse_camera_source(source), CaptureSettings())

    def pictures() -> Any:
        last = -1
        while not live.hopeless:
            shot = live.latest(last, timeout_s=0.5)
            for event in live.events():
                console.print(f"{event.level}: {event.text}", highlight=False)
            if shot is not None:
                last = shot.frame_id
            yield None if shot is None else shot.image

    views: list[Any] = []
    console.print("Ctrl-C ends early and fits what there is", highlight=False)
    try:
        views.extend(guide_views(search.board, pictures(), lambda text: console.print(text, highlight=False)))
    except KeyboardInterrupt:
        console.print(f"ended with {len(views)} views", highlight=False)
    finally:
        live.close()
    return select_views([(view.name, view) for view in views], moving=False)
