"""`python -m sim`: the simulator's command line. Each command is a few lines around a module of `sim`.

Only the module of the command that runs is imported: tests start the board as a process often, and it needs no torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

MODULES = {
    "run": "sim.commands",
    "dive": "sim.commands",
    "board": "sim.hardware",
    "ardusub": "sim.hardware",
    "soak": "sim.hardware",
    "port-write-times": "sim.hardware",
    "dataset": "sim.pictures",
    "sheet": "sim.pictures",
    "wrench": "sim.commands",
    "excite": "sim.commands",
    "fit": "sim.commands",
    "bench": "sim.commands",
    "camera-bench": "sim.pictures",
    "evaluate": "sim.evaluation.command",
    "disengagement": "sim.commands",
    "pilots": "sim.commands",
}
"""Commands in the order of the help, and the modules that define them."""


class LazyGroup(TyperGroup):
    """Imports a command's module when the command is needed."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*MODULES]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in MODULES:
            return None
        group: Any = typer.main.get_command(import_module(MODULES[cmd_name]).app)
        return group.get_command(ctx, cmd_name)


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.callback()
def root() -> None:
    """A simulated sea for the rover: vehicle, sensors, pictures, and stand-ins for its hardware."""


def main() -> None:
    if MODULES.get("".join(sys.argv[1:2])) == "sim.hardware":  # these report their own errors, and start fast
        app()
    from rov.cli.common import enter

    enter(app)


if __name__ == "__main__":
    main()
