"""Threads around a loop: same items, same order, exceptions arrive, nothing is left running."""

import threading
import time
from collections.abc import Iterator

import pytest

from rov.concurrency import BackgroundWorker, prefetch


def running(name: str) -> int:
    return sum(thread.name == name for thread in threading.enumerate())


def test_same_items_same_order() -> None:
    assert list(prefetch(iter(range(500)), 3)) == list(range(500))
    assert running("prefetch") == 0


def test_works_before_it_is_asked_but_not_without_bound() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    stream = prefetch(source(), 4)
    assert next(stream) == 0
    time.sleep(0.2)
    assert 4 <= len(made) <= 7
    stream.close()
    assert running("prefetch") == 0


def test_its_exception_comes_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    stream = prefetch(source(), 5)
    assert next(stream) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)


def test_a_chain_ends_when_its_last_is_closed() -> None:
    closed = []

    def source() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.append(True)

    stream = prefetch(prefetch(source(), 2), 2)
    next(stream)
    stream.close()
    assert closed == [True] and running("prefetch") == 0


def test_a_worker_does_everything_in_order_before_it_closes() -> None:
    done: list[int] = []
    worker = BackgroundWorker(depth=2)
    for i in range(50):
        worker.submit(lambda i=i: done.append(i))  # type: ignore[misc]
    worker.close()
    assert done == list(range(50)) and running("background") == 0


def test_a_worker_raises_what_failed_in_it() -> None:
    worker = BackgroundWorker(depth=2)
    worker.submit(lambda: None)
    worker.submit(lambda: 1 / 0)  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        for _ in range(100):  # the failure is known a moment later, and never blocks the giver
            worker.submit(lambda: time.sleep(0.001))
    with pytest.raises(ZeroDivisionError):
        worker.close()
