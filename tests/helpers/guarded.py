"""Run what may hang or crash in a process of its own."""

import multiprocessing
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

LIMIT = 10
"""Seconds of CPU time that a call may take."""

HANG = 90
"""Seconds until a call that gives no result is held to hang, on however busy a machine."""


def _run(function: Callable[[Any], Any], jobs: Sequence[Any], results: Any) -> None:
    for job in jobs:
        started = time.process_time()
        try:
            outcome = function(job)
        except BaseException as error:
            outcome = error
        results.put((outcome, time.process_time() - started))


def guarded(function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
    """Yield ``function(job)`` for each job, or fail the test where one raises, hangs or crashes.

    Args:
        function: A function of a module that can be imported.
        jobs: Its arguments; everything is pickled.
    """
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    child = context.Process(target=_run, args=(function, jobs, results))
    child.start()
    try:
        for job in jobs:
            outcome, seconds = results.get(timeout=HANG)
            if isinstance(outcome, BaseException):
                pytest.fail(f"{job}: {type(outcome).__name__}: {outcome}")
            assert seconds < LIMIT, (job, seconds)
            yield outcome
    except queue.Empty:
        pytest.fail(f"{job}: a hang, or a crash (exit code {child.exitcode})")
    finally:
        child.kill()
        child.join()
