"""Commands on the configuration: check, show and describe `rover.toml`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rov.cli.common import own_file
from rov.config.schema import schema
from rov.printing import hide_passwords, print_line
from rov.resources import find_resource

app = typer.Typer(no_args_is_help=True, help="Check, show and describe `rover.toml`.")


@app.command("check", epilog="Example: `rov config check rover.toml`")
def config_check(path: Annotated[Path | None, typer.Argument(help="The file.")] = None) -> None:
    """Report at once everything that is wrong with a configuration and the files that it names."""
    from rov.validate import doubts, load_checked

    path = path or own_file() or Path("rover.toml")
    for sentence in doubts(load_checked(path, files=True)):
        print_line(f"warning: {path}: {sentence}", error=True)
    print_line(f"{path}: good")


@app.command("show", epilog="Example: `rov config show > rover.toml`")
def config_show(
    path: Annotated[Path | None, typer.Argument(help="The file; without it the annotated default.")] = None,
) -> None:
    """Print a configuration with every default filled in; without a file, the annotated default."""
    if path is None:
        print_line(find_resource("rover.toml").read_text(encoding="utf-8").rstrip("\n"))
        return
    import tomli_w

    from rov.config.schema import load

    text = tomli_w.dumps(load(path).model_dump()).rstrip("\n")
    print_line(text)
    if hide_passwords(text) != text:
        print_line(
            "note: passwords are shown as ***; write yours back before you use this as a configuration", error=True
        )


@app.command("schema", epilog="Example: `rov config schema > rover.schema.json`")
def config_schema() -> None:
    """Print the JSON Schema of the file, for editors."""
    print_line(json.dumps(schema(), indent=2))
