"""`rov bench`: the pipeline's speed on this machine, relative to the bare network and decoder in the same run."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from rov.config.schema import Config
from rov.media.films import Video
from rov.motion.thrusters import Curve
from rov.offline.replay import replay
from rov.offline.report import percentiles
from rov.offline.source import open_recording
from rov.types import Image
from rov.vision.detector import Detector


def bench(
    video: Path,
    config: Config,
    detector: Detector,
    curve: Curve,
    frames: int,
    rounds: int,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Time bare decoder, bare network and whole pipeline in turn, `rounds` times; medians, and ratios per round.

    The bare network gets pictures ready in memory, with batch and threads as configured, one batch at a time and
    nothing else running. `network_all_cores` runs `detector.workers` batches at once, as the pipeline does, which also
    decodes and writes on these cores. The pipeline does everything but the overlay. Rates are in frames/s.
    """
    pictures = []
    for shot in Video(video).shots():
        pictures.append(shot.image)
        if len(pictures) == frames:
            break
    frames = len(pictures)
    batch = detector.prepare(pictures[: detector.batch]).pictures
    detector.infer(batch)  # warm up

    rows: dict[str, list[float]] = {"decoder": [], "network": [], "network_all_cores": [], "pipeline": []}
    stages: dict[str, list[float]] = {}
    for number in range(1, rounds + 1):
        report(f"round {number} of {rounds}")
        rows["decoder"].append(frames / _seconds(lambda: _decode(video, frames)))
        rows["network"].append(frames / _seconds(lambda: _infer(detector, batch, frames, 1)))
        rows["network_all_cores"].append(frames / _seconds(lambda: _infer(detector, batch, frames, detector.workers)))
        with tempfile.TemporaryDirectory() as out:
            result = replay(open_recording(video), config, detector, curve, Path(out), overlay=False, limit=frames)
        rows["pipeline"].append(result.processed / result.wall_s)
        for stage, ms in result.stages_ms.items():
            stages.setdefault(stage, []).extend(ms)
    slower = [min(pair) for pair in zip(rows["decoder"], rows["network"], strict=True)]
    return {
        "video": video.name,
        "frames": frames,
        "rounds": rounds,
        "device": str(detector.device),
        "precision": str(detector.dtype).removeprefix("torch."),
        "batch": detector.batch,
        "threads": torch.get_num_threads(),
        "workers": detector.workers,
        "fps": {name: round(statistics.median(values), 1) for name, values in rows.items()},
        "fps_all_rounds": {name: [round(value, 1) for value in values] for name, values in rows.items()},
        "pipeline_over": {
            "slower_of_network_and_decoder": _ratio(rows["pipeline"], slower),
            "network": _ratio(rows["pipeline"], rows["network"]),
            "network_all_cores": _ratio(rows["pipeline"], rows["network_all_cores"]),
            "decoder": _ratio(rows["pipeline"], rows["decoder"]),
        },
        "realtime_factor": round(statistics.median(rows["pipeline"]) / Video(video).fps, 2),
        "stages_ms": {stage: percentiles(ms) for stage, ms in stages.items()},
    }


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _decode(video: Path, frames: int) -> None:
    for shot in Video(video).shots():
        if shot.frame_id + 1 == frames:
            return


def _infer(detector: Detector, batch: Image, frames: int, workers: int) -> None:
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(detector.infer, [batch] * -(-frames // detector.batch)):
            pass


def _ratio(ours: list[float], reference: list[float]) -> float:
    """Median of the ratios per round, which cancels drift of the machine's speed."""
    return round(statistics.median(a / b for a, b in zip(ours, reference, strict=True)), 3)
