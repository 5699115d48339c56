"""The timing loop, by clocks that the tests turn, the warm heap and the name of the CPU."""

import platform
import subprocess
import sys
import time

import pytest
import torch

from vidpool.bench import timing
from vidpool.bench.timing import (
    DEFAULT_SECONDS,
    MAX_ROUNDS,
    MIN_ROUNDS,
    CudaStopwatch,
    StageTimer,
    Times,
    cpu_seconds,
    cuda_peak_bytes,
    interleave,
    median_ratio,
    warm_up,
)

PAGES = """
import resource
import torch
from vidpool.bench.timing import keep_heap_warm

assert keep_heap_warm()
x = torch.zeros(2**24)  # 64 MiB, above any threshold that glibc would choose itself
for _ in range(10):  # until the holes that freed copies leave are large enough
    x.clone()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    x.clone()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


class Clock:
    """A clock that only stands still, or is moved on by calls that it makes."""

    def __init__(self):
        self.now = 100.0
        self.called = []

    def __call__(self):
        return self.now

    def call(self, name, *seconds):
        """A call that takes the given seconds in turn, and then the last of them."""
        left = list(seconds)

        def run():
            self.called.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run

    def seconds_of(self, call):
        return cpu_seconds(call, self)


def test_each_round_holds_each_call_once():
    clock = Clock()
    calls = {name: clock.call(name, 0.5) for name in "abcd"}
    interleave(calls, clock.seconds_of, rounds=50, clock=clock)
    rounds = [tuple(clock.called[i : i + 4]) for i in range(0, 200, 4)]
    assert len(clock.called) == 200
    assert {"".join(sorted(each)) for each in rounds} == {"abcd"}
    for place in range(4):  # nothing always follows the same call
        assert {each[place] for each in rounds} == set("abcd")


def test_each_call_gets_its_own_times():
    clock = Clock()
    calls = {"slow": clock.call("slow", 4, 1, 2, 3, 100), "fast": clock.call("fast", 0.25)}
    times = interleave(calls, clock.seconds_of, rounds=5, clock=clock)
    assert times["slow"].rounds == (4, 1, 2, 3, 100)
    assert times["slow"].median == 3
    assert times["slow"].quartiles == (2, 4)
    assert times["slow"].spread == pytest.approx(2 / 3)
    assert times["fast"] == Times((0.25,) * 5)
    assert times["fast"].spread == 0


@pytest.mark.parametrize(
    ("seconds", "rounds"),
    [
        (10 * DEFAULT_SECONDS, MIN_ROUNDS),
        (DEFAULT_SECONDS / 20, 10),
        (0, MAX_ROUNDS),
    ],  # two calls a round
)
def test_rounds_fit_into_the_time(seconds, rounds):
    clock = Clock()
    calls = {name: clock.call(name, seconds) for name in "ab"}
    times = interleave(calls, clock.seconds_of, clock=clock)
    assert len(times["a"].rounds) == len(times["b"].rounds) == pytest.approx(rounds, abs=1)
    assert MIN_ROUNDS <= len(times["a"].rounds) <= MAX_ROUNDS


def test_one_round_has_quartiles_too():
    assert Times((2.0,)).as_dict() == {
        "median": 2,
        "lower_quartile": 2,
        "upper_quartile": 2,
        "rounds": [2],
    }


def test_the_result_is_freed_after_the_clock_is_read():
    clock = Clock()

    class Result:
        def __del__(self):
            clock.now += 10

    assert cpu_seconds(Result, clock) == 0
    assert clock.now == 110


def test_the_warm_up_finds_what_cannot_be_called():
    def none():
        raise NotImplementedError("no kernel\nhere")

    def bug():
        raise KeyError("bug")

    clock = Clock()
    calls = {"none": none, "silent": RuntimeError, "a": clock.call("a", 1)}
    assert warm_up(calls) == {"none": "no kernel"}
    assert clock.called == ["a"]
    with pytest.raises(KeyError):
        warm_up({"bug": bug})


def test_cuda_calls_are_timed_by_events(monkeypatch):
    """In order: the cache is overwritten, then the call stands between two events."""
    happened = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing
            happened.append(self)

        def record(self):
            happened.append("record")

        def synchronize(self):
            assert self is happened[1]
            happened.append("synchronise")

        def elapsed_time(self, end):
            assert (self, end) == (happened[0], happened[1])
            return 12.0  # milliseconds

    class Filler:
        def zero_(self):
            happened.append("fill")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: Filler())
    assert CudaStopwatch()(lambda: happened.append("call")) == 0.012
    assert happened[2:] == ["fill", "record", "call", "record", "synchronise"]


def test_cuda_memory_is_the_peak_beyond_what_was_there(monkeypatch):
    held = {"now": 1000, "peak": 9000}
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda: held.update(peak=held["now"])
    )
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: held["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: held["peak"])
    assert cuda_peak_bytes(lambda: held.update(peak=1500)) == 500


def test_ratios_are_those_of_medians():
    times = {"a": Times((1.0, 2.0, 9.0)), "b": Times((8.0, 1.0, 5.0)), "zero": Times((0.0,))}
    assert median_ratio(times, "b", "a") == 2.5
    assert median_ratio(times, "b", "missing") is None
    assert median_ratio(times, "missing", "b") is None
    assert median_ratio(times, "b", "zero") is None


def test_a_stage_does_not_count_what_is_within_it(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def spend(seconds):
        now[0] += seconds

    class Owner:
        def work(self, seconds):
            spend(seconds)
            return "done"

    timer = StageTimer()

    def whole():
        spend(1)
        with timer.patch(Owner, "work", "inner"):
            assert Owner().work(4) == "done"
            assert Owner().work(seconds=2) == "done"
        spend(3)
        Owner().work(8)

    timer.time("outer", whole)
    timer.time("outer", lambda: spend(5))
    assert timer.seconds == {"outer": 17, "inner": 6}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heap is glibc's")
def test_a_warm_heap_fetches_no_new_pages():
    run = subprocess.run(
        [sys.executable, "-c", PAGES], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(run.stdout) < 1000  # each copy has 16384


def test_elsewhere_the_heap_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(timing.ctypes, "CDLL", None)
    assert timing.keep_heap_warm() is False


def test_the_name_of_the_cpu(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Fast: 3 GHz\nprocessor\t: 1\n")
    assert timing.cpu_name(cpuinfo) == "Fast: 3 GHz"
    cpuinfo.write_text("processor\t: 0\n")  # as on many Arm machines
    elsewhere = timing.cpu_name(cpuinfo)
    assert elsewhere
    assert timing.cpu_name(tmp_path / "none") == elsewhere


def test_what_is_said_of_a_cpu():
    said = timing.describe_machine("cpu")
    assert said["device_name"] == timing.cpu_name()
    assert said["torch"] == torch.__version__
    assert said["threads"] == torch.get_num_threads()
    assert said["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
