"""Commands that simulate: dives, vehicles, system identification, and how fast it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from rov.cli.common import ConfigFile, Settings
from rov.errors import UserError
from rov.messages import Task
from rov.printing import print_line

if TYPE_CHECKING:
    from sim.world import Step

Calibrated = Annotated[
    Path | None, typer.Option("--camera", help="ROS camera_info file as `rov calibrate camera` writes it: the lens.")
]

LINKS = ("thrusters", "ardusub")
TASK_HELP = "let the policy do this task, instead of the world's course: transit, follow, inspect or station"
Target = Annotated[str, typer.Option(help="Of task follow: the class.")]
Heading = Annotated[float | None, typer.Option(help="Of transit and inspect, degrees; else as at the start.")]
Depth = Annotated[float | None, typer.Option(help="Of transit, m; else as at the start.")]
Distance = Annotated[float | None, typer.Option(help="Of follow, m.")]
Height = Annotated[float | None, typer.Option(help="Of inspect, m.")]

app = typer.Typer(rich_markup_mode="markdown")


@app.command(epilog="Example: `python -m sim wrench --params P.json --input in.csv --out out.csv`")
def wrench(
    params: Annotated[Path, typer.Option(help="The vehicle and its start: JSON.")],
    table: Annotated[Path, typer.Option("--input", help="CSV with t,X,Y,Z,K,M,N: s, N and N m; each row holds.")],
    out: Annotated[Path, typer.Option(help="CSV to write: t,x,y,z,qw,qx,qy,qz,u,v,w,p,q,r.")],
) -> None:
    """Move a vehicle open loop under given forces: its equations alone, without thrusters, surface and seabed."""
    from functools import partial

    from rov.cli.common import progress
    from sim.wrench import run

    with progress() as bar:
        rows = run(params, table, out, lambda total: partial(bar.advance, bar.add_task("moving", total=total)))
    print_line(f"{out}: {rows} rows")


@app.command(
    epilog="Example: `python -m sim excite a.mcap b.mcap --dvl`, then `python -m sim fit a.mcap b.mcap --start wu`"
)
def excite(
    dives: Annotated[list[Path], typer.Argument(help="Dives to write (.mcap), each with its own random steps.")],
    vehicle: Annotated[str, typer.Option(help="heavy, wu, standard or a file.")] = "heavy",
    seed: Annotated[int, typer.Option(help="The same seed, the same dives.")] = 0,
    seconds: Annotated[float, typer.Option(min=10, help="Length of each.")] = 60.0,
    dvl: Annotated[bool, typer.Option("--dvl", help="With a Doppler log: velocities are recorded.")] = False,
) -> None:
    """Record simulated dives without pictures that shake a vehicle on every axis."""
    from sim.excite import excite as run
    from sim.parameters import load
    from sim.sensors import Suite

    run(load(vehicle), dives, seed=seed, seconds=seconds, suite=Suite()._replace(dvl=dvl))
    print_line(f"{', '.join(map(str, dives))}: {seconds:g} s each")


@app.command(
    epilog="Examples: `python -m sim fit dive.mcap --out vehicle.toml`, `python -m sim fit a.mcap b.mcap --start wu`"
)
def fit(
    dives: Annotated[list[Path], typer.Argument(help="Dives (.mcap) with vehicle states and thruster commands.")],
    out: Annotated[Path, typer.Option(help="The vehicle to write; its plot is put beside it.")] = Path("vehicle.toml"),
    start: Annotated[
        str, typer.Option(help="Start values, kept where the dives show nothing: heavy, wu, standard, a file.")
    ] = "heavy",
) -> None:
    """Find a vehicle's damping, added mass, thrust and buoyancy in dives, by gradients through the simulator."""
    from rich.table import Table

    from rov.cli.common import console
    from rov.terminal import PlainConsole
    from sim import fit as fitting
    from sim.parameters import load

    first = load(start)
    with console.status("reading") as status:
        result = fitting.fit(dives, first, lambda s, cost: status.update(f"predicting {s:g} s: cost {cost:.0f}"))
    fitting.write(result, out)
    table = Table("number", "start", "fitted", "± %", "known", title=f"{result.windows} windows")
    for name, old, new in fitting.compared(first, result.parameters):
        table.add_row(name, f"{old:.4g}", f"{new:.4g}", f"{100 * result.spread[name]:.1f}", result.verdict(name))
    PlainConsole().print(table)
    for kind, error in result.after.items():
        print_line(f"{kind}: RMS error of {fitting.WINDOW_S:g} s predictions {result.before[kind]:.4g} -> {error:.4g}")
    print_line(f"{out} and {out.with_suffix('.png')} written")


@app.command(epilog="Examples: `python -m sim bench`, `python -m sim bench --device cuda --n 262144`")
def bench(
    n: Annotated[
        list[int] | None, typer.Option(help="Vehicles at once; may be repeated. Without it 1, 1024, 65536.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of a round; the median of three counts.")] = 2.0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Measure how many 20 ms intervals of a vehicle and its instruments are simulated in a second."""
    import torch
    from rich.table import Table

    from rov.terminal import PlainConsole
    from sim.bench import bench as run

    title = f"env-steps/s, float32, {torch.get_num_threads()} threads, {device}"
    table = Table("vehicles", "given commands", "with our inner loops", title=title)
    for size in n or (1, 1024, 65536):
        speed = run(size, seconds, device)
        table.add_row(str(size), f"{speed.vehicles:,.0f}", f"{speed.with_loops:,.0f}")
    PlainConsole().print(table)


@app.command(
    epilog="Examples: `python -m sim dive pool --out out/`, `python -m sim dive reef --seed 3 --seconds 20 --out out/`,"
    " `python -m sim dive pool --task transit --heading 0 --out out/`"
)
def dive(
    world: Annotated[str, typer.Argument(help="A world of sim/worlds, or a file.")],
    out: Annotated[Path, typer.Option(help="Folder for dive.mcap, report.json, report.html and overlay.mp4.")],
    seed: Annotated[int, typer.Option(help="The same seed, the same dive.")] = 0,
    seconds: Annotated[float, typer.Option(min=1, help="At most; with --task how long the policy steers.")] = 60.0,
    size: Annotated[str, typer.Option(help="Of the pictures, WIDTHxHEIGHT.")] = "320x240",
    camera: Calibrated = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Use the simulator's own labels instead of the network.")
    ] = False,
    overlay: Annotated[bool, typer.Option(help="Draw overlay.mp4, too.")] = True,
    task: Annotated[str, typer.Option(help=TASK_HELP.capitalize() + ".")] = "",
    target: Target = "",
    heading: Heading = None,
    depth: Depth = None,
    distance: Distance = None,
    height: Height = None,
    config: ConfigFile = None,
    setting: Settings = None,
) -> None:
    """Run a world's course with the daemon's own stages in lockstep: faster than real time, and repeatable."""
    from rov.cli.common import configuration, curve, detector, policy, progress
    from rov.offline.report import write
    from sim.dive import dive as run
    from sim.world import load, realise, through

    settings = configuration(config, setting, steers=True)
    place = realise(through(load(world), camera), seed)
    if task:
        place = replace(place, course=_policy_course(task, target, heading, depth, distance, height, seconds))
        seconds = sum(step.seconds for step in place.course)
    learned = policy(settings, wanted=any(step.mode == "policy" for step in place.course))
    with progress() as bar:
        line = bar.add_task(world, total=round(seconds * settings.perception.rate_hz))
        result = run(
            place,
            settings,
            detector(settings, 1),
            curve(settings),
            out,
            seconds=seconds,
            size=_size(size),
            exact=exact,
            overlay=overlay,
            policy=learned,
            progress=lambda text: bar.update(line, advance=1, description=text),
        )
    report = write(result, out)
    found = ", ".join(f"{n} {label}" for label, n in report["detections"].items()) or "no objects"
    print_line(
        f"{world}, seed {seed}: {result.recorded_s:.1f} s of diving in {report['wall_s']:.1f} s"
        f" ({report['realtime_factor']:.1f} × real time), {report['frames']} frames; {found}; see {out}/report.html"
    )
    if result.interrupted:
        raise typer.Exit(130)


@app.command(
    epilog="Examples: `python -m sim run pool`, `python -m sim run pool --course --out out/`, `python -m sim run pool"
    " --task transit --heading 0 --seconds 60`, `python -m sim run reef --link ardusub --task follow --target shark`"
)
def run(
    world: Annotated[str, typer.Argument(help="A world of sim/worlds, or a file.")],
    seed: Annotated[int, typer.Option(help="The same seed, the same world.")] = 0,
    size: Annotated[str, typer.Option(help="Of the pictures, WIDTHxHEIGHT.")] = "320x240",
    camera: Calibrated = None,
    daemon: Annotated[bool, typer.Option("--daemon", help="Start `rov run` as well.")] = False,
    course: Annotated[
        bool, typer.Option("--course", "--sail", help="Start `rov run`, command it through the world's course, stop.")
    ] = False,
    task: Annotated[str, typer.Option(help=f"Start `rov run`, {TASK_HELP}; stop.")] = "",
    target: Target = "",
    heading: Heading = None,
    depth: Depth = None,
    distance: Distance = None,
    height: Height = None,
    seconds: Annotated[float, typer.Option(min=1, help="How long the policy steers.")] = 60.0,
    link: Annotated[str, typer.Option(help="What the vehicle is: thrusters (a bare board) or ardusub.")] = "thrusters",
    out: Annotated[Path, typer.Option(help="Folder for the dives that --daemon records.")] = Path("dives"),
    config: ConfigFile = None,
    setting: Settings = None,
) -> None:
    """Simulate a world live for an unmodified daemon: a thruster board on a pty or an autopilot, and a camera in
    camerad's place."""
    from rov.cli.common import configuration
    from sim.live import run as live

    kind = _one_of(link, "--link", LINKS)
    steps = _policy_course(task, target, heading, depth, distance, height, seconds) if task else ()
    folder = out if daemon or course or steps else None
    code = live(
        world, seed, configuration(config, setting, steers=True), _size(size), camera, folder=folder,
        course=course or bool(steps), notify=print_line, link=kind, steps=steps,
    )  # fmt: skip
    raise typer.Exit(code)


@app.command(
    epilog="Examples: `python -m sim disengagement --out out/`, `python -m sim disengagement --minutes 120 --clips 40"
    " --video dive.mp4 --out out/`"
)
def disengagement(
    out: Annotated[Path, typer.Option(help="Folder for disengagement.json.")] = Path("out"),
    worlds: Annotated[str, typer.Option(help="Worlds to run in, with commas.")] = "pool,pond,reef,harbour",
    clips: Annotated[int, typer.Option(min=0, help="Spoiled clips of each kind.")] = 20,
    minutes: Annotated[float, typer.Option(min=0, help="Drifting about in all.")] = 10.0,
    video: Annotated[list[Path] | None, typer.Option(help="Real videos to look at, too.")] = None,
    config: ConfigFile = None,
    setting: Settings = None,
) -> None:
    """Measure how the policy lets go of black, blinded, covered, frozen and dry pictures, and where it drifts about."""
    import torch

    from rov.cli.common import configuration, progress
    from rov.steering.policy_model import open_model
    from sim.disengagement import RUN_S, SPOILERS, measure, on_video, write

    torch.set_num_threads(1)
    settings = configuration(config, setting, steers=True)
    model, videos = open_model(settings.steering), video or []
    with progress() as bar:
        task = bar.add_task("disengagement", total=clips * len(SPOILERS) + round(minutes * 60 / RUN_S) + len(videos))

        def step(text: str) -> None:
            bar.update(task, advance=1, description=text)

        verdict = measure(model, settings, worlds.split(","), clips, minutes, progress=step)
        looked = {}
        for path in videos:
            step(path.name)
            looked[path.name] = on_video(model, settings, path)
    out.mkdir(parents=True, exist_ok=True)
    write(verdict, looked, out / "disengagement.json")
    for kind, shown in verdict.clips.items():
        print_line(f"{kind}: {verdict.caught.get(kind, 0)} of {shown} let go within 1 s")
    print_line(f"drifting about: {verdict.ended} ends in {verdict.drifted_s / 60:.0f} min; {verdict.reasons or ''}")
    for name, shares in looked.items():
        print_line(f"{name}: " + ", ".join(f"{why} {share:.0%}" for why, share in shares.items()))
    print_line(f"{out / 'disengagement.json'} written")


@app.command(
    epilog="Example: `python -m sim pilots --task follow --number 30 --out dives`, then"
    " `python -m models.train_policy --dives dives --out runs/clone`"
)
def pilots(
    out: Annotated[Path, typer.Option(help="Folder for the dives.")],
    task: Annotated[str, typer.Option(help="transit, follow, inspect or station.")] = "follow",
    number: Annotated[int, typer.Option(min=1, help="Dives to write.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same dives.")] = 0,
) -> None:
    """Record dives of a simulated pilot, to try cloning on: the teacher steers, the policy's input is recorded."""
    import torch

    from rov.cli.common import progress
    from sim.pilot_dives import record

    torch.set_num_threads(1)
    known = _one_of(task, "--task", get_args(Task)[1:])
    with progress() as bar:
        line = bar.add_task(f"{task} by a pilot", total=number)
        paths = record(known, number, out, seed, lambda share: bar.update(line, completed=share * number))
    print_line(f"{len(paths)} dives in {out}")


def _policy_course(
    task: str,
    target: str,
    heading: float | None,
    depth: float | None,
    distance: float | None,
    height: float | None,
    seconds: float,
) -> tuple[Step, ...]:
    """A course for one task of the policy. Raises UserError."""
    from sim.course import policy_steps
    from sim.world import Step

    wanted: Any = _one_of(task, "--task", get_args(Task)[1:])
    step = Step(
        "policy", target=target, task=wanted, heading_deg=heading, depth=depth, distance=distance, height=height
    )  # fmt: skip
    return policy_steps(seconds, step)


def _one_of(word: str, option: str, words: Sequence[str]) -> Any:
    """The word. Raises UserError unless it is one of these."""
    if word not in words:
        raise UserError(f"{option} {word}: must be one of {', '.join(words)}")
    return word


def _size(text: str) -> tuple[int, int]:
    """Width and height in px."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and 16 <= int(width) <= 4096 and 16 <= int(height) <= 4096):
        raise UserError(f"--size {text}: must be WIDTHxHEIGHT in pixels, 16 to 4096 each")
    return int(width), int(height)
