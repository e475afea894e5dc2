"""Every reported code can be looked up: table and source name the same codes, and what was printed finds them."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from rov.errors import UserError
from rov.event_codes import OVER, event_codes, find_code
from rov.resources import checkout
from rov.service.log import LEVELS, LineFormatter

ROOT = checkout()
CODE = re.compile(r"[a-z]+(_[a-z]+)*")
REPORTERS = {
    "Event",
    "Notice",
    "of",
    "report",
    "_event",
    "event",
    "_check_alarm",
    "_change_mode",
    "publish_event",
    "_fail",
}
"""Functions that make an event, or log a line with a code, whatever their arguments are called."""
CODE_AT = {"Alarm": 0, "_check_alarm": 0, "_end_control": 1, "_disconnect": 2}
"""Which argument is the code, in functions whose callers do not name a level."""


def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in sorted((ROOT / "rov").rglob("*.py"))}


def is_level(node: ast.AST) -> bool:
    """`"alarm"`, `level`, or a choice with one of these."""
    if isinstance(node, ast.IfExp):
        return is_level(node.body) or is_level(node.orelse)
    return isinstance(node, ast.Constant) and node.value in LEVELS or isinstance(node, ast.Name) and node.id == "level"


def literals(node: ast.AST) -> set[str]:
    """Names like codes among an expression's strings; of `f"{code}_over"` nothing, of `f"pilot_{what}"` nothing."""
    inside = {id(part) for each in ast.walk(node) if isinstance(each, ast.JoinedStr) for part in ast.walk(each)}
    return {
        each.value
        for each in ast.walk(node)
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and id(each) not in inside
        if CODE.fullmatch(each.value) and each.value not in LEVELS
    }


@cache
def reported_codes() -> set[str]:
    """Every code in the source: where a function that reports is called (known by its name, or because it takes a
    `code: str`), the string that follows a level, `code=…` and `extra={"code": …}`; and tables of rows with a level."""
    found: set[str] = set()
    sources = trees()
    takers = {
        node.name
        for tree in sources.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and "code: str" in ast.unparse(node.args)
    }
    for tree in sources.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                for i, argument in enumerate(node.args):
                    if name in REPORTERS | takers and is_level(argument):
                        found |= set().union(*map(literals, node.args[i + 1 : i + (3 if name == "report" else 2)]))
                for keyword in node.keywords:
                    if keyword.arg == "code":
                        found |= literals(keyword.value)
                    if keyword.arg == "extra" and isinstance(keyword.value, ast.Dict):
                        found |= literals(keyword.value.values[-1])
                if name in CODE_AT and len(node.args) > CODE_AT[name]:
                    found |= literals(node.args[CODE_AT[name]])
            elif isinstance(node, ast.FunctionDef) and node.name in ("_obstacle", "obstacle"):
                returned = [each.value for each in ast.walk(node) if isinstance(each, ast.Return)]
                found |= set().union(*(literals(each.elts[0]) for each in returned if isinstance(each, ast.Tuple)))
            elif isinstance(node, ast.Dict):
                for key, row in zip(node.keys, node.values, strict=True):
                    if key is not None and isinstance(row, ast.Tuple) and is_level(row.elts[0]):
                        found |= literals(key)
    return found


def test_the_search_sees_each_way_of_reporting() -> None:
    found = reported_codes()
    assert {"leak", "tilted", "gave_up", "heat_near", "camera_lost", "warm", "crashed", "refused", "ready"} <= found
    assert {"dive_cut_off", "disk_full", "calibration_refused", "autopilot_text", "surface_refused"} <= found
    assert {"gcs_lost", "autopilot_lost", "pilot_switch", "board_deaf"} <= found, "what an obstacle returns"


def test_every_code_in_the_source_is_in_the_table() -> None:
    missing = {code.removesuffix(OVER) for code in reported_codes()} - event_codes().keys()
    assert not missing, f"rov/event_codes.toml does not explain {missing}"


def test_every_code_of_the_table_is_in_the_source() -> None:
    """No row outlives its code. Some codes are put together, or come from a function: they are still strings."""
    strings = set().union(*(re.findall(r"[a-z_]+", path.read_text()) for path in (ROOT / "rov").rglob("*.py")))
    assembled = {"pilot_mode", "pilot_disarmed"}  # f"pilot_{what}" of ardusub/link.py
    assert not event_codes().keys() - strings - assembled


def test_the_levels_of_a_code_are_levels() -> None:
    for name, code in event_codes().items():
        assert code.levels and set(code.levels) <= LEVELS.keys() - {"debug"}, name
        assert code.advice or not {"alarm", "error"} & set(code.levels), f"{name}: what does the operator do?"
        assert not code.happened.endswith(".") and code.happened, name


@pytest.mark.parametrize("code", event_codes())
def test_what_is_printed_is_found(code: str) -> None:
    line = LineFormatter("x", journal=False).line(30, "pilot", code, "camera: no frame; mode hold: leak", 0.0)
    assert find_code(line) == find_code(code) == find_code(f"{code}{OVER}") == code
    assert find_code(f"<4>warning supervisor {code}: restarted") == code


def test_what_no_code_is_gets_a_hint() -> None:
    with pytest.raises(UserError, match="did you mean depth_lost"):
        find_code("dept_lost")
    with pytest.raises(UserError, match="lists all codes"):
        find_code("42")
