"""Timing of calls, memory, and a description of the machine, for all benchmarks.

Several calls are timed interleaved, so that a disturbance affects all of them alike.
"""

from __future__ import annotations

import ctypes
import platform
import random
import re
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from vidpool import __version__
from vidpool.ops.operator import COMPILED

DEFAULT_SECONDS, MIN_ROUNDS, MAX_ROUNDS = 2.0, 7, 200  # of a measurement without ``rounds``
# from glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4

Call = Callable[[], object]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Times:
    """Durations of one call.

    Attributes:
        rounds: Seconds, one entry per round, in the order in which they were measured.
    """

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median in seconds."""
        return float(np.median(self.rounds))

    @property
    def quartiles(self) -> tuple[float, float]:
        """Lower and upper quartile in seconds."""
        lower, upper = np.quantile(self.rounds, (0.25, 0.75))
        return float(lower), float(upper)

    @property
    def spread(self) -> float:
        """Interquartile range as a share of the median."""
        lower, upper = self.quartiles
        return (upper - lower) / self.median if self.median else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return median, quartiles and rounds as JSON values, in seconds to the nanosecond."""
        lower, upper = self.quartiles
        return {
            "median": round(self.median, 9),
            "lower_quartile": round(lower, 9),
            "upper_quartile": round(upper, 9),
            "rounds": [round(seconds, 9) for seconds in self.rounds],
        }


def median_ratio(times: Mapping[Key, Times], numerator: Key, denominator: Key) -> float | None:
    """Return the ratio of two medians, or None if one of them is missing."""
    if numerator not in times or not (denominator in times and times[denominator].median):
        return None
    return times[numerator].median / times[denominator].median


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its class if it has none."""
    return (str(error) or type(error).__name__).strip().splitlines()[0]


def warm_up(calls: Mapping[Key, Call]) -> dict[Key, str]:
    """Run each call once, unmeasured, and return why some calls fail.

    The run fills caches and memory pools, compiles code that is compiled on demand, and finds
    calls for which PyTorch has no kernel or not enough memory.

    Returns:
        First line of the error of each call that raised a RuntimeError, such as
        NotImplementedError.
    """
    reasons: dict[Key, str] = {}
    for key, call in calls.items():
        try:
            call()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
        except RuntimeError as error:
            reasons[key] = first_line(error)
    return reasons


def interleave(
    calls: Mapping[Key, Call],
    seconds_of: Callable[[Call], float],
    rounds: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Key, Times]:
    """Measure calls round by round, each call once per round.

    The order of the calls changes from round to round, because the data that a call leaves in the
    caches affect the next one. The orders are the same in each measurement.

    Args:
        calls: Calls to measure.
        seconds_of: Function that runs a call and returns its seconds.
        rounds: Number of rounds. Defaults to as many as start within ``DEFAULT_SECONDS``, but at
            least ``MIN_ROUNDS`` and at most ``MAX_ROUNDS``.
        clock: Clock in seconds that limits the default number of rounds.
    """
    measured: dict[Key, list[float]] = {key: [] for key in calls}
    order = list(calls)
    shuffle = random.Random(0).shuffle
    started, done = clock(), 0
    while calls and (
        done < rounds
        if rounds is not None
        else done < MIN_ROUNDS or (done < MAX_ROUNDS and clock() - started < DEFAULT_SECONDS)
    ):
        shuffle(order)
        for key in order:
            measured[key].append(seconds_of(calls[key]))
        done += 1
    return {key: Times(tuple(seconds)) for key, seconds in measured.items()}


def cpu_seconds(call: Call, clock: Callable[[], float] = time.perf_counter) -> float:
    """Run a call on the CPU and return its seconds, without the time to free its result."""
    started = clock()
    result = call()
    seconds = clock() - started
    del result
    return seconds


class CudaStopwatch:
    """Run calls on the current CUDA device and return the seconds that the device was busy.

    Before each call the device overwrites more memory than its cache holds. Every call therefore
    starts with the same cold cache, and is queued by the time the device is free. Otherwise the
    time of a short call would be that of its launch.
    """

    def __init__(self) -> None:
        self._filler = torch.empty(2**28, dtype=torch.uint8, device="cuda")

    def __call__(self, call: Call) -> float:
        """Return the seconds of a call on the device."""
        start = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        self._filler.zero_()
        start.record()
        result = call()
        end.record()
        end.synchronize()
        del result
        return float(start.elapsed_time(end)) / 1e3  # from milliseconds


class StageTimer:
    """Time the stages of a computation; a stage excludes the stages that run within it.

    Attributes:
        seconds: Total seconds by stage.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._seconds_within = [0.0]  # of the inner stages, one entry per stage that is running

    def time(self, stage: str, call: Callable[[], Any]) -> Any:
        """Run a call, add its seconds to a stage, and return its result."""
        started = time.perf_counter()
        self._seconds_within.append(0.0)
        try:
            return call()
        finally:
            total = time.perf_counter() - started
            inner = self._seconds_within.pop()
            self._seconds_within[-1] += total
            self.seconds[stage] = self.seconds.get(stage, 0.0) + total - inner

    @contextmanager
    def patch(self, owner: Any, name: str, stage: str) -> Iterator[None]:
        """Replace a function of a module or class by one that adds its seconds to a stage."""
        function = getattr(owner, name)
        setattr(owner, name, lambda *a, **k: self.time(stage, partial(function, *a, **k)))
        try:
            yield
        finally:
            setattr(owner, name, function)


def keep_heap_warm() -> bool:
    """Let glibc keep freed memory for the next tensor, until the process ends.

    By default glibc returns large blocks to the system and requests them again for each result.
    Zeroing fresh pages then costs more than pooling, and everything looks equally slow.

    Returns:
        True if glibc accepted the settings; False elsewhere, where nothing is changed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # older versions of glibc limit the threshold; disabling mappings has the same effect
    unmapped = mallopt(_M_MMAP_THRESHOLD, 2**31 - 1) or mallopt(_M_MMAP_MAX, 0)
    kept = mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    padded = mallopt(_M_TOP_PAD, 2**28)
    return bool(unmapped and kept and padded)


def cuda_peak_bytes(call: Call) -> int:
    """Run a call and return its peak memory in bytes, including its result but not its input.

    The number is that of PyTorch's allocator on the current CUDA device.
    """
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    peak = torch.cuda.max_memory_allocated() - before
    del result
    return peak


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes; 0 on systems other than Linux."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * 4096


def proc_bytes(file: str, field: str) -> int:
    """Return a field of a file in ``/proc/self`` in bytes.

    Args:
        file: ``status`` or ``smaps_rollup``, which list fields as ``Name:  123 kB``.
        field: Name of the field, such as ``VmRSS`` (resident memory), ``RssAnon`` (the part of it
            that maps no file) or ``Private_Dirty`` (written, and shared with no other process).

    Raises:
        OSError: The system is not Linux.
    """
    text = Path("/proc/self", file).read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    assert found, field
    return int(found[1]) * 1024


def describe_machine(device: str) -> dict[str, Any]:
    """Return the hardware and software that times depend on, as JSON values.

    Args:
        device: ``cpu``, or ``cuda`` for the current device.
    """
    return {
        "device": device,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else cpu_name(),
        "torch": torch.__version__,
        "vidpool": __version__,
        "compiled_kernels": device in COMPILED,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the model name of the CPU from Linux, or elsewhere the name that Python knows."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        label, _, name = line.partition(":")
        if label.strip() == "model name" and name.strip():
            return name.strip()
    return platform.processor() or platform.machine()
