"""`rov ctl`: the daemon's endpoints, a command from its words, and one command sent and answered."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any, NamedTuple

from rov.bus import Endpoints
from rov.bus.client import Client, mode_of, must_be_accepted
from rov.bus.session import Refused, session_name
from rov.config.schema import BusConfig
from rov.errors import UserError
from rov.messages import Arm, Command, Disarm, SetMode, SetTarget, SetTask, Stop

DONE = {
    "arm": "begun; the board is tested first, for 0.6 s (`rov listen events pilot` shows it)",
    "disarm": "done",
    "stop": "done: neutral and disarmed",
    "mode": "done",
    "target": "done",
    "task": "set; its setpoints move nothing until `rov ctl mode policy`, 3 s from now or later",
}
DONE_ARDUSUB = DONE | {
    "arm": "begun; the autopilot is set to its mode, then armed (`rov listen events pilot` shows it)",
    "disarm": "done: disarmed if rov was steering; while the vehicle's own pilot steers, rov sends nothing",
    "stop": "done: neutral and disarmed if rov was steering; while the vehicle's own pilot steers, rov sends nothing",
}


TASK_OPTIONS: dict[str, set[str]] = {
    "none": set(),
    "transit": {"heading", "depth"},
    "follow": {"label", "distance", "target_height"},
    "inspect": {"heading", "height"},
    "station": set(),
}
"""The options of each task."""


class Words(NamedTuple):
    """A command as it was typed: its kind, and its fields."""

    kind: type[Command]
    fields: dict[str, Any] = {}


def endpoints_of(bus: BusConfig, host: str, keys: Path | None) -> Endpoints:
    """The daemon at `host`; empty: at the address in the configuration. Without `keys`, the `operator` keys in the
    configured folder are used, if they are there. Raises UserError."""
    if keys is None and bus.keys and (Path(bus.keys) / "operator").is_dir():
        keys = Path(bus.keys) / "operator"
    return Endpoints(bus.public, bus.commands).at(host, keys)


def send_command(endpoints: Endpoints, words: Words, *, displace: bool = False) -> None:
    """Send one command. Unless it is a stop, this session becomes the operator first, without a heartbeat: nobody stays
    at the controls. Raises UserError when refused."""
    client = Client(endpoints, session=session_name("ctl"), topics=(), patience_s=0.0)
    with contextlib.closing(client):
        try:
            if words.kind is not Stop:
                client.take_over(displace=displace)
        except Refused as refused:
            hint = "; `--take-over` does it" if "asked for" in str(refused) else ""
            raise Refused(f"{refused}{hint}") from None
        must_be_accepted(client.ask(words.kind, **words.fields))


class TaskOptions(NamedTuple):
    """The options of `rov ctl task`: degrees and m; None: not given."""

    label: str | None = None
    heading: float | None = None
    depth: float | None = None
    distance: float | None = None
    height: float | None = None
    target_height: float | None = None


NO_OPTIONS = TaskOptions()


def parse(verb: str, what: str, size: float | None, options: TaskOptions = NO_OPTIONS) -> Words:
    """The command for a verb, its argument and its options. Raises UserError."""
    if verb == "task":
        return _task(what, options)
    if options != NO_OPTIONS:
        raise UserError(
            f"{verb}: a second word, --heading, --depth, --distance, --height and --target-height belong to task"
        )
    if what and verb in ("arm", "disarm", "stop"):
        raise UserError(f"{verb} takes no argument, and got {what}")
    if size is not None and verb != "target":
        raise UserError(f"--size belongs to target, not to {verb}")
    match verb:
        case "arm":
            return Words(Arm)
        case "disarm":
            return Words(Disarm)
        case "stop":
            return Words(Stop)
        case "mode":
            return Words(SetMode, {"mode": mode_of(what)})
        case "target" if what:
            return Words(SetTarget, {"label": what, "size": size})
    raise UserError(
        f"{verb} {what}".strip() + ": no such command; there are arm, disarm, stop, mode MODE, target CLASS, task TASK"
    )


def _task(name: str, options: TaskOptions) -> Words:
    """The command for a task. Raises UserError."""
    if name not in TASK_OPTIONS:
        raise UserError(f"{name or 'nothing'}: no such task; there are {', '.join(TASK_OPTIONS)}")
    given = {option for option in TaskOptions._fields if getattr(options, option) is not None}
    if wrong := sorted(given - TASK_OPTIONS[name]):
        belongs = " or ".join(each for each, its in TASK_OPTIONS.items() if wrong[0] in its)
        option = "a class" if wrong[0] == "label" else "--" + wrong[0].replace("_", "-")
        raise UserError(f"{option} belongs to {belongs}, not to {name}")
    heading = None if options.heading is None else math.radians(options.heading)
    return Words(SetTask, {"task": name, **options._asdict(), "heading": heading})
