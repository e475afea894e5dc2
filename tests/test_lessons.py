"""The newcomer's page (models/README.md): its blocks run as printed, its commands and files are there; and the versions
of the training environment."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from rov.resources import checkout
from tests.commands import Run, python_m, rov

pytestmark = pytest.mark.patient

ROOT = checkout()
PAGE = (ROOT / "models/README.md").read_text()
CHEAP = ("rov models list", "rov models show detector", "python -m models.train_detector --help")
"""Commands of the page that run here. Those of practice run in tests/train; the rest needs an owner's data."""


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line.strip() for block in blocks("sh") for line in block.splitlines() if line.strip()]


def run(command: str, *more: str, cwd: Path = ROOT) -> Run:
    """A printed command, in this process."""
    words = [*shlex.split(command), *more]
    if words[0] == "rov":
        return rov(*words[1:], cwd=cwd)
    assert words[0].endswith("python") and words[1] == "-m", command
    return python_m(*words[2:], cwd=cwd)


def test_the_python_blocks_run_one_after_the_other() -> None:
    code = "\n".join(blocks("python"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "torch.Size([2, 3, 120, 160]) torch.float32" in done.stdout
    assert "tensor(-16.)" in done.stdout, "the slope by hand"
    slope, offset = map(float, re.findall(r"slope ([\d.]+), offset ([\d.]+)", done.stdout)[0])
    assert abs(slope - 1.5) < 0.1 and abs(offset - 2.0) < 0.3


@pytest.mark.parametrize("command", CHEAP)
def test_the_cheap_commands_run_as_printed(command: str) -> None:
    assert command in commands()
    done = run(command)
    assert done.returncode == 0 and done.stdout, done.stderr


def test_a_table_becomes_a_set_as_printed_and_is_refused_without_a_card(tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text("date,close\n2018-03-26,172.77\n2018-03-27,168.34\n")
    (make,) = [each for each in commands() if " import prices.csv" in each]
    (look,) = [each for each in commands() if " check " in each]
    for command, code in ((make, 0), (look, 1)):
        done = run(command, cwd=tmp_path)
        assert done.returncode == code, done.stderr
    assert "licence is missing" in done.stdout and "source is missing" not in done.stdout


def options() -> Iterator[tuple[str, str]]:
    """(the command without arguments, an option that the page gives it)."""
    for command in commands():
        if command.startswith("make "):
            continue
        words = re.sub(r'"[^"]*"', "TEXT", command).split()
        at = 3 if words[1] == "-m" else 1  # after `python -m module` or `rov`
        verb = words[at : at + 2] if words[0] == "rov" else words[at : at + 1]
        base = [*words[:at], *(word for word in verb if re.fullmatch("[a-z]+", word))]
        for word in words:
            if word.startswith("--") and word != "--help":
                yield " ".join(base), word


def test_every_option_on_the_page_exists() -> None:
    wanted: dict[str, set[str]] = {}
    for base, option in options():
        wanted.setdefault(base, set()).add(option)
    assert len(wanted) >= 2
    for base, names in wanted.items():
        done = run(base, "--help")
        assert done.returncode == 0, (base, done.stderr)
        assert names <= set(re.findall(r"--[a-z][a-z-]*", done.stdout)), (base, names)


def test_files_that_the_page_names_are_there() -> None:
    named = set(re.findall(r"`((?:practice|models|rov)/[\w/.-]+\.(?:py|toml))`", PAGE)) | set(
        re.findall(r"\]\(([\w.]+\.md)\)", PAGE)
    )
    assert len(named) > 8
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "models" / name).exists(), name


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed here")
def test_without_torchvision_practice_says_how_to_install_it() -> None:
    done = python_m("models.practice", "--model", "softmax")
    assert done.returncode == 2 and "make .venv-train/ready" in done.stderr and "Traceback" not in done.stderr


# ---- the training environment --------------------------------------------------------------------------------------


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_what_training_wants_is_pinned(python: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins: dict[str, str] = {}
    for name in ("constraints.txt", "constraints-train.txt"):
        for line in (each.partition("#")[0].strip() for each in (ROOT / name).read_text().splitlines()):
            pin = Requirement(line) if line else None
            if pin and (pin.marker is None or pin.marker.evaluate({"python_version": python})):
                (version,) = pin.specifier
                assert version.operator == "==" and not pin.url, f"{name}: {pin} is no pin"
                both = canonicalize_name(pin.name)
                assert both not in pins or both == "torch", f"{pin.name} is pinned twice for Python {python}"
                pins[both] = version.version
    assert pins["torch"].startswith("2.14") and pins["torchvision"].startswith("0.29"), "these two import together"
    for each in map(Requirement, project["optional-dependencies"]["train"]):
        assert each.specifier.contains(pins[canonicalize_name(each.name)]), each
