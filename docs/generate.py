"""Writes the pages that follow from the code: `python docs/generate.py`. A test compares them with the code.

topics.md          the table of topics and every message, from `rov/messages.py`
alarms.md          every code of an event, from `rov/event_codes.toml`
architecture.svg   the figure of architecture.md: processes from the supervisor's table, topics from the table of topics
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout without an installed rov

from docs import figure
from rov import messages, toml
from rov.event_codes import event_groups
from rov.messages import SCHEMA_VERSION, TOPICS, AnyCommand, Command, FromFrame, Message, Mode, Reply

DOCS = Path(__file__).resolve().parent
GENERATED = "<!-- Written by docs/generate.py; do not edit. -->"
PARTS = (messages.Detection, messages.Track, messages.Setting)
"""Structs that stand inside of messages."""


class Field(NamedTuple):
    """One field of a message, as the source describes it."""

    name: str
    type: str
    default: str
    text: str


# ---- topics.md ---------------------------------------------------------------------------------------------------


def classes() -> dict[str, ast.ClassDef]:
    """The classes of `rov/messages.py`: Python itself does not keep the docstrings of fields."""
    tree = ast.parse(inspect.getsource(messages))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def fields(node: ast.ClassDef) -> Iterator[Field]:
    """The fields that a class declares itself. A docstring belongs to the field above it."""
    for i, each in enumerate(node.body):
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            after = node.body[i + 1] if i + 1 < len(node.body) else None
            text = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                text = inspect.cleandoc(str(after.value.value)).replace("\n", " ")
            default = "" if each.value is None else ast.unparse(each.value)
            yield Field(each.target.id, ast.unparse(each.annotation), default, text)


def table(node: ast.ClassDef) -> str:
    rows = list(fields(node))
    if not rows:
        return ""
    lines = ["", "| field | type | default | |", "|---|---|---|---|"]
    for name, kind, default, text in rows:
        shown = f"`{default}`" if default else ""
        lines.append(f"| `{name}` | {code(kind)} | {shown} | {cell(text)} |")
    return "\n".join(lines) + "\n"


def code(text: str) -> str:
    return "`" + text.replace("'", '"').replace("|", "\\|") + "`"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def document(kind: type, level: str = "###") -> str:
    """A section about a struct: its docstring and its own fields."""
    text = inspect.cleandoc(kind.__doc__ or "").replace("\n", " ")
    base = " It came from a frame and has its `frame_id` and `frame_t`." if FromFrame in kind.__mro__ else ""
    return f"{level} {kind.__name__}\n\n{text}{base}\n{table(classes()[kind.__name__])}"


def first_sentence(kind: type) -> str:
    return cell(" ".join((kind.__doc__ or "").split()).partition(". ")[0].rstrip("."))


def topics() -> str:
    """docs/topics.md."""
    rows = "\n".join(
        f"| `{name}` | [{topic.type.__name__}](#{topic.type.__name__.lower()}) | {topic.publisher} | {topic.kind} | "
        f"{f'{topic.hz:g}' if topic.hz else ''} | {first_sentence(topic.type)} |"
        for name, topic in TOPICS.items()
    )
    kinds = [topic.type for topic in TOPICS.values() if topic.type is not Command]
    commands = "\n".join(
        f'{document(kind)}\nOn the wire: `"verb": "{kind.__struct_config__.tag}"`.\n' for kind in get_args(AnyCommand)
    )
    modes = "\n".join(f"| `{mode.value}` | {comment} |" for mode, comment in zip(Mode, _mode_comments(), strict=True))
    return f"""{GENERATED}

# Topics and messages

Everything that rov says and hears: which topics there are, who publishes them how often, and every field with its
unit. Read it to write a client, a tool that reads dives, or a process of your own. In Python you need no wire format:
[client.md](client.md).

| topic | message | publisher | kind | Hz | |
|---|---|---|---|---|---|
{rows}

**state**: the latest wins, older ones may be lost. **event**: each one counts; queues are bounded and losses are
counted. The rates of camera and perception are the defaults; `camera.fps` and `perception.rate_hz` change them.

**Conventions.** Times `t` are monotonic ns of the vehicle's computer (in a replay: recorded time); `clock` gives the
date. World axes are NED, body axes FRD: surge forward, sway starboard, heave down, yaw clockwise seen from above.
Angles are in rad, depth in m, positive down. Boxes are `(x1, y1, x2, y2)` in pixels of the original picture. Commands
to thrusters and axes are −1..1.

**On the wire** a payload is one msgpack object `[{SCHEMA_VERSION}, {{"field": value, …}}]`, the schema version first.
At the public endpoint (`bus.public`, ZeroMQ SUB) a message is `[topic, payload]`; at the command endpoint
(`bus.commands`, DEALER or REQ) each payload is answered with a [Reply](#reply). Readers ignore fields that they do not
know. A field with a default may be absent in what older versions wrote. In a dive each topic is a channel of the same
name with JSON messages.

Every message has `t`, when it was made. What was computed from a frame also has `frame_id` and `frame_t`, the capture
time of that frame.

## Modes

| mode | |
|---|---|
{modes}

## Messages

{chr(10).join(document(kind) for kind in kinds)}
## Commands

All have `t`, `session` and `seq`. {" ".join(inspect.cleandoc(Command.__doc__ or "").split())}

{commands}
{document(Reply)}
## Parts of messages

{chr(10).join(document(kind) for kind in PARTS)}"""


def _mode_comments() -> list[str]:
    """What the source says about each mode, in its order."""
    lines = inspect.getsource(Mode).splitlines()
    return [line.partition("#")[2].strip() for line in lines if " = " in line]


def undocumented() -> list[str]:
    """Messages and parts of the vocabulary that no section covers."""
    covered = {topic.type for topic in TOPICS.values()} | set(get_args(AnyCommand)) | set(PARTS) | {Reply}
    roots = {Message, FromFrame, Command}
    known = [each for each in vars(messages).values() if isinstance(each, type) and issubclass(each, msgspec.Struct)]
    return [each.__name__ for each in known if each not in covered | roots]


# ---- alarms.md ---------------------------------------------------------------------------------------------------


def alarms() -> str:
    """docs/alarms.md."""
    head = "| code | level | what happened | what rov does | what you do |\n|---|---|---|---|---|"
    sections = []
    for group in event_groups():
        rows = [
            f"| `{name}` | {', '.join(each.levels)} | {each.happened} | {each.reaction} | {each.advice} |"
            for name, each in group.codes.items()
        ]
        sections.append("\n".join([f"## {group.title}\n", head, *rows, ""]))
    return f"""{GENERATED}

# What every alarm means

The code that was printed is in a table below: what happened, what rov does about it, what you do. At the vehicle
`rov explain CODE` says the same, without this page; a whole line may be pasted, too.

```
12:03:04 alarm pilot depth_lost: depth is unknown or old
   │       │     │        └ code: look it up here. With `_over` at its end: the condition has ended
   │       │     └ source: the process or stage that reports it
   │       └ level: info; warning: it limits something; alarm: it acted, or you must; error: about itself
   └ local time; in the journal (`journalctl -u rov -p warning`) systemd adds it
```

`rov run` prints these lines, `rov listen events` and `rov drive` show them from elsewhere, the journal and every dive
keep them (`rov dive info` counts the alarms).

{chr(10).join(sections)}"""


# ---- models.md ---------------------------------------------------------------------------------------------------

SEEN = {
    "e581ce0b": """One for pools, tanks, reefs and divers: before, three files shared the work, and each found
0.47 to 0.51 of what this one finds 0.66 of. It follows a simulated diver by camera (`tests/test_dive_sim.py`), and was
trained on no real one. Of scene B's red buoys, which it never saw, it finds 93 % at 98 % precision, and 95.0 % at
97.9 % from a score of 0.45 on (in that scene's pictures; other scenes have false ones). Of rendered fish near the
camera it finds 76 % at a score of 0.5, the weights before 24 %: most scored 0.3, some as a diver. Shown the same
pictures at 352 px (`light`) it finds 0.62.""",
}
"""What was seen when these weights were tried, by the first digits of their hash: others are to be tried anew."""
FAST = """## How fast

One picture at a time on one thread (AMD EPYC with AVX2, no bfloat16, beside other work), each in its turn, 25 times:
median processor time. `rov` runs torch; YOLO26n stands here with random weights, as exported by ultralytics.

| | torch | ONNX Runtime | of YOLO26n's time |
|---|---|---|---|
| ours at 352 px (`light`) | 35 ms | 25 ms | 0.25 |
| ours at 480 px (`detector`) | 56 ms | 45 ms | 0.47 |
| ours at 512 px | 66 ms | 52 ms | 0.53 |
| ours at 640 px | 99 ms | 80 ms | 0.81 |
| YOLO26n at 640 px | | 99 ms | 1 |

The last column compares ONNX Runtime, where both are fastest.

## Beside YOLO26n

Both learned from the same 1,799 real and some 4,100 rendered pictures at the same time on one H100: ours 401,000 in
8 minutes from the weights before, YOLO26n (ultralytics 8.4.190, its own augmentation and schedule, 640 px) 141,000 in 7
from random weights; what a set does not label is background to it. mAP50 by our code, scores from 0.01, up to 128
objects in a picture.

| | `detector`, one training ago | YOLO26n |
|---|---|---|
| transdec/L | 0.78 | 0.65 |
| tub/B04 | 0.83 | 0.88 |
| aquarium/valid | 0.58 | 0.64 |
| rov25/val | 0.66 | 0.76 |
| transdec/B | 0.92 | 0.58 |
| tub/B02 | 0.49 | 0.62 |
| all 739 | 0.67 (0.59 to 0.81) | 0.68 (0.62 to 0.77) |

YOLO26n finds as much, in twice the time; where things are small its larger input tells. From random weights alone, by
the recipe `models/recipes/detector.toml`, ours reaches 0.66. Most users start from COCO weights: what those would
add was not measured.
The shipped weights have learned near fish since, on a processor, and find 0.66 of the same pictures.
"""
"""Measured by hand."""
MEASURES = ("ap50", "ap50_95", "precision", "recall", "labels")


def models() -> str:
    """docs/models.md."""
    cards = {path: toml.parse(toml.read_text(path)) for path in sorted((DOCS.parent / "models").glob("*.toml"))}
    detectors = [model(path, card) for path, card in cards.items() if "classes" in card and "metrics" in card]
    return f"""{GENERATED}

# What the shipped models see, and what not

A detector is weights and a card beside them, `models/NAME.safetensors` and `.toml`; `perception.weights` chooses one.
This page is what the cards say, in short: read it before you trust one. To teach it your own classes:
[models/TEACH.md](../models/TEACH.md).

AP50 is the area under the curve of precision over recall, for boxes that overlap by half; precision and recall are
those at a score of 0.5. `val` are pictures that training did not see but decisions did; `test` are of places that
neither saw. Few labels (the last column) make a figure that could be chance.

{side_by_side(cards)}
{FAST}
{chr(10).join(detectors)}"""


def side_by_side(cards: dict[Path, dict[str, Any]]) -> str:
    """A table of mAP50 per real scene and detector, and over all pictures with its interval."""
    scenes = {path.stem: real_scenes(card) for path, card in cards.items() if "scenes" in card}
    every = dict.fromkeys(scene for rows in scenes.values() for scene in rows)
    if not every:
        return ""
    lines = [f"| mAP50 | {' | '.join(f'`{name}`' for name in scenes)} |", "|---" * (len(scenes) + 1) + "|"]
    for scene in every:
        lines.append(f"| {scene} | {' | '.join(str(rows.get(scene, '')) for rows in scenes.values())} |")
    told = """The same pictures and code for each (`python -m models.measure`). The interval is a bootstrap over
clips, of which there are few."""
    return f"## Side by side\n\n{told}\n\n" + "\n".join(lines) + "\n"


def real_scenes(card: dict[str, Any]) -> dict[str, str]:
    """mAP50 of each real scene of a card, and last that of all where it was measured."""
    rows = {scene: row for split in ("val", "test") for scene, row in card["scenes"].get(split, {}).items()}
    told = {f"{s} ({row['pictures']} pictures)": f"{row['map50']:.2f}" for s, row in rows.items() if "map50" in row}
    if whole := card["means"].get("val and test"):
        interval = f" ({whole['low']:.2f} to {whole['high']:.2f})" if "low" in whole else ""
        told[f"all {whole['pictures']}"] = f"{whole['map50']:.2f}{interval}"
    return told


def model(path: Path, card: dict[str, Any]) -> str:
    """The section of one card."""
    pictures = ", ".join(
        f"{name} {each['pictures']}" for name, each in card.get("data", {}).items() if "pictures" in each
    )
    limits = f"\n\n**Limits.** {card['limits']}" if "limits" in card else ""
    head = f"## {card['name']}\n\n{card['parameters']:,} parameters, input {card['input']['size']} px, `{path.name}`. "
    seen = SEEN.get(card["weights_sha256"][:8], "")
    tried = f"\n\n**Tried.** {seen}" if seen else ""
    tables = [measured(split, classes) for split, classes in card["metrics"].items() if isinstance(classes, dict)]
    parts = [f"{head}Trained on pictures of: {pictures}.{limits}{tried}\n", *tables, studies(card)]
    return "\n".join(each for each in parts if each)


def measured(split: str, classes: dict[str, Any]) -> str:
    """A table of the classes that a split has labels of; empty where it has none."""
    rows = {name: row for name, row in classes.items() if isinstance(row, dict) and "ap50" in row}
    columns = [name for name in MEASURES if any(name in row for row in rows.values())]
    if not rows:
        return ""
    lines = [f"| {split} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        lines.append(f"| `{name}` | {' | '.join(str(row.get(column, '')) for column in columns)} |")
    return "\n".join(lines) + "\n"


def studies(card: dict[str, Any]) -> str:
    """What was tried on the way to these weights, and what it gave; empty where the card says nothing of it."""
    if "studies" not in card:
        return ""
    lines = [
        "| what was tried | mAP50 |",
        "|---|---|",
        *(f"| {each['what']} | {each['map50']} |" for each in card["studies"]),
    ]
    return f"**Studies.** {card['studies_of']}\n\n" + "\n".join(lines) + "\n"


PAGES = {"models.md": models, "topics.md": topics, "alarms.md": alarms, "architecture.svg": figure.draw}
"""File of each generated page and what makes its text."""


def main() -> None:
    for name, text in PAGES.items():
        (DOCS / name).write_text(text().rstrip("\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
