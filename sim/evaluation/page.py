"""The page for people: the table, tracks from above, bars of energy, films."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rov.media.files import write_text
from sim.evaluation.episodes import Episode
from sim.evaluation.plan import LAMBDA_W, Plan
from sim.evaluation.rows import ROWS

GOOD, BAD, GREY, PRICE = "#0a7d4b", "#c2342b", "#888", "#d9b44a"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; } th, td { padding: .25em .8em; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; } figure { display: inline-block; margin: .5em 1em .5em 0; }
figcaption { color: #555; } svg { background: #f6f8fa; } video { width: 320px; } .low { color: #777; font-size: 85%; }
"""


def write(plan: Plan, found: dict[str, Any], episodes: Sequence[Episode], films: dict[str, str], out: Path) -> None:
    """Write index.html. Raises UserError."""
    parts = [
        f"<h1>{html.escape(plan.task)}, {html.escape(plan.level)}</h1>",
        _about(plan, found),
        _table(found),
        _pairs(found),
        "<h2>What it cost</h2>" + _bars(found),
        "<h2>Tracks from above</h2>" + "".join(_tracks(row, episodes) for row in plan.rows),
        _films(plan, films, episodes),
    ]
    title = f"{plan.task}, {plan.level}"
    text = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
    write_text(out / "index.html", f"{text}<style>{STYLE}</style>{''.join(parts)}</html>\n")


def _about(plan: Plan, found: dict[str, Any]) -> str:
    tier = "rendered pictures (tier 2; policy_live: tier 3)" if plan.tier == 2 else "noise models (tier 1)"
    worlds = f", worlds {', '.join(plan.worlds)}" if plan.worlds else ""
    trouble = [name for name in ("dead_thruster", "late_s", "current", "peak") if getattr(plan, name)]
    said = f"; with {', '.join(f'{name} = {getattr(plan, name)}' for name in trouble)}" if trouble else ""
    unfinished = "" if found["complete"] else " <b>Not complete.</b>"
    return (
        f"<p>{plan.episodes} episodes on {tier}{html.escape(worlds)}, hull {html.escape(plan.hull)}, inner loops"
        f" {plan.loops}, seed {plan.seed}{said}. All rows sail the same courses. Score: battery's joules and"
        f" {LAMBDA_W:g} W for the time, {found['charge_j']:g} J for an episode without success.{unfinished}</p>"
    )


def _table(found: dict[str, Any]) -> str:
    heads = ("", "episodes", "success", "touched", "time-out", "s", "J", "W", "J/m", "score", "let go")
    lines = []
    for row, f in found["rows"].items():
        share, low, high = (100 * f[name] for name in ("success", "success_low", "success_high"))
        cells = (
            f'<span title="{html.escape(ROWS[row])}">{row}</span>',
            f["episodes"],
            f'{share:.1f} % <span class="low">{low:.1f}…{high:.1f}</span>',
            f'{100 * f["collisions"]:.1f} % <span class="low">≤ {100 * f["collisions_high"]:.1f}</span>',
            f"{100 * f['timed_out']:.1f} %",
            *(_number(f[name]) for name in ("seconds", "joules", "watts", "joules_per_m", "score")),
            f"{f['disengagements']} in {f['hours']:.1f} h",
        )
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{each}</th>" for each in heads)
    return f"<table><tr>{head}</tr>{''.join(lines)}</table><p class=low>95 % intervals by Wilson.</p>"


def _pairs(found: dict[str, Any]) -> str:
    first = next(iter(found["rows"]), None)
    lines = [
        f"<li>{html.escape(name)}: {each['of']} × {each['ratio']:.3f} <span class=low>{each['low']:.3f}…"
        f"{each['high']:.3f}, over the {100 * each['share']:.0f} % in which both succeed</span></li>"
        for name, each in found["pairs"].items()
        if name.startswith(f"{first}/")
    ]
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"


def _bars(found: dict[str, Any]) -> str:
    """Mean joules and the price of time of the successful episodes."""
    costs = {row: (f["joules"], LAMBDA_W * f["seconds"]) for row, f in found["rows"].items() if f["joules"] is not None}
    if not costs:
        return "<p>No episode succeeded.</p>"
    most = max(sum(each) for each in costs.values())
    lines = []
    for i, (row, (joules, price)) in enumerate(costs.items()):
        y, a, b = 8 + 30 * i, 500 * joules / most, 500 * price / most
        lines.append(
            f'<text x="0" y="{y + 15}">{row}</text><rect x="150" y="{y}" width="{a:.1f}" height="20" fill="{GOOD}"/>'
            f'<rect x="{150 + a:.1f}" y="{y}" width="{b:.1f}" height="20" fill="{PRICE}"/>'
            f'<text x="{156 + a + b:.1f}" y="{y + 15}">{(joules + price) / 1000:.2f} kJ</text>'
        )
    note = f"Successful episodes: from the battery (green), and {LAMBDA_W:g} W for the time (yellow)."
    return f'<svg width="760" height="{30 * len(costs) + 12}">{"".join(lines)}</svg><p class=low>{note}</p>'


def _tracks(row: str, episodes: Sequence[Episode]) -> str:
    """Along the course upwards, across it to the right, in m."""
    some = [each for each in episodes if each.row == row and len(each.track) > 1]
    if not some:
        return ""
    points = [point for each in some for point in each.track]
    low, high = min(a for a, _ in points) - 0.5, max(a for a, _ in points) + 0.5
    wide = max(2.0, *(abs(b) + 0.5 for _, b in points))
    scale = min(320 / (high - low), 280 / (2 * wide))

    def place(along: float, across: float) -> str:
        return f"{scale * (across + wide):.1f},{scale * (high - along):.1f}"

    lines = "".join(
        f'<polyline points="{" ".join(place(*point) for point in each.track)}" fill="none" stroke-width="1.2"'
        f' stroke="{GOOD if each.success else BAD}" opacity="0.7"><title>episode {each.episode}: {each.seconds:.0f} s,'
        f" {each.joules:.0f} J{', touched' if each.touched else ''}</title></polyline>"
        for each in some
    )
    y = f"{scale * (high - low) - 6:.1f}"
    metre = f'<line x1="6" y1="{y}" x2="{6 + scale:.1f}" y2="{y}" stroke="{GREY}"/>'
    size = f'width="{2 * scale * wide:.0f}" height="{scale * (high - low):.0f}"'
    good = sum(each.success for each in some)
    return (
        f"<figure><svg {size}>{lines}{metre}</svg><figcaption>{row}: {good} of {len(some)} succeed (green); the line is"
        " 1 m</figcaption></figure>"
    )


def _films(plan: Plan, films: dict[str, str], episodes: Sequence[Episode]) -> str:
    if not films:
        return ""
    row = plan.rows[0]
    by_number = {each.episode: each for each in episodes if each.row == row}
    shown = []
    for name, path in films.items():
        each = by_number[int(Path(path).stem.rsplit("-", 1)[1])]
        end = f"{_end(each)}, {each.seconds:.0f} s, {each.joules:.0f} J"
        shown.append(
            f'<figure><video src="{html.escape(path)}" controls muted></video>'
            f"<figcaption>{name}: episode {each.episode}, {end}</figcaption></figure>"
        )
    return f"<h2>Films of {row}</h2>{''.join(shown)}"


def _end(episode: Episode) -> str:
    if episode.success:
        return "success"
    return "touched something" if episode.touched else "time-out" if episode.timed_out else "failed"
