"""The install script: into an empty image, again without a change, and dry. Run with the real bash and files."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the script stands in; units are as small as can be."""
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
    told = install(checkout, "--root", str(image), "--dry-run")
    assert told.returncode == 0, told.stderr
    assert files(image) == {} and not list(image.iterdir())
    for words in (
        "would write: /etc/udev/rules.d/99-rov.rules",
        "would write: /etc/rov/rover.toml",
        "-m venv --system-site-packages /opt/rov/.venv",
        "pip install --quiet --upgrade -c /opt/rov/constraints.txt",
    ):
        assert words in told.stdout


def test_a_jetson_keeps_nvidias_torch(checkout: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    (image / "etc").mkdir(parents=True)
    (image / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3\n")
    told = install(checkout, "--root", str(image), "--dry-run", "--torch", "/tmp/torch-2.8.whl")
    assert told.returncode == 0, told.stderr
    assert "pip install --quiet -c /opt/rov/constraints.txt /tmp/torch-2.8.whl" in told.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--rot", "/"], "--rot: not known"), (["--root", "/nowhere/at/all"], "no such folder")],
)
def test_what_is_wrong_is_one_sentence(arguments: list[str], words: str, checkout: Path) -> None:
    told = install(checkout, *arguments)
    assert told.returncode == 2 and words in told.stderr and told.stderr.count("\n") == 1


def test_a_checkout_without_its_unit_is_refused(checkout: Path, tmp_path: Path) -> None:
    (checkout / "systemd" / "rov.service").unlink()
    told = install(checkout, "--root", str(tmp_path), "--no-venv")
    assert told.returncode == 2 and "rov.service is missing" in told.stderr
    assert not (tmp_path / "etc").exists()


def test_help_shows_how(checkout: Path) -> None:
    told = install(checkout, "--help")
    assert told.returncode == 0 and "--dry-run" in told.stdout and "--torch WHEEL" in told.stdout
