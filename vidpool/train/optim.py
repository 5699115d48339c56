"""Optimisers and learning rates; the rate follows training's progress, not a count of steps."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

OptimizerName = Literal["sgd", "adamw"]
LRSchedule = Literal["step", "cosine", "constant"]


def lr_factor(
    epochs_done: float,
    schedule: LRSchedule,
    max_epochs: float,
    warmup_epochs: float = 0.0,
    milestones: Iterable[float] = (),
    gamma: float = 0.1,
) -> float:
    """What the base learning rate is multiplied with.

    A linear warm-up from 1 % is multiplied with the schedule: ``step`` is multiplied by ``gamma``
    at each milestone, ``cosine`` falls to 0 at ``max_epochs`` (Loshchilov and Hutter, 2017).

    Args:
        epochs_done: Progress in epochs, with its fraction.
        schedule: Which schedule.
        max_epochs: Length of the training.
        warmup_epochs: Length of the warm-up, 0 for none.
        milestones: For ``step``: epochs at which the rate falls.
        gamma: For ``step``: the factor of each fall.
    """
    warmup = 1.0
    if epochs_done < warmup_epochs:
        warmup = 0.01 + 0.99 * epochs_done / warmup_epochs
    if schedule == "step":
        return warmup * gamma ** sum(epochs_done >= m for m in milestones)
    if schedule == "cosine":
        return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, epochs_done / max_epochs)))
    return warmup


def make_optimizer(
    model: nn.Module,
    name: OptimizerName,
    lr: float,
    momentum: float,
    weight_decay: float,
    scales: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW; biases and normalisation are not decayed by AdamW.

    Args:
        model: The network; what needs no gradient is left out.
        name: Which optimiser.
        lr: Base learning rate.
        momentum: Of SGD.
        weight_decay: Of what is decayed.
        scales: By a parameter's name, what its learning rate is multiplied with; by default 1. Each
            group of parameters keeps it as ``lr_scale``, those with 1 come first.
    """
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for key, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = 1.0 if scales is None else scales[key]
        decayed = name == "sgd" or parameter.ndim > 1
        new = {"params": [], "lr": lr * scale, "lr_scale": scale}
        new["weight_decay"] = weight_decay if decayed else 0.0
        groups.setdefault((scale, decayed), new)["params"].append((key, parameter))
    order = sorted(groups, key=lambda group: (group[0] != 1.0, -group[0], not group[1]))
    sorted_groups = [groups[key] for key in order]
    if name == "sgd":
        return torch.optim.SGD(sorted_groups, lr, momentum=momentum, nesterov=momentum > 0)
    return torch.optim.AdamW(sorted_groups, lr)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of each group: ``lr`` times its ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def same_groups(saved: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> bool:
    """Whether groups of a saved optimiser hold the same parameters as those of a new one."""
    return len(saved) == len(new) and all(
        len(there["params"]) == len(here["params"])
        and there.get("param_names", here["param_names"]) == here["param_names"]
        for there, here in zip(saved, new, strict=True)
    )
