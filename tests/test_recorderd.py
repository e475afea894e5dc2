"""The recorder's process: whatever has become of its folder, it lives, says so once, and records as soon as it can."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rov.bus import Reader, inbox
from rov.dives.recovery import info
from rov.messages import Event, Health, Message
from tests.daemon.harness import environment

pytestmark = pytest.mark.clock


class Recorder:
    """The process, and what it says."""

    def __init__(self, folder: Path, mail: Reader):
        self.dives, self.mail = folder / "dives", mail
        self.heard: list[Message] = []

    def codes(self) -> list[str]:
        self.heard += [entry.message for entry in self.mail.receive()]
        return [each.code for each in self.heard if isinstance(each, Event)]

    def until(self, found: Callable[[], object]) -> None:
        end = time.monotonic() + 30.0
        while not found():
            assert time.monotonic() < end, self.heard[-20:]
            time.sleep(0.02)


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Its folder of dives is a file."""
    root = tmp_path / "run"
    root.mkdir(0o700)
    (tmp_path / "dives").write_text("no folder")
    (tmp_path / "rover.toml").write_text(
        f'[vehicle]\nmax_depth = 30\n[recording]\nfolder = "{tmp_path / "dives"}"\n'
        "keep_gb = 0.0\nkeep_share = 0.0\ndisk_free = 0.01\n"
    )
    mail = inbox("public", root)
    command = [sys.executable, "-m", "rov.recorderd", str(tmp_path / "rover.toml"), str(root)]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Recorder(tmp_path, mail)
            process.terminate()
            assert process.wait(10) == 0
            assert process.stderr is not None and process.stderr.read() == ""
        finally:
            process.kill()
            mail.close()


def test_whatever_becomes_of_the_folder(recorder: Recorder) -> None:
    def dives() -> list[Path]:
        return sorted(recorder.dives.glob("20*.mcap"))

    recorder.until(lambda: "recording_failed" in recorder.codes())
    (said,) = [each for each in recorder.heard if isinstance(each, Event)]
    assert "is a file, not a folder" in said.text and "recording.folder" in said.text
    recorder.until(lambda: recorder.codes() and sum(isinstance(each, Health) for each in recorder.heard) >= 2)
    assert recorder.codes() == ["recording_failed"], "once"

    new = recorder.dives.with_name("new")
    new.mkdir()
    (new / "old.mcap").symlink_to("nowhere")
    (new / "folder.mcap").mkdir()
    os.mkfifo(new / "pipe.mcap")
    Path(os.fsdecode(os.fsencode(new) + b"/\xff.mcap")).write_bytes(b"what is this")
    recorder.dives.unlink()
    new.rename(recorder.dives)
    recorder.until(lambda: recorder.codes().count("dive_skipped") == 4 and dives())
    recorder.until(lambda: "recording_failed_over" in recorder.codes())

    (first,) = dives()
    shutil.rmtree(recorder.dives)
    recorder.until(lambda: "recording_lost" in recorder.codes() and dives())
    (second,) = dives()
    assert second != first
    recorder.until(lambda: second.stat().st_size > 2000)
    second.rename(recorder.dives / "20-moved.mcap")
    recorder.until(lambda: recorder.codes().count("recording_lost") == 2 and len(dives()) == 2)
    time.sleep(1.2)
    assert recorder.codes().count("recording_lost") == 2
    assert info(recorder.dives / "20-moved.mcap").complete, "what was moved away is whole"
