"""What contributors lean on: the workflow, the hooks, the templates and the changelog fit the project."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

import rov
from rov.resources import checkout

ROOT = checkout()


def test_the_workflow_is_short_and_calls_what_runs_here() -> None:
    text = (ROOT / ".github/workflows/test.yml").read_text()
    job = yaml.safe_load(text)["jobs"]["test"]
    assert len(text.splitlines()) <= 20
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci/run").stat().st_mode & 0o111, "it can be executed"
    assert {"contents": "read"} == yaml.safe_load(text)["permissions"]


def test_the_hooks_are_the_tools_of_the_environment() -> None:
    hooks = [
        hook
        for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in repo["hooks"]
    ]
    for hook in hooks:
        if hook["language"] == "system":
            for word in shlex.split(hook["entry"])[1:]:
                assert not word.endswith(".py") or (ROOT / word).is_file(), word
    (title,) = [hook["entry"] for hook in hooks if hook["id"] == "title"]
    for good in ("link: a board that restarts is tested again", "offline, imports: named steps", "Merge branch 'x'"):
        assert re.search(title, good)
    for bad in ("Fix the link", "WIP", "a fish's tail is one fin, twice", "link:"):
        assert not re.search(title, bad)


def test_the_templates_can_be_read() -> None:
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        assert form["name"] and form["description"] and form["body"]
        assert {part["type"] for part in form["body"]} <= {"markdown", "textarea", "input", "dropdown", "checkboxes"}
        assert all(part["attributes"]["label"] for part in form["body"] if part["type"] != "markdown")


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == rov.__version__
    numbers = [tuple(map(int, version.split("."))) for version in versions]
    assert numbers == sorted(set(numbers), reverse=True)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no clone: what is tracked is not known")
def test_the_weights_that_are_tracked_are_those_that_ship() -> None:
    """A training that was tried leaves checkpoints, and `git add` takes them."""
    said = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    weights = {
        Path(name) for name in said.splitlines() if Path(name).suffix in {".safetensors", ".pt", ".pth", ".ckpt"}
    }
    assert weights and {each.parent for each in weights} == {Path("models")}
    assert all((ROOT / each.with_suffix(".toml")).is_file() for each in weights), "each has its card"


def test_pages_named_in_code_and_texts_exist() -> None:
    """Prose names files as `docs/x.md` or `systemd/X.md`."""
    places = [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "rov").rglob("*.py"),
        *(ROOT / "rov").rglob("*.toml"),
    ]
    for place in places:
        for name in re.findall(r"\b((?:docs|systemd|models)/[\w-]+\.md)\b", place.read_text()):
            assert Path(ROOT / name).is_file(), f"{place.relative_to(ROOT)} names {name}"
