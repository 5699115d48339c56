"""Work in processes, some of which die."""

import os

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


def test_no_items():
    assert list(in_processes(work, [], workers=1)) == []
