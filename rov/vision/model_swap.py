"""Another model in the place of the running one, while the daemon runs.

A thread loads it beside the running one, checks it and warms it up. The switch is one assignment between two frames.
The former model is kept for a trial; it comes back when the new one fails or is too slow.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from rov.config.schema import PerceptionConfig
from rov.errors import UserError
from rov.messages import Event, Level
from rov.resources import find_resource
from rov.vision.detector import Detector
from rov.vision.model_card import ModelError

TRIAL_FRAMES = 45
"""Frames of a new model before the former one is dropped: three seconds at the default rate."""
JUDGED_FRAMES = 8
"""Frames whose median time is judged: one slow frame is the machine's."""
SLOWER = 1.5
"""Times the former model's median at which a new one is too slow even where the former one was, too."""
WARM_UP, TIMED = 3, 5
HOPELESS = 3
"""Times the allowed duration, at which one run of a model after its first is enough to refuse it."""
SHAPE = (480, 640, 3)
SWITCH_S = 2e-4
"""How long the loading thread keeps Python's lock when the running network wants it, which is at each of its layers:
the usual 5 ms would add up to several frames."""
KEPT = "model"
"""File in the daemon's directory with the model that works: a process that starts again starts with it."""


class ModelSwap:
    """The running detector, and its change. `want` names the model that shall run, `step` is called between frames."""

    def __init__(self, detector: Detector, weights: str, load: Callable[[str], Detector], rate_hz: float, root: Path):
        """`weights`: the name under which `detector` was loaded. `load`: loads and warms up another one; it runs in a
        thread and raises UserError. `rate_hz`: pace that a model must keep. `root`: the daemon's directory."""
        self.detector, self.weights = detector, weights
        self.load, self.limit_ms, self.root = load, 1000.0 / rate_hz, root
        self.wanted = weights
        self.former: tuple[Detector, str, float] | None = None
        """During a trial: the former model, its name, and its median ms per frame."""
        self.loading: _Loading | None = None
        self.times: deque[float] = deque(maxlen=JUDGED_FRAMES)
        self.frames = 0
        """Frames since the last switch."""
        _keep(root, weights)

    def want(self, weights: str) -> None:
        """Name the model that shall run. A refused one is tried again after another was named."""
        if weights != self.wanted:
            self.wanted = weights
            self.loading = None if weights == self.weights else _Loading(weights, self.load, self.detector)

    def add_frame(self, network_ms: float) -> None:
        """Note how long the running model took for a frame."""
        self.times.append(network_ms)
        self.frames += 1

    def step(self, now: int, *, broken: bool = False) -> Iterator[Event]:
        """Between two frames: end a trial, or switch to the model that is ready. Yields what to publish at `now` (ns).
        `broken`: the running model's output is not finite."""
        if self.former is not None:
            yield from self._judge(now, broken)
        elif self.loading is not None and self.loading.done.is_set():
            yield from self._switch(now, self.loading)
            self.loading = None

    def _switch(self, now: int, loading: _Loading) -> Iterator[Event]:
        if loading.detector is None:
            yield _event(now, "warning", "model_refused", f"{self.weights} goes on: {loading.problem}")
            return
        usual_ms = statistics.median(self.times) if self.times else 0.0
        self.former = self.detector, self.weights, usual_ms
        self.detector, self.weights = loading.detector, loading.weights
        self.frames = 0
        self.times.clear()
        card = self.detector.card
        text = f"{self.weights} runs, sha256 {card.weights_sha256[:12]}, instead of {self.former[1]}"
        yield _event(now, "info", "model_switched", text)

    def _judge(self, now: int, broken: bool) -> Iterator[Event]:
        assert self.former is not None
        detector, weights, usual_ms = self.former
        limit = max(self.limit_ms, SLOWER * usual_ms)
        median = statistics.median(self.times) if len(self.times) == JUDGED_FRAMES else 0.0
        why = "its output is not finite" if broken else ""
        if median > limit:
            why = f"it takes {median:.0f} ms for a frame, and {limit:.0f} are allowed"
        if why:
            yield _event(now, "alarm", "model_rolled_back", f"{weights} runs again instead of {self.weights}: {why}")
            self.detector, self.weights = detector, weights
            self.times.clear()
        if why or self.frames >= TRIAL_FRAMES:
            self.former = None
            _keep(self.root, self.weights)


class _Loading:
    """One model being loaded. When `done` is set, `detector` is the model, or None and `problem` says why."""

    def __init__(self, weights: str, load: Callable[[str], Detector], running: Detector):
        self.weights, self.load, self.running = weights, load, running
        self.detector: Detector | None = None
        self.problem = ""
        self.done = threading.Event()
        threading.Thread(target=self._run, name="model", daemon=True).start()

    def _run(self) -> None:
        # At the priority of the running network: a thread that waits for its processor with Python's lock held makes
        # the other one wait, too.
        usual = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        try:
            detector = self.load(self.weights)
            if lacking := [name for name in self.running.card.classes if name not in detector.card.classes]:
                raise ModelError(
                    f"{self.weights}: does not know {', '.join(lacking)}, which the running model knows and an operator"
                    " may ask for; start rov again with it"
                )
            self.detector = detector
        except (UserError, OSError, ValueError, RuntimeError, MemoryError) as error:
            # Whatever loading a file raises: it is refused, and the running model goes on.
            self.problem = str(error) if isinstance(error, UserError) else f"{self.weights}: {error!r}"
        finally:
            sys.setswitchinterval(usual)
            self.done.set()


def load_warm(weights: str, config: PerceptionConfig, *, pace: bool = False) -> Detector:
    """Load a model and run it until it has chosen its kernels, which takes seconds on some machines. `pace`: refuse one
    that cannot keep `rate_hz` even with a processor for itself, or whose output is not finite. Raises UserError."""
    detector = Detector(find_resource(weights), config.device, config.precision, batch=1)
    picture, times, allowed = np.full(SHAPE, 127, np.uint8), [], 1000 / config.rate_hz
    for run in range(WARM_UP + (TIMED if pace else 0)):
        began = _clock(detector)
        detector.detect([picture], config.score_min)
        times.append(1000 * (_clock(detector) - began))
        if pace and run and times[-1] > HOPELESS * allowed:
            break
    if pace and detector.bad:
        raise ModelError(f"{weights}: its output is not finite")
    if pace and (median := statistics.median(times[WARM_UP:] or times[1:])) > allowed:
        raise ModelError(
            f"{weights}: takes {median:.0f} ms for a frame, and perception.rate_hz = {config.rate_hz:g} leaves"
            f" {allowed:.0f}; choose a smaller model or a lower rate"
        )
    return detector


def kept_model(root: Path) -> str:
    """The model that worked when this process ran before; "" at the first start."""
    try:
        return (root / KEPT).read_text()
    except OSError:
        return ""


def _keep(root: Path, weights: str) -> None:
    new = root / f"{KEPT}.new"
    new.write_text(weights)
    new.replace(root / KEPT)


def _clock(detector: Detector) -> float:
    """Seconds of this thread's processor where it does all the work: what else runs there is not the model's fault."""
    alone = detector.device.type == "cpu" and torch.get_num_threads() == 1
    return time.thread_time() if alone else time.monotonic()


def _event(now: int, level: Level, code: str, text: str) -> Event:
    return Event(t=now, level=level, source="perceptiond", code=code, text=text)
