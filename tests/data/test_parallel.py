"""Work in processes, some of which die."""

import os
import time
from pathlib import Path

import pytest

from vidpool.data.parallel import in_processes


def work(item):
    if item == "kill":
        os._exit(9)
    if item == "raise":
        raise ValueError("no good")
    return item * 2


def test_results_errors_and_deaths():
    items = iter(["a", "raise", *map(str, range(20)), "kill", *map(str, range(20, 40))])
    results = dict(in_processes(work, items, workers=2))
    assert str(results.pop("kill")) == "the process that worked on it died"
    assert isinstance(results.pop("raise"), ValueError)
    assert results == {name: name * 2 for name in ["a", *map(str, range(40))]}


def slow(folder):
    try:
        Path(folder, str(os.getpid())).touch()
        time.sleep(60)
    finally:
        Path(folder, "cleaned up").touch()


def test_an_interrupt_ends_the_processes(tmp_path):
    started = time.monotonic()

    def items():
        yield from [str(tmp_path)] * 2
        while not list(tmp_path.iterdir()):
            time.sleep(0.05)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(in_processes(slow, items(), workers=1))
    assert time.monotonic() - started < 40
    names = {path.name for path in tmp_path.iterdir()}
    assert "cleaned up" in names
    (pid,) = names - {"cleaned up"}
    assert not Path("/proc", pid).exists()


def test_no_items():
    assert list(in_processes(work, [], workers=1)) == []
