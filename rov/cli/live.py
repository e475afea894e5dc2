"""Commands of the live daemon: run, listen, ctl, drive, keys."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import Annotated

import typer

from rov.cli.common import ConfigFile, Settings, configuration, own_file
from rov.concurrency import ON_LINUX
from rov.errors import UserError
from rov.printing import print_line
from rov.validate import load_checked

app = typer.Typer()


@app.command(epilog="Examples: `rov run rover.toml`, `rov run --set link.port=/tmp/board --set camera.source=1`")
def run(
    path: Annotated[Path | None, typer.Argument(help="The configuration.")] = None,
    settings: Settings = None,
    debug: Annotated[bool, typer.Option("--debug", help="Print what each process does; as `rov --debug run`.")] = False,
) -> None:
    """Run the daemon: camera, perception, pilot and recorder. Ctrl-C stops it, neutral and disarmed.

    Each line on standard error has time, level, source and a code; `rov explain CODE` says what the code means.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing to stop yet; the supervisor installs its own handler
    if not ON_LINUX:
        raise UserError("rov run: the daemon needs Linux; here are replay, detect, import, dive, listen, ctl and drive")
    from rov.host.ownership import must_be_ours
    from rov.service import log
    from rov.supervisor import run as supervise

    path = path or own_file() or Path("rover.toml")
    config = load_checked(path, settings or (), files=True)
    must_be_ours()
    if debug:
        log.enable_debug()
    with contextlib.closing(log.set_up("supervisor")):
        code = supervise(path, config, settings or ())
    raise typer.Exit(code)


Address = Annotated[str, typer.Option(help="The vehicle's host or address; without it, as the configuration says.")]
Keys = Annotated[Path | None, typer.Option(help="Folder of this client's keys, as `rov keys NAME` made it.")]
TakeOver = Annotated[bool, typer.Option("--take-over", help="Displace another operator.")]


@app.command(epilog="Examples: `rov listen`, `rov listen events pilot`, `rov listen --rates --address 192.168.2.2`")
def listen(
    topics: Annotated[list[str] | None, typer.Argument(help="Topics; without any, all.")] = None,
    rates: Annotated[bool, typer.Option("--rates", help="A table of rates and ages instead of messages.")] = False,
    address: Address = "",
    keys: Keys = None,
    config: ConfigFile = None,
) -> None:
    """Print the daemon's messages with the age of each; `-` where its clock is not this machine's."""
    from rov.operator.commands import endpoints_of
    from rov.operator.listening import follow

    follow(endpoints_of(configuration(config).bus, address, keys), topics or [], rates=rates)


@app.command(
    epilog="Examples: `rov ctl stop`, `rov ctl arm`, `rov ctl mode hold --take-over`, `rov ctl target fish --size 0.4`,"
    " `rov ctl task transit --heading 90 --depth 2`, `rov ctl task follow diver --distance 2`,"
    " `rov ctl task inspect --height 1`, `rov ctl task station`, `rov ctl task none`"
)
def ctl(
    verb: Annotated[str, typer.Argument(help="arm, disarm, stop, mode, target or task.")],
    what: Annotated[str, typer.Argument(help="The mode, the class to follow, or the policy's task.")] = "",
    label: Annotated[str, typer.Argument(help="Of task follow: the class to follow.")] = "",
    heading: Annotated[
        float | None, typer.Option(help="Of task transit or inspect, degrees; else as it is now.")
    ] = None,
    depth: Annotated[float | None, typer.Option(help="Of task transit, m; else as it is now.")] = None,
    distance: Annotated[float | None, typer.Option(help="Of task follow, m.")] = None,
    height: Annotated[float | None, typer.Option(help="Of task inspect, m over the pipeline.")] = None,
    target_height: Annotated[
        float | None,
        typer.Option(help="Of task follow, how high the followed thing is, m; else as usual for its class."),
    ] = None,
    size: Annotated[float | None, typer.Option(help="Wanted height of the target in the picture, 0..1.")] = None,
    take_over: TakeOver = False,
    address: Address = "",
    keys: Keys = None,
    config: ConfigFile = None,
) -> None:
    """Send one command. Anyone may stop; any other command makes you the operator, unless another operator is active.

    No heartbeat is sent: after `operator.lost_s` without another command, `operator.on_lost` applies. To stay the
    operator, use `rov drive`.
    """
    from rov.operator.commands import DONE, DONE_ARDUSUB, TaskOptions, endpoints_of, parse, send_command

    options = TaskOptions(label or None, heading, depth, distance, height, target_height)
    words, settings = parse(verb, what, size, options), configuration(config)
    send_command(endpoints_of(settings.bus, address, keys), words, displace=take_over)
    done = DONE_ARDUSUB if settings.link.kind == "ardusub" else DONE
    text = "the visual servo steers in mode follow" if (verb, what) == ("task", "none") else done[verb]
    print_line(f"{verb} {what} {label}".strip() + f": {text}")


@app.command(epilog="Examples: `rov drive`, `rov drive --address 192.168.2.2 --keys keys/ann`")
def drive(
    gamepad: Annotated[Path, typer.Option(help="Joystick device; may be plugged in later.")] = Path("/dev/input/js0"),
    take_over: TakeOver = False,
    address: Address = "",
    keys: Keys = None,
    config: ConfigFile = None,
) -> None:
    """Drive by keyboard or gamepad, with a page that shows the vehicle's state. Space stops; so does leaving."""
    from rov.operator.commands import endpoints_of
    from rov.operator.drive import drive as steer

    raise typer.Exit(steer(endpoints_of(configuration(config).bus, address, keys), displace=take_over, gamepad=gamepad))


@app.command("keys", epilog="Examples: `rov keys`, `rov keys ann`, `rov keys ann --folder /etc/rov/keys`")
def make_keys(
    name: Annotated[str, typer.Argument(help="Name of the client.")] = "operator",
    folder: Annotated[Path, typer.Option(help="The vehicle's folder of keys.")] = Path("keys"),
) -> None:
    """Make the keys for a client on another machine, and the vehicle's own if it has none yet."""
    from rov.bus.keys import make

    bundle = make(folder, name)
    print_line(
        f'{bundle}: copy this folder to the client, for its --keys. The vehicle needs [bus] keys = "{folder}" and a'
    )
    print_line("restart. To shut this client out again, delete " + str(folder / "clients" / f"{name}.key"))
