"""Work in processes, some of which die."""

import os
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from vidpool.data import parallel
from vidpool.data.parallel import in_processes


@pytest.fixture(autouse=True)
def _spawn(monkeypatch):
    """Start processes as users do, not as other tests do."""
    monkeypatch.setattr(parallel, "CONTEXT", get_context("spawn"))


def work(item):
    if item == "kill":
        os._exit(9)
    if item == "raise":
        raise ValueError("no good")
    return item * 2


def test_results_errors_and_deaths():
    items = iter(["a", "raise", *map(str, range(20)), "kill", *map(str, range(20, 40))])
    results = dict(in_processes(work, items, num_workers=2))
    assert str(results.pop("kill")) == "the process that worked on it died"
    assert isinstance(results.pop("raise"), ValueError)
    assert results == {name: name * 2 for name in ["a", *map(str, range(40))]}


def die_of_3(number):
    if number == 3:
        os._exit(1)
    return number


def test_no_item_is_lost_where_a_process_dies_while_results_are_used():
    results = []
    for item, result in in_processes(die_of_3, range(40), num_workers=2):
        time.sleep(0.05)  # the pool is found to be broken when an item is handed in
        results.append((item, str(result)))
    died = "the process that worked on it died"
    expected = [(number, died if number == 3 else str(number)) for number in range(40)]
    assert sorted(results) == expected


def test_a_script_without_a_main_guard_is_told_so(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from vidpool.data.parallel import in_processes\n"
        "print(list(in_processes(str, range(100_000), num_workers=1)))\n"
    )
    path = os.pathsep.join(sys.path)
    run = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 1
    assert 'below `if __name__ == "__main__":`' in run.stderr.splitlines()[-1]
    assert run.stdout == ""


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
        list(in_processes(slow, items(), num_workers=1))
    assert time.monotonic() - started < 40
    names = {path.name for path in tmp_path.iterdir()}
    assert "cleaned up" in names
    (pid,) = names - {"cleaned up"}
    assert not Path("/proc", pid).exists()


def test_no_items():
    assert list(in_processes(work, [], num_workers=1)) == []
