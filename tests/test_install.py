"""The install script: into an empty image, again without a change, and dry. Run with the real bash and files."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout as the script expects it, with the smallest possible unit files."""
    folder = tmp_path / "checkout"
    (folder / "systemd").mkdir(parents=True)
    shutil.copy(ROOT / "systemd" / "install", folder / "systemd")
    for name, text in (
        ("rov.service", "[Service]\nExecStart=/opt/rov/.venv/bin/rov run\n"),
        ("99-rov.rules", "# none\n"),
    ):
        real = ROOT / "systemd" / name
        (folder / "systemd" / name).write_text(real.read_text() if real.exists() else text)
    for name in ("rover.toml", "constraints.txt", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def install(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.environ["PATH"]
    command = [str(checkout / "systemd" / "install"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={"PATH": path})


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_an_image_gets_all_and_the_second_time_nothing(checkout: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    first = install(checkout, "--root", str(image), "--no-venv")
    assert first.returncode == 0, first.stderr
    there = files(image)
    for name in (
        "etc/sysusers.d/rov.conf",
        "etc/udev/rules.d/99-rov.rules",
        "etc/security/limits.d/99-rov.conf",
        "etc/systemd/journald.conf.d/rov.conf",
        "etc/systemd/system/rov.service",
        "etc/rov/rover.toml",
    ):
        assert name in there, name
    wants = image / "etc/systemd/system/multi-user.target.wants/rov.service"
    assert os.readlink(wants) == "/etc/systemd/system/rov.service"
    assert b"rtprio   50" in there["etc/security/limits.d/99-rov.conf"]
    (image / "etc/rov/rover.toml").write_text("mine")
    again = install(checkout, "--root", str(image), "--no-venv")
    assert again.returncode == 0 and ": written" not in again.stdout
    assert (image / "etc/rov/rover.toml").read_text() == "mine"


def test_a_dry_run_touches_nothing(checkout: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    run = install(checkout, "--root", str(image), "--dry-run")
    assert run.returncode == 0, run.stderr
    assert files(image) == {} and not list(image.iterdir())
    for words in (
        "would write: /etc/udev/rules.d/99-rov.rules",
        "would write: /etc/rov/rover.toml",
        "-m venv --system-site-packages /opt/rov/.venv",
        "pip uninstall -qq --yes rov",
        "pip install --quiet --upgrade -c /opt/rov/constraints.txt /opt/rov/source[vision,report]",
    ):
        assert words in run.stdout


def test_a_jetson_keeps_nvidias_torch(checkout: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    (image / "etc").mkdir(parents=True)
    (image / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3\n")
    run = install(checkout, "--root", str(image), "--dry-run", "--torch", "/tmp/torch-2.8.whl")
    assert run.returncode == 0, run.stderr
    assert "pip install --quiet -c /opt/rov/constraints.txt /tmp/torch-2.8.whl" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--rot", "/"], "--rot: not known"), (["--root", "/nowhere/at/all"], "no such folder")],
)
def test_what_is_wrong_is_one_sentence(arguments: list[str], words: str, checkout: Path) -> None:
    run = install(checkout, *arguments)
    assert run.returncode == 2 and words in run.stderr and run.stderr.count("\n") == 1


def test_a_checkout_without_its_unit_is_refused(checkout: Path, tmp_path: Path) -> None:
    (checkout / "systemd" / "rov.service").unlink()
    run = install(checkout, "--root", str(tmp_path), "--no-venv")
    assert run.returncode == 2 and "rov.service is missing" in run.stderr
    assert not (tmp_path / "etc").exists()


def test_help_shows_how(checkout: Path) -> None:
    run = install(checkout, "--help")
    assert run.returncode == 0 and "--dry-run" in run.stdout and "--torch WHEEL" in run.stdout


# ---- versions ----------------------------------------------------------------------------------------------------

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
WANTED = [
    each
    for each in map(Requirement, (*PROJECT["dependencies"], *EXTRAS["vision"], *EXTRAS["report"], *EXTRAS["dev"]))
    if each.name != PROJECT["name"]
]
"""What `make` installs, and with it `systemd/install`."""
PINS = [
    Requirement(line)
    for line in (text.partition("#")[0].strip() for text in (ROOT / "constraints.txt").read_text().splitlines())
    if line
]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_is_wanted_is_pinned_to_a_version_that_is_wanted(python: str, machine: str) -> None:
    where = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "extra": "dev",
    }
    pinned: dict[str, str] = {}
    for pin in PINS:
        if pin.marker is None or pin.marker.evaluate(where):
            (version,) = pin.specifier
            assert version.operator == "==" and not pin.url, f"{pin} is no pin"
            assert canonicalize_name(pin.name) not in pinned, f"{pin.name} is pinned twice for {python}"
            pinned[canonicalize_name(pin.name)] = version.version
    for each in WANTED:
        if each.marker is None or each.marker.evaluate(where):
            version = pinned.get(canonicalize_name(each.name), "none")
            assert version != "none" and each.specifier.contains(version), f"{each}: {version} for Python {python}"


def test_all_of_rov_is_what_make_and_the_installer_take() -> None:
    assert f"{PROJECT['name']}[vision,report]" in EXTRAS["dev"]
    assert '"/opt/rov/source[vision,report]"' in (ROOT / "systemd" / "install").read_text()
    assert "-e '.[dev]'" in (ROOT / "Makefile").read_text()


def test_condas_environment_is_the_same() -> None:
    """conda itself is not run: its file is read as YAML of one known shape."""
    lines = [line for line in (ROOT / "environment.yml").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "name: rov"
    listed = {line.strip().removeprefix("- "): len(line) - len(line.lstrip()) for line in lines[1:]}
    assert listed == {
        "channels:": 0, "conda-forge": 2, "dependencies:": 0, "python=3.12": 2, "pip": 2, "pip:": 2,
        "-c constraints.txt": 6, "-e .[dev]": 6,
    }  # fmt: skip
    (python,) = (name.partition("=")[2] for name in listed if name.startswith("python="))
    assert python in PYTHONS and SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.0")
    assert "dev" in PROJECT["optional-dependencies"] and (ROOT / "constraints.txt").is_file()


# ---- the manual --------------------------------------------------------------------------------------------------


def test_the_manual_names_every_line_of_the_check_list() -> None:
    manual = (ROOT / "systemd" / "README.md").read_text().partition("## 4.")[2].partition("## 5.")[0]
    tree = ast.parse((ROOT / "rov" / "host" / "predive.py").read_text())
    lines = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Finding", "_usable")
        if node.args and isinstance(node.args[0], ast.Constant)
    } | {"perception", "recording"}
    assert len(lines) > 12
    assert not {line for line in lines if str(line) not in manual}
