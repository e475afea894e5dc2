"""The import picture: `python -m tests.rooms` prints rooms, arrows between them, arrows up and circles.

A room of `rov` is a folder; `sim` and `models` are one each. The files at the door of `rov` are three rooms: the
vocabulary, which everything may import; what is composed of several rooms; and the processes. The package `rov` itself
is the room `api`: it names what other programs use, and nothing in `rov` imports from it. ORDER is the written order of
dependency, the lowest room first: a room imports only from rooms before it.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("rov", "sim", "models")
DOOR = {
    **dict.fromkeys(("perception", "validate"), "composition"),
    **dict.fromkeys(
        ("camerad", "commandd", "hostd", "perceptiond", "pilotd", "publicd", "recorderd", "supervisor"), "processes"
    ),
    "__main__": "cli",
}
"""The files at the door that are not vocabulary."""
ORDER = (
    "vocabulary", "bus", "optics", "config", "service", "media", "vision", "steering", "link", "motion", "composition",
    "dives", "host", "imports", "calibrate", "offline", "operator", "processes", "cli", "api", "sim",
    "models",
)  # fmt: skip


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of ours by its dotted name, packages included."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


@cache
def imported(path: Path, *, typing: bool = True) -> frozenset[str]:
    """What a file imports, also inside functions: modules, and names that may be modules. `typing`: also what only type
    checkers import. `from rov import NAME` counts as `rov.NAME` alone where that is a module."""
    names = set()
    for node in _nodes(ast.parse(path.read_text(encoding="utf-8")), typing):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                names |= {name} if node.module in PACKAGES and _is_module(name) else {node.module, name}
    return frozenset(names)


def _nodes(tree: ast.AST, typing: bool) -> Iterator[ast.AST]:
    """As `ast.walk`; without `typing`, what stands under `if TYPE_CHECKING:` is left out."""
    yield tree
    skipped = not typing and isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING"
    for child in tree.orelse if skipped and isinstance(tree, ast.If) else ast.iter_child_nodes(tree):
        yield from _nodes(child, typing)


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def room_of(module: str) -> str:
    """The room that a module stands in."""
    package, _, rest = module.partition(".")
    if package != "rov":
        return package
    if not rest:
        return "api"
    first, _, inside = rest.partition(".")
    is_room = inside or (first and (ROOT / "rov" / first).is_dir())
    return first if is_room else DOOR.get(first, "vocabulary")


def arrows(root: Path = ROOT) -> dict[tuple[str, str], list[str]]:
    """(from, to) -> the imports, as `module -> module`, of each pair of rooms."""
    known = modules(root)
    rooms = {name: room_of(name) for name in known}
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, path in known.items():
        for target in imported(path) & known.keys():
            if rooms[name] != rooms[target]:
                found[rooms[name], rooms[target]].append(f"{name} -> {target}")
    return dict(found)


def upward(found: dict[tuple[str, str], list[str]]) -> list[str]:
    """The imports that go against ORDER. A room that is not in it is an error of its own."""
    place = {room: i for i, room in enumerate(ORDER)}
    return [each for (start, end), which in found.items() if place[start] <= place[end] for each in which]


def circles(found: dict[tuple[str, str], list[str]]) -> list[set[str]]:
    """Sets of rooms of which each reaches every other."""
    reach: dict[str, set[str]] = defaultdict(set)
    for start, end in found:
        reach[start].add(end)
    changed = True
    while changed:
        changed = False
        for ends in list(reach.values()):
            more = set().union(*(reach.get(end, set()) for end in ends)) - ends
            ends |= more
            changed |= bool(more)
    together = [frozenset({room} | {b for b in ends if room in reach.get(b, set())}) for room, ends in reach.items()]
    return [set(each) for each in {each for each in together if len(each) > 1}]


def main() -> None:
    found = arrows()
    rooms = {room_of(name) for name in modules()}
    print(f"{len(rooms)} rooms, {len(found)} arrows, {len(upward(found))} up, {len(circles(found))} circles")
    for room in ORDER:
        print(f"{room:12} <- {', '.join(sorted(end for start, end in found if start == room)) or '-'}")
    for each in upward(found):
        print("up:", each)
    for circle in circles(found):
        print("circle:", ", ".join(sorted(circle)))


if __name__ == "__main__":
    main()
