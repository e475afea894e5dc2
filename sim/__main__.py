"""The water's command line, `python -m sim`: each command is a few lines around a module."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from rov.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="A simulated sea for the rover: vehicle, sensors, pictures.",
)


@app.callback()
def root() -> None:
    """Keeps every command a sub-command, also while there is only one."""


@app.command(epilog="Example: `python -m sim wrench --params P.json --input in.csv --out out.csv`")
def wrench(
    params: Annotated[Path, typer.Option(help="The vehicle and its start: JSON.")],
    table: Annotated[Path, typer.Option("--input", help="CSV with t,X,Y,Z,K,M,N: s, N and N m; each row holds.")],
    out: Annotated[Path, typer.Option(help="CSV to write: t,x,y,z,qw,qx,qy,qz,u,v,w,p,q,r.")],
) -> None:
    """Move a vehicle open loop under given forces: no thrusters, no surface, no seabed, only its equations."""
    from functools import partial

    from rov.cli.common import progress
    from sim.wrench import run

    with progress() as bar:
        rows = run(params, table, out, lambda total: partial(bar.advance, bar.add_task("moving", total=total)))
    print(f"{out}: {rows} rows")


@app.command(
    epilog="Example: `python -m sim excite a.mcap b.mcap --dvl`, then `python -m sim fit a.mcap b.mcap --start wu`"
)
def excite(
    dives: Annotated[list[Path], typer.Argument(help="Dives to write (.mcap), each from its own chance.")],
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
    print(f"{', '.join(map(str, dives))}: {seconds:g} s each")


@app.command(
    epilog="Examples: `python -m sim fit dive.mcap --out vehicle.toml`, `python -m sim fit a.mcap b.mcap --start wu`"
)
def fit(
    dives: Annotated[list[Path], typer.Argument(help="Dives (.mcap) with vehicle states and thruster commands.")],
    out: Annotated[Path, typer.Option(help="The vehicle to write; its plot is put beside it.")] = Path("vehicle.toml"),
    start: Annotated[
        str, typer.Option(help="Where to start, and what stays unseen: heavy, wu, standard, a file.")
    ] = "heavy",
) -> None:
    """Find a vehicle's damping, added mass, thrust and buoyancy in dives, by gradients through the simulator."""
    from rich.console import Console
    from rich.table import Table

    from rov.cli.common import console
    from sim import fit as fitting
    from sim.parameters import load

    first = load(start)
    with console.status("reading") as status:
        result = fitting.fit(dives, first, lambda s, cost: status.update(f"predicting {s:g} s: cost {cost:.0f}"))
    fitting.write(result, out)
    table = Table("number", "start", "fitted", "± %", "known", title=f"{result.windows} windows")
    for name, old, new in fitting.compared(first, result.parameters):
        table.add_row(name, f"{old:.4g}", f"{new:.4g}", f"{100 * result.spread[name]:.1f}", result.verdict(name))
    Console().print(table)
    for kind, error in result.after.items():
        print(f"{kind}: RMS error of {fitting.WINDOW_S:g} s predictions {result.before[kind]:.4g} -> {error:.4g}")
    print(f"{out} and {out.with_suffix('.png')} written")


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
    from rich.console import Console
    from rich.table import Table

    from sim.bench import bench as run

    title = f"env-steps/s, float32, {torch.get_num_threads()} threads, {device}"
    table = Table("vehicles", "given commands", "with our inner loops", title=title)
    for size in n or (1, 1024, 65536):
        speed = run(size, seconds, device)
        table.add_row(str(size), f"{speed.vehicles:,.0f}", f"{speed.with_loops:,.0f}")
    Console().print(table)


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
    except BrokenPipeError:  # `python -m sim … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(0)


if __name__ == "__main__":
    main()
