"""Ordered concurrency: `prefetch` runs a generator in a thread, `BackgroundWorker` runs queued jobs; and what the
processor can do."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import TypeVar, cast

T = TypeVar("T")

_END = object()
ON_LINUX = hasattr(os, "sched_getaffinity")
"""Elsewhere threads have no niceness of their own, and processes no set of processors."""
NICE = 10
"""Niceness of threads that can wait (on Linux every thread has its own)."""


def prefetch(source: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Run `source` in a thread, at most `depth` items ahead of the consumer; same items, same order.

    An exception of `source` is raised here, after the items that preceded it. Closing this generator (or leaving its
    `for` loop early and dropping it) ends the thread.
    """
    items: queue.Queue[object] = queue.Queue(depth)
    stopped = threading.Event()
    failure: list[BaseException] = []

    def put(item: object) -> None:
        while not stopped.is_set():
            try:
                return items.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        iterator = iter(source)
        try:
            while not stopped.is_set():
                put(next(iterator))
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001  raised again in the consumer's thread
            failure.append(error)
        finally:
            if hasattr(iterator, "close"):
                iterator.close()  # a chain of generators ends from the last to the first
            put(_END)

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := items.get()) is not _END:
            yield cast(T, item)
        if failure:
            raise failure[0]
    finally:
        stopped.set()
        thread.join()


def lower_priority(nice: int = NICE) -> None:
    """Lower the priority of this thread: the network's thread must not wait for it."""
    if ON_LINUX:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)


def cores() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if ON_LINUX else os.cpu_count() or 1


def cpu_has_bfloat16() -> bool:
    """Whether the processor computes with it; False where that is not known."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


class BackgroundWorker:
    """A thread that runs jobs in order. An exception in a job is raised by the next `submit`, or by `close`."""

    def __init__(self, depth: int):
        self.jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(depth)
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._work, name="background", daemon=True)
        self.thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        """Queue a job; waits while `depth` jobs are waiting."""
        if self.failure:
            raise self.failure
        self.jobs.put(job)

    def _work(self) -> None:
        lower_priority()
        while (job := self.jobs.get()) is not None:
            if self.failure is None:
                try:
                    job()
                except BaseException as error:  # noqa: BLE001  raised again by `submit` or `close`
                    self.failure = error

    def close(self) -> None:
        """Finish all jobs and end the thread; raises the exception of a job that failed."""
        self.jobs.put(None)
        self.thread.join()
        if self.failure:
            raise self.failure
