"""Optimisers and learning rates; the rate follows training's progress, not a count of steps."""

import math
from collections.abc import Iterable
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
    model: nn.Module, name: OptimizerName, lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW; biases and normalisation are not decayed by AdamW."""
    if name == "sgd":
        return torch.optim.SGD(
            model.parameters(),
            lr,
            momentum=momentum,
            nesterov=momentum > 0,
            weight_decay=weight_decay,
        )
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr, weight_decay=weight_decay)
