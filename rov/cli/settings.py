"""Commands on the configuration: check, show and describe `rover.toml`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rov.assets import find
from rov.config import schema

app = typer.Typer(no_args_is_help=True, help="Check, show and describe `rover.toml`.")


@app.command("check", epilog="Example: `rov config check rover.toml`")
def config_check(path: Annotated[Path, typer.Argument(help="The file.")] = Path("rover.toml")) -> None:
    """Report everything that is wrong with a configuration, at once."""
    from rov.checks import load_checked

    load_checked(path, files=True)
    print(f"{path}: good")


@app.command("show", epilog="Example: `rov config show > rover.toml`")
def config_show(
    path: Annotated[Path | None, typer.Argument(help="The file; without it the annotated default is printed.")] = None,
) -> None:
    """Print a configuration with every default filled in; without a file, the annotated default one."""
    if path is None:
        print(find("rover.toml").read_text(), end="")
        return
    import tomli_w

    from rov.config import load

    print(tomli_w.dumps(load(path).model_dump()), end="")


@app.command("schema", epilog="Example: `rov config schema > rover.schema.json`")
def config_schema() -> None:
    """Print the JSON Schema of the file, for editors."""
    print(json.dumps(schema(), indent=2))
