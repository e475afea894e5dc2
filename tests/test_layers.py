"""Dependencies point one way: models -> sim -> rov. Lazy imports count."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rooms import DOOR, ORDER, ROOT, arrows, circles, imported, modules, room_of, upward

pytestmark = pytest.mark.patient

ALLOWED = {"rov": {"rov"}, "sim": {"rov", "sim"}, "models": {"rov", "sim", "models"}}
TORCH_FREE = (
    "rov.pilotd",
    "rov.camerad",
    "rov.recorderd",
    "rov.hostd",
    "rov.supervisor",
    "rov.commandd",
    "rov.publicd",
)
"""The processes without the network, and what they stand on: `pilotd` must be ready in under a second."""


def file_of(name: str) -> Path | None:
    """The file of a module or package; None for what is defined inside one."""
    path = ROOT / name.replace(".", "/")
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()), None)


@pytest.mark.parametrize("package", ALLOWED)
def test_dependencies_point_one_way(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        ours = {name.split(".")[0] for name in imported(path)} & set(ALLOWED)
        assert ours <= ALLOWED[package], f"{path} imports {ours - ALLOWED[package]}"


def test_rooms_import_only_from_rooms_below_them() -> None:
    found = arrows()
    assert {room_of(name) for name in modules()} == set(ORDER), "each room has its place in the order"
    assert not upward(found)
    assert not circles(found)
    assert all((ROOT / "rov" / f"{name}.py").is_file() for name in DOOR)


def test_no_class_has_two_homes_in_rov() -> None:
    homes: dict[str, list[str]] = {}
    for name, path in modules().items():
        if name.startswith("rov"):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef):
                    homes.setdefault(node.name, []).append(name)
    assert not {name: found for name, found in homes.items() if len(found) > 1}


def test_no_relative_imports() -> None:
    for package in ALLOWED:
        for path in (ROOT / package).rglob("*.py"):
            levels = [n.level for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
            assert not any(levels), f"{path}: the layer test does not follow relative imports"


def test_messages_import_nothing_of_ours() -> None:
    assert not {name for name in imported(ROOT / "rov/messages.py") if name.startswith(tuple(ALLOWED))}


def test_the_control_path_never_reaches_torch() -> None:
    seen: set[str] = set()
    waiting = list(TORCH_FREE)
    assert all(file_of(name) for name in waiting)
    while waiting:
        name = waiting.pop()
        path = file_of(name)
        if name in seen or path is None:
            continue
        seen.add(name)
        waiting.append(name.rpartition(".")[0])  # importing a module runs its packages first
        names = imported(path, typing=False)
        assert not {n for n in names if n.split(".")[0] == "torch"}, f"{path} imports torch"
        waiting += [n for n in names if n.startswith("rov.")]
    assert {"rov.motion.guard", "rov.link.thruster_board", "rov.bus"} <= seen


def test_the_processes_that_strangers_reach_start_without_the_schema() -> None:
    """Half of their start, and an operator waits for it when one was killed."""
    code = "import rov.commandd, rov.publicd, sys; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
