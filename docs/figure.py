"""Draws docs/architecture.svg: the processes, what each publishes, and the way of one picture from camera to thrusters.

The places are chosen by hand; the processes come from the supervisor's table and their topics from the table of topics,
so that the figure cannot show what is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from rov.messages import TOPICS
from rov.supervisor import CHILDREN

WIDTH, HEIGHT = 1160, 700
STYLE = """
  text { font: 13px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1b2733 }
  .title { font-weight: 700; font-size: 15px } .small { font-size: 12px; fill: #44525f }
  .topic { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 12px; fill: #0b5a8a }
  .head { font-size: 16px; font-weight: 700; fill: #1b2733 }
  .process { fill: #eaf3fa; stroke: #2b6c99 } .network { fill: #fdf1dc; stroke: #b9770e } 
  .front { fill: #fbe9e7; stroke: #b3462f }
  .outside { fill: #f4f6f7; stroke: #7b8a97; stroke-dasharray: 5 3 } .memory { fill: #e8f6ee; stroke: #2f8f5b }
  .arrow { fill: none; stroke: #2f3e4b; stroke-width: 1.6; marker-end: url(#tip) }
  .picture { fill: none; stroke: #c0392b; stroke-width: 3; marker-end: url(#red) }
  .mail { fill: none; stroke: #7b8a97; stroke-width: 1.4; stroke-dasharray: 2 4; marker-end: url(#tip) }
"""


class Box(NamedTuple):
    """One rectangle: its place, what stands in it, and its CSS class."""

    x: int
    y: int
    width: int
    height: int
    title: str
    lines: tuple[str, ...]
    look: str


PROCESSES = {
    box.title: box
    for box in (
        Box(180, 100, 150, 130, "camerad", ("reads the camera,", "drops damaged and", "frozen pictures"), "process"),
        Box(
            480,
            100,
            200,
            170,
            "perceptiond",
            ("rectifier → detector →", "tracker → steering", "(torch; may die)"),
            "network",
        ),
        Box(
            760,
            100,
            210,
            190,
            "pilotd",
            ("50 Hz, real time, no torch", "commander → controllers →", "allocation → guard → link"),
            "process",
        ),
        Box(760, 440, 150, 110, "commandd", ("lets only valid", "commands through"), "front"),
        Box(560, 440, 150, 110, "publicd", ("every message,", "to whoever listens"), "front"),
        Box(360, 440, 150, 110, "recorderd", ("dives, room on", "the disk"), "process"),
        Box(30, 440, 130, 110, "hostd", ("heat and power", "of the computer"), "process"),
        Box(190, 440, 140, 110, "supervisor", ("starts, watches,", "restarts all others"), "process"),
    )
}
OUTSIDE = (
    Box(20, 100, 110, 90, "camera", ("sea, film, or", "simulated sea"), "outside"),
    Box(370, 110, 70, 90, "ring", ("frames", "in shared", "memory"), "memory"),
    Box(1020, 100, 120, 110, "vehicle", ("a thruster board,", "or ArduSub and", "its own pilot"), "outside"),
    Box(560, 610, 350, 60, "operators and clients", ("rov drive · rov ctl · rov listen · rov.Client",), "outside"),
    Box(360, 610, 150, 60, "dives", ("dives/*.mcap",), "outside"),
    Box(190, 610, 140, 60, "rover.toml", ("edited live",), "outside"),
)
MAIL_Y = 380


def draw() -> str:
    """The figure as SVG."""
    names = {child.name for child in CHILDREN} | {"supervisor"}
    if names != PROCESSES.keys():
        raise ValueError(f"the figure and the supervisor's table differ in {names ^ PROCESSES.keys()}")
    legend = "State topics (blue) stand where they are published. Dotted: every message, to those who keep all."
    parts = [
        _text(20, 30, "The way of one picture (red), and who talks to whom", "head"),
        _text(20, 54, legend, "small"),
        *(_box(box, _published(name)) for name, box in PROCESSES.items()),
        *(_box(box, ()) for box in OUTSIDE),
        *_picture(),
        *_talk(),
        *_mail(),
    ]
    return _document(parts)


def _published(process: str) -> tuple[str, ...]:
    """The state topics of a process, two a line."""
    names = [name for name, topic in TOPICS.items() if topic.publisher == process and topic.kind == "state"]
    return tuple(" ".join(names[i : i + 2]) for i in range(0, len(names), 2))


def _picture() -> list[str]:
    """The way of a picture, from the camera to the thrusters."""
    return [
        _arrow([(130, 140), (178, 140)], "picture"),
        _arrow([(330, 140), (368, 140)], "picture"),
        _arrow([(440, 140), (478, 140)], "picture"),
        _arrow([(680, 140), (758, 140)], "picture"),
        _text(687, 132, "setpoint", "topic"),
        _arrow([(970, 140), (1018, 140)], "picture"),
        _text(972, 90, "MAVLink 2", "small"),
    ]


def _talk() -> list[str]:
    """Everything else that has a direction of its own."""
    return [
        _arrow([(255, 230), (255, 290), (540, 290), (540, 272)], "arrow"),
        _text(300, 284, "frame: number, time, slot", "small"),
        _arrow([(760, 230), (682, 230)], "arrow"),
        _text(690, 222, "vehicle", "topic"),
        _text(690, 246, "settings", "topic"),
        _arrow([(1018, 185), (972, 185)], "arrow"),
        _text(976, 232, "state of", "small"),
        _text(976, 247, "the vehicle", "small"),
        _arrow([(870, 440), (870, 292)], "arrow"),
        _text(878, 330, "commands", "small"),
        _arrow([(835, 610), (835, 552)], "arrow"),
        _text(845, 586, "commands (5556)", "small"),
        _arrow([(635, 550), (635, 608)], "arrow"),
        _text(645, 586, "messages (5555)", "small"),
        _arrow([(435, 550), (435, 608)], "arrow"),
        _arrow([(260, 610), (260, 552)], "arrow"),
        _arrow([(285, 440), (285, 330), (800, 330), (800, 292)], "arrow"),
        _text(330, 324, "config_edit: the saved rover.toml, checked", "small"),
    ]


def _mail() -> list[str]:
    """Every message of every process, to the three that keep or pass on all of them."""
    drops = [((x, y), (x, MAIL_Y)) for x, y in ((200, 230), (600, 270), (940, 290))]
    return [
        _line([(95, 440), (95, MAIL_Y), (960, MAIL_Y)]),
        *(_line(list(drop)) for drop in drops),
        _arrow([(220, MAIL_Y), (220, 438)], "mail"),
        _arrow([(435, MAIL_Y), (435, 438)], "mail"),
        _arrow([(635, MAIL_Y), (635, 438)], "mail"),
        _text(612, MAIL_Y - 8, "mail: every message, losses counted", "small"),
    ]  # fmt: skip


def _box(box: Box, topics: Sequence[str]) -> str:
    lines = [_text(box.x + 10, box.y + 22, box.title, "title")]
    lines += [_text(box.x + 10, box.y + 42 + 17 * i, line, "small") for i, line in enumerate(box.lines)]
    start = box.y + 46 + 17 * len(box.lines)
    lines += [_text(box.x + 10, start + 16 * i, line, "topic") for i, line in enumerate(topics)]
    shape = f'<rect class="{box.look}" x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="8"/>'
    return "\n  ".join([shape, *lines])


def _text(x: int, y: int, text: str, look: str) -> str:
    return f'<text class="{look}" x="{x}" y="{y}">{escape(text)}</text>'


def _arrow(points: Sequence[tuple[int, int]], look: str) -> str:
    return f'<polyline class="{look}" points="{" ".join(f"{x},{y}" for x, y in points)}"/>'


def _line(points: Sequence[tuple[int, int]]) -> str:
    return _arrow(points, "mail").replace('class="mail"', 'class="mail" style="marker-end: none"')


def _document(parts: Sequence[str]) -> str:
    tips = "".join(
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="{size}" markerHeight="{size}" '
        f'orient="auto"><path d="M0,0 L10,5 L0,10 z" fill="{colour}"/></marker>'
        for name, colour, size in (("tip", "#2f3e4b", 7), ("red", "#c0392b", 4))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">\n'
        f"<title>Processes of rov and the way of one picture</title>\n<style>{STYLE}</style>\n<defs>{tips}</defs>\n"
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n  ' + "\n  ".join(parts) + "\n</svg>\n"
    )
