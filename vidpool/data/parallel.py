"""Parallel work in processes: how many to start, a crash-proof parallel map, and progress bars.

Worker processes import this module before they limit PyTorch's threads, so it must not import
PyTorch.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

# a forked child of a process that has run PyTorch's thread pools may hang
CONTEXT = get_context("spawn")
QUEUED_PER_WORKER = 4  # items that wait for each process, so that no process waits for items


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use, or of all CPUs if unknown."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def bar_options(shown: bool = True) -> dict[str, Any]:
    """Return the options of a rich progress bar: on stderr, and on the first rank only.

    Args:
        shown: False to hide the bar, for work that ends before anybody could see it.
    """
    from pytorch_lightning.utilities import rank_zero_only  # imports PyTorch

    first_rank = getattr(rank_zero_only, "rank", 0) == 0
    return {
        "console": Console(stderr=True),
        "transient": True,
        "disable": not (shown and first_rank),
    }


def counting_bar() -> Progress:
    """Return a progress bar that counts finished items and disappears at the end."""
    return Progress(*Progress.get_default_columns(), MofNCompleteColumn(), **bar_options())


def in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], num_workers: int
) -> Iterator[tuple[Item, Result | Exception]]:
    """Call a function on every item and yield the results as they come.

    Items are taken as they are needed, so that there may be millions. Where a process dies, as a
    decoder may make it do, the items that were in work are tried again, each alone. Whatever ends
    this early interrupts the function in its processes (KeyboardInterrupt) and ends them.

    Args:
        function: Of a module's top level, to be called in other processes.
        items: Can be pickled.
        num_workers: Processes.

    Yields:
        An item, and its result or the exception that was raised.

    Raises:
        RuntimeError: No process can be started.
    """
    started = CONTEXT.RawValue("b", 0)  # without a lock, which a process might die with
    rest = iter(items)
    others = active_children()
    suspects: deque[Item] = deque()
    while True:
        with _pool(num_workers, started) as pool:
            pending: dict[Future[Result], Item] = {}
            try:
                while True:
                    for item in _take(rest, num_workers * QUEUED_PER_WORKER - len(pending)):
                        try:
                            future = pool.submit(_work, function, item)
                        except BrokenProcessPool:
                            suspects.append(item)
                            raise
                        pending[future] = item
                    if not pending:
                        break
                    for future in wait(pending, return_when=FIRST_COMPLETED).done:
                        result = _result(future)
                        if isinstance(result, BrokenProcessPool):
                            raise result
                        yield pending.pop(future), result
            except BrokenProcessPool:
                _require_start(started)
                suspects.extend(pending.values())
                continue
            except BaseException:
                for process in active_children():
                    if process not in others and process.pid is not None:
                        os.kill(process.pid, signal.SIGINT)
                pool.shutdown(cancel_futures=True)
                raise
        break
    while suspects:
        with _pool(1, started) as pool:
            while suspects:
                item = suspects.popleft()
                try:
                    future = pool.submit(_work, function, item)
                except BrokenProcessPool:  # it died after the item before
                    suspects.appendleft(item)
                    break
                result = _result(future)
                if isinstance(result, BrokenProcessPool):
                    yield item, RuntimeError("the process that worked on it died")
                    break
                yield item, result


def _pool(num_workers: int, started: Any) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(num_workers, CONTEXT, _start, (started,))


def _require_start(started: Any) -> None:
    if not started.value:
        raise RuntimeError(
            "processes die before they begin to work (they say above of what). If a script of your "
            'own calls this, let it do so below `if __name__ == "__main__":`, since each process '
            "imports the script"
        )


class _Worker:
    """State of a worker process, so that it can be interrupted without a traceback."""

    working = False
    interrupted = False


def _start(started: Any) -> None:
    started.value = 1
    os.environ["OMP_NUM_THREADS"] = "1"  # PyTorch is not imported yet
    signal.signal(signal.SIGINT, _interrupt)


def _interrupt(*_: object) -> None:
    _Worker.interrupted = True
    if not _Worker.working:
        os._exit(130)  # it waits for work, or imports what that needs
    raise KeyboardInterrupt


def _work(function: Callable[[Item], Result], item: Item) -> Result:
    # the executor hands out some items more before it ends
    if _Worker.interrupted:
        raise KeyboardInterrupt
    _Worker.working = True
    try:
        return function(item)
    finally:
        _Worker.working = False


def _take(rest: Iterator[Item], count: int) -> Iterator[Item]:
    for _ in range(count):
        try:
            yield next(rest)
        except StopIteration:
            return


def _result(future: Future[Result]) -> Result | Exception:
    try:
        return future.result()
    except Exception as error:
        return error
