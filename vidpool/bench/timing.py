"""Timing several calls against each other, so that whatever disturbs one disturbs all."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

SECONDS, LEAST, MOST = 2.0, 7, 200  # how long, and how many rounds, unless told otherwise

Call = Callable[[], object]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Times:
    """How long one call took.

    Attributes:
        rounds: Seconds, one entry a round, in the order in which they were measured.
    """

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds."""
        return float(np.median(self.rounds))

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper one, in seconds."""
        lower, upper = np.quantile(self.rounds, (0.25, 0.75))
        return float(lower), float(upper)

    @property
    def spread(self) -> float:
        """The interquartile range as a share of the median."""
        lower, upper = self.quartiles
        return (upper - lower) / self.median if self.median else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON: median, quartiles and the rounds, in seconds to the nanosecond."""
        lower, upper = self.quartiles
        return {
            "median": round(self.median, 9),
            "lower_quartile": round(lower, 9),
            "upper_quartile": round(upper, 9),
            "rounds": [round(seconds, 9) for seconds in self.rounds],
        }


def warm_up(calls: Mapping[Key, Call]) -> dict[Key, str]:
    """Call each once, unmeasured, and return why some cannot be called.

    That fills caches and memory pools, compiles what is compiled on demand, and finds what PyTorch
    has no kernel or no memory for.

    Returns:
        For each call that raised a RuntimeError (NotImplementedError is one), its first line.
    """
    reasons: dict[Key, str] = {}
    for key, call in calls.items():
        try:
            call()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
        except RuntimeError as error:
            reasons[key] = (str(error) or type(error).__name__).strip().splitlines()[0]
    return reasons


def interleave(
    calls: Mapping[Key, Call],
    seconds_of: Callable[[Call], float],
    rounds: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Key, Times]:
    """Measure calls round by round, each once a round.

    Each round has an order of its own (the same ones each time), because what a call leaves in the
    caches decides how fast the next one starts.

    Args:
        calls: What is measured.
        seconds_of: Runs a call and returns its seconds.
        rounds: How many; by default as many as start within `SECONDS`, from `LEAST` to `MOST`.
        clock: Seconds, for that default.
    """
    taken: dict[Key, list[float]] = {key: [] for key in calls}
    order = list(calls)
    shuffle = random.Random(0).shuffle
    started, done = clock(), 0
    while calls and (
        done < rounds
        if rounds is not None
        else done < LEAST or (done < MOST and clock() - started < SECONDS)
    ):
        shuffle(order)
        for key in order:
            taken[key].append(seconds_of(calls[key]))
        done += 1
    return {key: Times(tuple(seconds)) for key, seconds in taken.items()}


def cpu_seconds(call: Call, clock: Callable[[], float] = time.perf_counter) -> float:
    """Run a call on the CPU and return its seconds, without those of freeing its result."""
    started = clock()
    result = call()
    seconds = clock() - started
    del result
    return seconds


class CudaStopwatch:
    """Runs calls on the current CUDA device and returns the seconds that it took over them.

    Before each call the device overwrites more memory than its cache holds. So every call starts
    with the same, cold, cache; and it is in the queue by the time the device is free, so that a
    short one does not show the time that launching takes instead of its own.
    """

    def __init__(self) -> None:
        self._filler = torch.empty(2**28, dtype=torch.uint8, device="cuda")

    def __call__(self, call: Call) -> float:
        """Return the call's seconds on the device."""
        start = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        self._filler.zero_()
        start.record()
        result = call()
        end.record()
        end.synchronize()
        del result
        return float(start.elapsed_time(end)) / 1e3  # it is in milliseconds


def cuda_peak(call: Call) -> int:
    """Run a call and return the bytes that it held at most, its result included, beyond its input.

    They are those of PyTorch's allocator on the current CUDA device.
    """
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    peak = torch.cuda.max_memory_allocated() - before
    del result
    return peak
