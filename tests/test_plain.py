"""Names from files are printed as names: no escape reaches the terminal, nothing is markup, no password is shown."""

import ast
import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from rov.config.schema import ConfigError, parse
from rov.config.watcher import _cut
from rov.dives.dive import DiveWriter
from rov.messages import Frame
from rov.printing import hide_passwords, print_line, printable
from rov.resources import checkout
from rov.terminal import PlainConsole

NASTY = "[/red]\x1b[31m\x1b]0;title\x07\r\x9b2J\u202e\u2028\udcff\x00"


def test_what_moves_a_terminal_is_spelled_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable("größe 5 µm 🐟 µ\u202f") == "größe 5 µm 🐟 µ\u202f"
    assert printable("a\x1b[31mb\r\n\t") == r"a\x1b[31mb\r\n\t"
    assert printable("\x7f\x9b\u202e\U000e0001") == r"\u007f\u009b\u202e\udb40\udc01", "as JSON has it"
    assert printable(Path("caf\udce9.mp4")) == r"caf\xe9.mp4", "a name that is no UTF-8"
    print_line(f"one\n{NASTY}")
    first, second, end = capsys.readouterr().out.split("\n")
    assert first == "one" and second == printable(NASTY) and second.isprintable() and end == ""


def test_tables_take_text_as_text() -> None:
    out = io.StringIO()
    table = Table(NASTY, "b", title=NASTY)
    table.add_row("[/b] :smile:", NASTY, style="red")
    table.add_row(Text("ok", "green"), "")
    screen = PlainConsole(file=out, width=200)
    screen.print(table)
    screen.print(NASTY)
    text = out.getvalue()
    assert "[/b] :smile:" in text and text.count("[/red]\\x1b[31m") == 4
    assert all(each.isprintable() or each == "\n" for each in text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://ann:hunter2@10.0.0.1:554/s", "rtsp://ann:***@10.0.0.1:554/s"),
        ("x 'rtsp://ann:hunter2@h/s' y", "x 'rtsp://ann:***@h/s' y"),
        ("http://:hunter2@h/", "http://***@h/"),
        ("https://hunter2@h/", "https://***@h/"),
        ("rtsp://ann:p@ss/hunter2:1@h/s", "rtsp://ann:***@h/s"),
        ("rtsp://h/user=ann&password=hunter2&channel=1", "rtsp://h/user=ann&password=***&channel=1"),
        ("rtsp://h/user=ann_password=hunter2_channel=1", "rtsp://h/user=ann_password=***_channel=1"),
        ("http://h/video.cgi?user=ann&pwd=hunter2", "http://h/video.cgi?user=ann&pwd=***"),
        ("pipe:640x480:ffmpeg -i rtsp://a:hunter2@h/1 -f rawvideo -", None),
        ("rtsp://10.0.0.1:554/s", "rtsp://10.0.0.1:554/s"),
        ("write to ann@example.org", "write to ann@example.org"),
    ],
)
def test_passwords_of_addresses_are_not_shown(text: str, shown: str | None) -> None:
    assert "hunter2" not in hide_passwords(text) + printable(text) + _cut(text)
    assert shown is None or hide_passwords(text) == shown
    assert "hunter2" not in _cut(text.replace("hunter2", "hunter2" * 100)), "hidden before it is cut"


def test_a_configuration_with_a_password_is_refused_without_it() -> None:
    with pytest.raises(ConfigError) as caught:
        parse('[vehicle]\nmax_depth = 1\n[camera]\nsource = ["rtsp://ann:hunter2@h/s"]')
    assert "hunter2" not in str(caught.value) and "camera.source" in str(caught.value)


def test_a_dive_of_strange_names_is_looked_into(tmp_path: Path) -> None:
    path = tmp_path / "d.mcap"
    with DiveWriter(path, {"[/red]\x1b[31mkey": "value\x1b]0;x\x07\nproblem: forged"}) as dive:
        dive.write("frame", Frame(t=1, frame_id=0, frame_t=1, width=8, height=6))
    path.write_bytes(path.read_bytes().replace(b"frame", b"[/x]\x1b"))
    command = [sys.executable, "-m", "rov", "dive", "info", str(path)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=checkout(), check=False)
    assert run.returncode in (0, 1) and "Traceback" not in run.stderr
    assert "\x1b" not in run.stdout + run.stderr and "\nproblem: forged" not in run.stdout


def test_everything_is_printed_through_one_function() -> None:
    """Only `rov.printing` prints, and only `rov.terminal` and the page of `rov drive` use rich's console."""
    for path in sorted((checkout() / "rov").rglob("*.py")):
        tree = ast.parse(path.read_text())
        names = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert path.name == "printing.py" or "print" not in names, path
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert path.name == "terminal.py" or "rich.console" not in imported or path.name == "drive.py", path
