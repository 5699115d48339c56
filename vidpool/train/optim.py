"""Optimisers and learning rates, which follow the progress of the training, not its steps."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from vidpool.data.schedule import ScheduledSampler
from vidpool.errors import ConfigError

OptimizerName = Literal["sgd", "adamw"]
LRSchedule = Literal["step", "cosine", "constant"]


def check_settings(
    lr: float,
    momentum: float,
    weight_decay: float,
    lr_schedule: LRSchedule,
    milestones: Sequence[float] | None,
    warmup_epochs: float,
    label_smoothing: float,
) -> None:
    """Check the settings of an optimiser, its learning rate and its loss.

    Raises:
        ConfigError: A value cannot work.
    """
    if lr <= 0:
        raise ConfigError(f"model.lr must be positive, got {lr}")
    if weight_decay < 0 or not 0 <= momentum < 1:
        raise ConfigError(
            "model.weight_decay must not be negative and model.momentum must lie within "
            f"[0, 1), got {weight_decay} and {momentum}"
        )
    if warmup_epochs < 0:
        raise ConfigError(f"model.warmup_epochs must not be negative, got {warmup_epochs}")
    if lr_schedule == "step" and not milestones:
        raise ConfigError("model.lr_schedule step needs model.milestones, epochs like [40, 80]")
    if not 0 <= label_smoothing < 1:
        raise ConfigError(f"model.label_smoothing must lie within [0, 1), got {label_smoothing}")


def lr_factor(
    epochs_done: float,
    schedule: LRSchedule,
    max_epochs: float,
    warmup_epochs: float = 0.0,
    milestones: Iterable[float] = (),
    gamma: float = 0.1,
) -> float:
    """Return the factor of the base learning rate.

    It is the product of a linear warm-up from 1 % and the schedule: ``step`` is multiplied by
    ``gamma`` at each milestone, ``cosine`` falls to 0 at ``max_epochs`` (Loshchilov and Hutter,
    2017).

    Args:
        epochs_done: Progress in epochs, with its fraction.
        schedule: Name of the schedule.
        max_epochs: Length of the training.
        warmup_epochs: Length of the warm-up. Defaults to 0, no warm-up.
        milestones: Epochs at which ``step`` falls.
        gamma: Factor of ``step`` at each milestone.
    """
    warmup = 1.0
    if epochs_done < warmup_epochs:
        warmup = 0.01 + 0.99 * epochs_done / warmup_epochs
    if schedule == "step":
        return warmup * gamma ** sum(epochs_done >= m for m in milestones)
    if schedule == "cosine":
        return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, epochs_done / max_epochs)))
    return warmup


def scheduled_lr(
    settings: Mapping[str, Any],
    sampler: ScheduledSampler | None,
    epoch: int,
    batch_idx: int,
    batches: int,
    max_epochs: int,
) -> float:
    """Return the base learning rate of a training step.

    Args:
        settings: Settings of :class:`~vidpool.train.classifier.VideoClassifier`.
        sampler: The schedule of vidpool's loaders; without it, all batches count the same.
        epoch: Epochs done.
        batch_idx: Number of the batch in its epoch.
        batches: Number of batches in the epoch.
        max_epochs: Length of the training.
    """
    done, last, factor = epoch + batch_idx / batches, float(max_epochs), 1.0
    if sampler is not None:
        schedule = sampler.schedule
        done = schedule.recipe_epoch(epoch + sampler.progress(batch_idx, batches))
        last = schedule.recipe_epoch(last)
        factor = sampler.plan[batch_idx].lr_factor
    lr = settings["lr"] * factor
    return lr * lr_factor(
        done,
        settings["lr_schedule"],
        last,
        settings["warmup_epochs"],
        settings["milestones"] or (),
        settings["gamma"],
    )


def make_optimizer(
    model: nn.Module,
    name: OptimizerName,
    lr: float,
    momentum: float,
    weight_decay: float,
    scales: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """Return SGD with Nesterov momentum, or AdamW, which does not decay biases and normalisation.

    Args:
        model: The network; parameters that need no gradient are left out.
        name: Name of the optimiser.
        lr: Base learning rate.
        momentum: Momentum factor of SGD.
        weight_decay: Weight decay.
        scales: Factors of the learning rate, by the parameter's name. Each parameter group keeps
            its factor as ``lr_scale``; groups with 1 come first. Defaults to 1 for all.
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
    """Set the learning rate of each group to ``lr`` times its ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def update_settings(optimizer: torch.optim.Optimizer, new: torch.optim.Optimizer) -> None:
    """Give the groups of a resumed optimiser the settings of a new one; its state stays."""
    for group, changed in zip(optimizer.param_groups, new.param_groups, strict=True):
        settings = ("momentum", "nesterov", "weight_decay", "lr_scale")
        group.update({name: changed[name] for name in settings if name in changed})


def same_groups(saved: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> bool:
    """Return True if the groups of a saved and a new optimiser hold the same parameters."""
    return len(saved) == len(new) and all(
        len(there["params"]) == len(here["params"])
        and there.get("param_names", here["param_names"]) == here["param_names"]
        for there, here in zip(saved, new, strict=True)
    )
