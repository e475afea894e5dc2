"""Writes the results of a replay: `report.json` for programs, `report.html` for people."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rov.extras import explained
from rov.media.files import shown, write_text
from rov.offline.replay import ReplayResult
from rov.version import __version__

MAX_POINTS = 4000
"""Most points of one curve; more cannot be seen and only make the page larger."""


def summary(result: ReplayResult) -> dict[str, Any]:
    """The content of report.json."""
    wall = max(result.wall_s, 1e-9)
    labels: dict[str, int] = {}
    for _, counts in result.seen:
        for label, count in counts.items():
            labels[label] = labels.get(label, 0) + count
    report = {
        "source": shown(result.source),
        "frames": result.frames,
        "processed": result.processed,
        "dropped": result.dropped,
        "interrupted": result.interrupted,
        "skipped": [shown(each) for each in result.skipped],
        "fault": shown(result.fault),
        "wall_s": round(result.wall_s, 3),
        "fps": round(result.processed / wall, 2),
        "realtime_factor": round(result.recorded_s / wall, 3),
        "stages_ms": {stage: percentiles(ms) for stage, ms in result.stages_ms.items()},
        "detections": dict(sorted(labels.items())),
        "topics": {name: {"count": d.count, "sha256": d.sha256} for name, d in sorted(result.topics.items())},
        "vehicle_state": result.has_vehicle,
        "config_sha256": result.config.sha256(),
        "weights_sha256": result.weights_sha256,
        "version": __version__,
    }
    if result.differences is not None:
        report["diff"] = [
            {"topic": d.topic, "compared": d.compared, "differing": d.differing, "worst": d.worst, "first": d.first,
             "tolerance": d.tolerance, "verdict": d.verdict}
            for d in result.differences
        ]  # fmt: skip
    return report


def percentiles(ms: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99; zeros where nothing was measured."""
    points = np.percentile(ms, [50, 95, 99]) if len(ms) else np.zeros(3)
    return {name: round(float(value), 3) for name, value in zip(("p50", "p95", "p99"), points, strict=True)}


def write(result: ReplayResult, out: Path) -> dict[str, Any]:
    """Write both files into `out`; returns the content of report.json. Raises UserError."""
    report = summary(result)
    write_text(out / "report.json", json.dumps(report, indent=2) + "\n")
    write_text(out / "report.html", _page(result, report, (out / "overlay.mp4").exists()))
    return report


def _page(result: ReplayResult, report: dict[str, Any], film: bool) -> str:
    facts = {
        "frames": f"{report['processed']} of {report['frames']}, {report['dropped']} dropped",
        "speed": f"{report['fps']} frames/s, {report['realtime_factor']} × real time, {report['wall_s']} s",
        "detections": ", ".join(f"{n} {label}" for label, n in report["detections"].items()) or "none",
        "vehicle": "its state was in the recording" if result.has_vehicle else
        "no state in this source: the loops were open, what the thrusters show is the steering alone",
        "skipped": "; ".join(report["skipped"]) or "nothing",
        **({"fault": report["fault"]} if report["fault"] else {}),
        "configuration": report["config_sha256"][:12],
        "weights": report["weights_sha256"][:12],
        "rov": report["version"],
    }  # fmt: skip
    rows = "".join(f"<tr><th>{key}</th><td>{html.escape(str(value))}</td></tr>" for key, value in facts.items())
    stages = "".join(
        f"<tr><th>{stage}</th><td>{ms['p50']}</td><td>{ms['p95']}</td><td>{ms['p99']}</td></tr>"
        for stage, ms in report["stages_ms"].items()
    )
    video = '<video src="overlay.mp4" controls muted></video>' if film else ""
    diff = ""
    if result.differences is not None:
        lines = "".join(
            f"<tr><th>{d.topic}</th><td>{d.compared}</td><td>{d.differing}</td><td>{d.worst:.3g}</td>"
            f"<td>{html.escape(d.verdict if d.within else d.first)}</td></tr>"
            for d in result.differences
        )
        diff = "<h2>Against what was recorded</h2><table><tr><th>topic</th><td>compared</td><td>differing</td>"
        diff += f"<td>worst</td><td></td></tr>{lines}</table>"
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>rov replay: {html.escape(shown(result.source.name))}</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #16242e }}
 h1 {{ font-size: 1.4rem }} h2 {{ font-size: 1.1rem; margin-top: 2rem }}
 table {{ border-collapse: collapse }} th {{ text-align: left; font-weight: 600; padding: .15rem 1.5rem .15rem 0 }}
 td {{ padding: .15rem 1.2rem .15rem 0; font-variant-numeric: tabular-nums }}
 video, svg {{ width: 100%; height: auto }} video {{ max-height: 32rem; background: #0b2733 }}
</style>
<h1>{html.escape(shown(result.source.name))}</h1>
<table>{rows}</table>
{video}
{diff}
<h2>Over the dive</h2>
{_plots(result)}
<h2>Milliseconds per frame</h2>
<table><tr><th>stage</th><td>p50</td><td>p95</td><td>p99</td></tr>{stages}</table>
</html>
"""


def _plots(result: ReplayResult) -> str:
    """Detections, setpoint, thrusters and stage times over the dive, as one SVG."""
    try:
        import matplotlib  # takes half a second to import, so only a finished replay does
    except ModuleNotFoundError as error:
        return f"<p>No plots: {html.escape(explained(error))}</p>"
    matplotlib.use("svg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 11))
    # Fixed margins: a constrained layout draws all of it twice.
    figure.subplots_adjust(left=0.07, right=0.99, top=0.99, bottom=0.05, hspace=0.25)
    objects, setpoint, thrusters, stages = figure.subplots(4, 1)
    labels = sorted({label for _, counts in result.seen for label in counts})
    t = np.array([second for second, _ in result.seen])
    for label in labels:
        every = _every(len(t))
        objects.plot(t[every], np.array([counts[label] for _, counts in result.seen])[every], label=label, lw=1)
    objects.set_ylabel("objects in the frame")
    for axis in ("surge", "sway", "heave", "yaw"):
        every = _every(len(result.setpoints))
        moves = np.array([(second, getattr(each, axis)) for second, each in result.setpoints]).reshape(-1, 2)[every]
        setpoint.plot(moves[:, 0], moves[:, 1], label=axis, lw=1)
    setpoint.set_ylabel("setpoint, −1…1")
    for motor in range(len(result.thrusters[0][1].values) if result.thrusters else 0):
        every = _every(len(result.thrusters))
        push = np.array([(second, each.values[motor]) for second, each in result.thrusters])[every]
        thrusters.plot(push[:, 0], push[:, 1], label=f"{motor + 1}", lw=0.8)
    thrusters.set_ylabel("thrusters, −1…1")
    thrusters.set_xlabel("s")
    for stage, ms in result.stages_ms.items():
        every = _every(len(ms))
        stages.plot(np.arange(len(ms))[every], np.array(ms)[every], label=stage, lw=0.8)
    stages.set_yscale("log")
    stages.set_ylabel("ms per frame")
    stages.set_xlabel("frame")
    for axes in (objects, setpoint, thrusters, stages):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        if axes.lines:
            axes.legend(loc="upper right", ncols=8, fontsize=8, framealpha=0.8, edgecolor="none")
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # letters by the reader's fonts, not one curve each
        figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _every(points: int) -> slice:
    return slice(None, None, max(1, points // MAX_POINTS))
