"""Measure training steps: half precision beside float32, SoftPool beside max pooling.

    python tools/measure_training.py --output benchmarks/training_NAME.json        # on a GPU
    python tools/measure_training.py --device cpu --tiny --output trial.json       # a dry run

For each network and clip shape (the full one and those of multigrid training) the four kinds of
step are timed in turn, round by round, so that their ratios are of the same moments; with each goes
the memory that it needs. Then each network is trained for ten steps from the same weights on the
same clips in both precisions, and the losses stand side by side. Half precision is float16 with
loss scaling on a GPU and bfloat16 on a CPU. What does not fit into the memory or the time is listed
as left out. It ends by itself within some `--minutes`.
"""

import argparse
import json
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vidpool.bench.timing import (
    CudaStopwatch,
    cpu_seconds,
    cuda_peak_bytes,
    describe_machine,
    interleave,
    warm_up,
)
from vidpool.data.multigrid_schedule import MultigridSchedule
from vidpool.data.views import ClipShape
from vidpool.models import create_model
from vidpool.nn import swap_pooling
from vidpool.train.bfloat16 import bfloat16_fault

CLASSES, STEPS, SEED = 100, 10, 0
NETWORKS = {"r3d_50": {}, "srtg_r2plus1d_50": {}}
TINY = {"r3d_18": {"width": 4}, "srtg_r2plus1d_18": {"width": 4}}
FULL, HALF = "float32", "half"
Shape = tuple[int, int, int]  # clips, frames, crop


class Step:
    """A step of training, made anew with each call.

    Args:
        network: Name of the network, with its options.
        pooling: ``soft`` or ``max``.
        precision: ``float32`` or ``half``.
        shape: Clips, frames and crop of its batches.
        device: ``cuda`` or ``cpu``.
    """

    def __init__(
        self,
        network: tuple[str, dict[str, Any]],
        pooling: str,
        precision: str,
        shape: Shape,
        device: str,
    ) -> None:
        torch.manual_seed(SEED)
        name, options = network
        clips, frames, crop = shape
        self._device, self._half = device, precision == HALF
        self._model = create_model(name, num_classes=CLASSES, **options)
        swap_pooling(self._model, pooling)
        self._model.to(device)
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=0.01, momentum=0.9)
        self._scaler = torch.amp.GradScaler(device, enabled=self._half and device == "cuda")
        generator = torch.Generator().manual_seed(SEED)
        self._clip = torch.randn(clips, 3, frames, crop, crop, generator=generator).to(device)
        self._label = torch.randint(CLASSES, (clips,), generator=generator).to(device)

    def __call__(self) -> torch.Tensor:
        """Train on the batch once and return the loss, of before the step."""
        dtype = torch.float16 if self._device == "cuda" else torch.bfloat16
        with torch.autocast(self._device, dtype, enabled=self._half):
            loss = nn.functional.cross_entropy(self._model(self._clip), self._label)
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(self._model.parameters(), 40.0)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss.detach()


def shapes(frames: int, crop: int, batch: int) -> list[Shape]:
    """The full clip's batch, then those of multigrid training as in the paper."""
    grid = MultigridSchedule(ClipShape(frames, 1, crop), batch, epochs=1, variant="paper")
    all_steps = [step for phase in grid.phases for step in phase.steps]
    varied = {(step.batch_size, step.shape.frames, step.shape.crop) for step in all_steps}
    full = (batch, frames, crop)
    return [full, *sorted(varied - {full})]


def measure(
    network: tuple[str, dict[str, Any]],
    shape: Shape,
    device: str,
    seconds_of: Callable[[Callable[[], object]], float],
    rounds: int,
) -> dict[str, Any]:
    """Time the four kinds of step, and their ratios by round.

    Returns:
        For JSON: by ``pooling precision`` the times, clips a second and peak memory in bytes, with
        why some could not be measured; and medians of ratios of times.
    """
    kinds = list(product(("soft", "max"), (HALF, FULL)))
    calls: dict[tuple[str, str], Step] = {}
    result: dict[str, Any] = {"steps": {}, "not_measured": {}, "ratios": {}}
    peaks = {}
    for kind in kinds:
        try:
            step = Step(network, *kind, shape, device)
        except RuntimeError as error:  # the memory is full
            result["not_measured"][" ".join(kind)] = str(error).splitlines()[0]
            continue
        reasons = warm_up({kind: step})
        if reasons:
            result["not_measured"][" ".join(kind)] = reasons[kind]
            del step
        else:
            calls[kind] = step
            peaks[kind] = cuda_peak_bytes(step) if device == "cuda" else None
    times = interleave(calls, seconds_of, rounds)
    for kind, taken in times.items():
        result["steps"][" ".join(kind)] = {
            "seconds": taken.as_dict(),
            "clips_per_second": round(shape[0] / taken.median, 3),
            # beside its weights, their gradients and the optimiser's state
            "peak_bytes": peaks[kind],
        }
    for name, one, other in [
        ("soft / max, half", ("soft", HALF), ("max", HALF)),
        ("soft / max, float32", ("soft", FULL), ("max", FULL)),
        ("half / float32, soft", ("soft", HALF), ("soft", FULL)),
        ("half / float32, max", ("max", HALF), ("max", FULL)),
    ]:
        if one in times and other in times:
            by_round = np.divide(times[one].rounds, times[other].rounds)
            result["ratios"][name] = round(float(np.median(by_round)), 4)
    return result


def losses(network: tuple[str, dict[str, Any]], shape: Shape, device: str) -> dict[str, Any]:
    """Losses of the first steps, from the same weights on the same clips."""
    found = {}
    for precision in (HALF, FULL):
        step = Step(network, "soft", precision, shape, device)
        found[precision] = [float(step()) for _ in range(STEPS)]
    apart = max(abs(one - other) for one, other in zip(*found.values(), strict=True))
    return {**found, "largest_difference": apart}


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write a JSON file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="the JSON file; must be new")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks and clips")
    parser.add_argument("--batch", type=int, default=8, help="full clips in a batch")
    parser.add_argument("--rounds", type=int, default=7, help="of each step")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which no case is begun")
    options = parser.parse_args(arguments)
    if options.output.exists():
        parser.error(f"{options.output} exists; give another name")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here; --device cpu --tiny makes a dry run")
    device = options.device
    if device == "cpu" and (fault := bfloat16_fault()):
        parser.error(f"on this CPU, {fault}")
    networks = TINY if options.tiny else NETWORKS
    cases = shapes(8, 32, 2) if options.tiny else shapes(16, 224, options.batch)
    stopwatch = CudaStopwatch() if device == "cuda" else cpu_seconds
    report: dict[str, Any] = {
        "machine": describe_machine(device),
        "half": "float16 with loss scaling" if device == "cuda" else "bfloat16",
        "convolutions_in_tf32": device == "cuda" and torch.backends.cudnn.allow_tf32,
        "losses": {},
        "cases": [],
        "left_out": [],
    }
    until = time.monotonic() + 60 * options.minutes
    for network in networks.items():
        print(f"{network[0]}: {STEPS} steps in both precisions", flush=True)
        report["losses"][network[0]] = losses(network, cases[0], device)
    # shape by shape, so that both networks have the most important ones
    for shape, network in product(cases, networks.items()):
        case = {"network": network[0], **dict(zip(("clips", "frames", "crop"), shape, strict=True))}
        if time.monotonic() > until:
            report["left_out"].append(case)
            continue
        measured = measure(network, shape, device, stopwatch, options.rounds)
        print(case, measured["ratios"], flush=True)
        report["cases"].append({**case, **measured})
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"written: {options.output}")


if __name__ == "__main__":
    main()
