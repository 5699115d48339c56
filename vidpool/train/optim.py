"""Optimizers: parameter groups, the named ones, and callables of the user's own."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from vidpool.errors import ConfigError
from vidpool.train.checkpoints import CLASS, class_name
from vidpool.train.lr_scheduler import LRSchedule

OptimizerName = Literal["sgd", "adamw"]
Interval = Literal["epoch", "step"]
OPTIMIZERS = ("sgd", "adamw")
RESTORED = ("params", "param_names", "lr", "initial_lr", "swa_lr")
"""Entries of a parameter group that are not settings of its optimizer."""


def check_settings(
    lr: float,
    momentum: float,
    weight_decay: float,
    lr_schedule: LRSchedule,
    milestones: Sequence[float] | None,
    warmup_epochs: float,
    label_smoothing: float,
) -> None:
    """Check the settings of an optimizer, its learning rate and its loss.

    Raises:
        ConfigError: A value cannot work.
    """
    if lr <= 0:
        raise ConfigError(f"lr must be positive, got {lr}", argument="lr")
    if weight_decay < 0:
        raise ConfigError(
            f"weight_decay must not be negative, got {weight_decay}", argument="weight_decay"
        )
    if not 0 <= momentum < 1:
        raise ConfigError(f"momentum must lie within [0, 1), got {momentum}", argument="momentum")
    if warmup_epochs < 0:
        raise ConfigError(
            f"warmup_epochs must not be negative, got {warmup_epochs}", argument="warmup_epochs"
        )
    if lr_schedule not in get_args(LRSchedule):
        raise ConfigError(
            f"lr_schedule must be one of {', '.join(get_args(LRSchedule))}, got {lr_schedule!r}",
            argument="lr_schedule",
        )
    if lr_schedule == "step" and not milestones:
        raise ConfigError(
            "lr_schedule step needs milestones, epochs like [40, 80]", argument="milestones"
        )
    if not 0 <= label_smoothing < 1:
        raise ConfigError(
            f"label_smoothing must lie within [0, 1), got {label_smoothing}",
            argument="label_smoothing",
        )


def parameter_groups(
    model: nn.Module, scales: Mapping[str, float] | None = None, separate_undecayed: bool = False
) -> list[dict[str, Any]]:
    """Return the parameters that need a gradient, grouped by the factor of their learning rate.

    Args:
        model: The network.
        scales: Factors of the learning rate, by the parameter's name. Each group keeps its factor
            as ``lr_scale``; groups with 1 come first. Defaults to 1 for all.
        separate_undecayed: Put biases and the parameters of normalization layers into groups of
            their own, with ``weight_decay`` 0.
    """
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for key, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = 1.0 if scales is None else scales[key]
        decayed = not separate_undecayed or parameter.ndim > 1
        new: dict[str, Any] = {"params": [], "lr_scale": scale}
        if not decayed:
            new["weight_decay"] = 0.0
        groups.setdefault((scale, decayed), new)["params"].append((key, parameter))
    order = sorted(groups, key=lambda group: (group[0] != 1.0, -group[0], not group[1]))
    return [groups[key] for key in order]


def make_optimizer(
    model: nn.Module,
    optimizer: Any,
    lr: float,
    momentum: float,
    weight_decay: float,
    scales: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """Return an optimizer of a network's parameters.

    Args:
        model: The network; parameters that need no gradient are left out.
        optimizer: ``"sgd"`` for SGD with Nesterov momentum, ``"adamw"`` for AdamW, which does not
            decay biases and normalization, or a callable that takes parameter groups.
        lr: Base learning rate; each group gets it times its ``lr_scale``.
        momentum: Momentum factor of ``"sgd"``.
        weight_decay: Weight decay of ``"sgd"`` and ``"adamw"``.
        scales: Factors of the learning rate, see :func:`parameter_groups`.

    Raises:
        ConfigError: `optimizer` stands for a callable of a checkpoint.
    """
    if optimizer == "sgd":
        made: Any = torch.optim.SGD(
            parameter_groups(model, scales),
            lr,
            momentum=momentum,
            weight_decay=weight_decay,
            nesterov=momentum > 0,
        )
    elif optimizer == "adamw":
        made = torch.optim.AdamW(
            parameter_groups(model, scales, True), lr, weight_decay=weight_decay
        )
    elif callable(optimizer):
        made = optimizer(parameter_groups(model, scales))
    else:
        raise unknown_optimizer(optimizer)
    for group in made.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
    return made


def unknown_optimizer(optimizer: object) -> ConfigError:
    """Return the error for an optimizer that is neither a known name nor a callable."""
    if isinstance(optimizer, str) and optimizer.startswith(CLASS):
        return ConfigError(
            f"the checkpoint was trained with {optimizer.removeprefix(CLASS)}, and checkpoints "
            "store no code: pass the optimizer again to train",
            argument="optimizer",
        )
    return ConfigError(
        f"optimizer must be {' or '.join(OPTIMIZERS)}, or a callable that takes parameter groups, "
        f"got {optimizer!r}",
        argument="optimizer",
    )


def example_optimizer(model: nn.Module, optimizer: Any) -> torch.optim.Optimizer:
    """Return an optimizer that a callable makes, for its class and its learning rate.

    Raises:
        ConfigError: The callable returns no optimizer, or one without a learning rate.
    """
    if not callable(optimizer):
        raise unknown_optimizer(optimizer)
    made = optimizer(parameter_groups(model))
    lr = getattr(made, "defaults", {}).get("lr")
    if not isinstance(made, torch.optim.Optimizer) or lr is None or not 0 < lr < math.inf:
        raise ConfigError(
            "optimizer must return a torch.optim.Optimizer with a positive lr, but returned "
            f"{type(made).__name__} with lr={lr}",
            argument="optimizer",
        )
    return made


def with_scheduler(
    optimizer: torch.optim.Optimizer, lr_scheduler: Any, interval: Interval
) -> OptimizerLRScheduler:
    """Return Lightning's configuration of an optimizer and a scheduler of the user's own.

    Args:
        optimizer: The optimizer.
        lr_scheduler: Callable that takes the optimizer and returns a scheduler, or Lightning's
            dict with ``scheduler`` and ``interval``.
        interval: How often the scheduler is stepped, unless it is given in a dict.

    Raises:
        ConfigError: The scheduler needs a metric to monitor, which is not given, or it is the
            name in a checkpoint.
    """
    if not callable(lr_scheduler):
        name = str(lr_scheduler).removeprefix(CLASS)
        raise ConfigError(
            f"lr_scheduler must be a callable, got {name}; checkpoints store no code: pass the "
            "lr_scheduler of the checkpoint again to train",
            argument="lr_scheduler",
        )
    made = lr_scheduler(optimizer)
    if isinstance(made, Mapping) and "scheduler" not in made:
        raise ConfigError(
            f"lr_scheduler must return a scheduler or a dict with 'scheduler', got {made!r}",
            argument="lr_scheduler",
        )
    config = dict(made) if isinstance(made, Mapping) else {"scheduler": made}
    scheduler = config["scheduler"]
    config.setdefault("interval", interval)
    if isinstance(scheduler, ReduceLROnPlateau) and "monitor" not in config:
        if not hasattr(scheduler, "monitor"):
            raise ConfigError(
                "ReduceLROnPlateau needs a metric: use pytorch_lightning.cli.ReduceLROnPlateau "
                "with monitor='val/loss'",
                argument="lr_scheduler",
            )
        config["monitor"] = scheduler.monitor
    return {"optimizer": optimizer, "lr_scheduler": config}  # type: ignore[return-value]


def scheduler_name(model: nn.Module, lr_scheduler: Any) -> str | None:
    """Return the text that stands for a callable in hyper-parameters: the class that it makes.

    Args:
        model: The network.
        lr_scheduler: The callable, None, or such a text, which is returned.

    Raises:
        ConfigError: It is something else.
    """
    if lr_scheduler is None or str(lr_scheduler).startswith(CLASS):
        return lr_scheduler
    if not callable(lr_scheduler):
        raise ConfigError(
            f"lr_scheduler must be a callable that takes the optimizer, got {lr_scheduler!r}",
            argument="lr_scheduler",
        )
    try:
        made = lr_scheduler(torch.optim.SGD(parameter_groups(model), 0.1))
    except Exception:  # the callable may need another optimizer
        return class_name(lr_scheduler)
    made = made.get("scheduler") if isinstance(made, Mapping) else made
    return class_name(type(made))


def settings_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return the settings of each parameter group, such as its weight decay, but for its rate."""
    return [
        {name: value for name, value in group.items() if name not in RESTORED}
        for group in optimizer.param_groups
    ]


def update_settings(optimizer: torch.optim.Optimizer, new: Sequence[Mapping[str, Any]]) -> None:
    """Give the groups of a resumed optimizer the settings of now; its state and rates stay."""
    for group, changed in zip(optimizer.param_groups, new, strict=True):
        group.update(changed)


def scale_rates(optimizer: torch.optim.Optimizer, scheduler: Any, factor: float) -> None:
    """Multiply the rates of an optimizer, and those that its scheduler starts from."""
    rates = getattr(scheduler, "_last_lr", None) or [g["lr"] for g in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor
        if "initial_lr" in group:
            group["initial_lr"] *= factor
    if hasattr(scheduler, "base_lrs"):
        scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]


def same_groups(saved: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> bool:
    """Return True if the groups of a saved and a new optimizer hold the same parameters."""
    return len(saved) == len(new) and all(
        len(there["params"]) == len(here["params"])
        and there.get("param_names", here.get("param_names")) == here.get("param_names")
        for there, here in zip(saved, new, strict=True)
    )
