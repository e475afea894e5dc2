"""The pages under docs/: what is generated is current, numbers are those of the code, code that is shown runs."""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest

from docs import generate
from rov.config.schema import Config, parse
from rov.resources import checkout

ROOT = checkout()
DOCS = ROOT / "docs"
DEFAULTS: Config = parse("[vehicle]\nmax_depth = 30\n")
NUMBER = re.compile(r"([\d.]+) ?(ms|s|%|°C|°|V|kPa|Hz|GB|)(?: of full heave)? \(`([\w.]+)`\)")
"""A number with its unit, and where the code has it: `300 ms (`guard.setpoint_stale_ms`)`."""
SCALES = {("_NS", "ms"): 1e6, ("_NS", "s"): 1e9}
"""The constant's unit, by the end of its name, per unit of the page."""
TEST = re.compile(r"`(?:tests/)?((?:daemon/(?:shared/)?)?test_\w+\.py)::(test_\w+)`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#([\w-]+))?\)")


# ---- generated ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", generate.PAGES)
def test_a_generated_page_is_current(name: str) -> None:
    wanted = generate.PAGES[name]().rstrip("\n") + "\n"
    assert (DOCS / name).read_text(encoding="utf-8") == wanted, "run `python docs/generate.py`"


def test_every_message_has_its_section() -> None:
    assert not generate.undocumented()


def test_the_figure_is_drawn_from_the_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate.figure, "CHILDREN", generate.figure.CHILDREN[1:])
    with pytest.raises(ValueError, match="pilotd"):
        generate.figure.draw()


# ---- safety.md ----------------------------------------------------------------------------------------------------


@cache
def names_of_tests(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def value_of(name: str) -> float:
    """A default of the configuration, or a constant of a module."""
    first, _, last = name.rpartition(".")
    return float(getattr(importlib.import_module(first) if name.startswith("rov.") else getattr(DEFAULTS, first), last))


def test_every_number_of_the_safety_page_is_the_codes() -> None:
    found = NUMBER.findall((DOCS / "safety.md").read_text())
    named = re.findall(r"\(`[\w.]+`\)", (DOCS / "safety.md").read_text())
    assert len(found) == len(named) > 40, "a number in another form is not compared"
    for number, unit, name in found:
        scale = SCALES.get((name[-3:], unit), 1.0)
        share = 100.0 if unit == "%" else 1.0
        assert float(number) == pytest.approx(value_of(name) * share / scale), f"{name} is {value_of(name)}"


def test_every_safety_key_is_on_the_safety_page() -> None:
    text = (DOCS / "safety.md").read_text()
    keys = [
        f"{section}.{key}"
        for section, model in Config.model_fields.items()
        for key, field in model.annotation.model_fields.items()  # type: ignore[union-attr]
        if isinstance(field.json_schema_extra, dict) and "safer" in field.json_schema_extra
    ]
    about_units = {"steering.surge_max", "link.surface_pa", "link.density"}
    missing = {key for key in keys if f"`{key}`" not in text} - about_units
    assert len(keys) > 15 and not missing


def test_every_test_that_a_page_names_exists() -> None:
    for page in DOCS.glob("*.md"):
        for file, name in TEST.findall(page.read_text()):
            assert name in names_of_tests(ROOT / "tests" / file), f"{page.name}: tests/{file} has no {name}"


def test_every_condition_on_the_safety_page_is_held_by_a_test() -> None:
    page = (DOCS / "safety.md").read_text().partition("## What no test holds")[0]
    conditions = page.split("\n- **")[1:]
    assert len(conditions) > 35
    for each in conditions:
        assert TEST.search(each.partition("\n  Held by ")[2]), each


# ---- links --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", [*sorted(DOCS.glob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))]
)
def test_links_lead_somewhere(page: Path) -> None:
    for target, section in LINK.findall(page.read_text()):
        path = page.parent / target
        assert path.exists(), f"{page.name}: {target}"
        if section:
            heads = [
                re.sub(r"[^\w -]", "", line.lstrip("# ")) for line in path.read_text().splitlines() if line[:1] == "#"
            ]
            assert section in {head.lower().replace(" ", "-") for head in heads}, f"{page.name}: {target}#{section}"


def test_each_page_says_in_its_first_paragraph_what_it_is_for() -> None:
    for page in DOCS.glob("*.md"):
        lines = [line for line in page.read_text().splitlines() if line and not line.startswith("<!--")]
        assert lines[0].startswith("# ") and not lines[1].startswith(("#", "|", "```", "-")), page.name
