"""Checks that a checkpoint fits the training or evaluation that loads it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import WeightAveraging

from vidpool.errors import CheckpointError
from vidpool.train.network import ARCHITECTURE
from vidpool.train.optim import same_groups

FINETUNING = ("freeze", "backbone_lr", "layer_decay")
"""The settings that determine which parameters an optimiser trains, and in which groups."""


def check_network(saved: Mapping[str, Any], settings: Mapping[str, Any], resuming: bool) -> None:
    """Refuse the checkpoint of another network and, for resuming, of another optimiser.

    Args:
        saved: Settings in the checkpoint.
        settings: Settings of the classifier that loads it.
        resuming: A training resumes from the checkpoint.

    Raises:
        CheckpointError: The settings differ; the message says in what, and how to fine-tune.
    """
    names = (*ARCHITECTURE, "optimizer") if resuming else ARCHITECTURE
    differing = [
        f"{name} is {saved[name]!r} in the checkpoint and {settings[name]!r} here"
        for name in names
        if name in saved and saved[name] != settings[name]
    ]
    if differing:
        raise CheckpointError(
            f"the checkpoint is of another network: {'; '.join(differing)}. To fine-tune its "
            "weights on other classes give it as --model.init_from instead of --ckpt_path"
        )


def check_parameter_groups(
    groups: Sequence[Mapping[str, Any]],
    new: Sequence[Mapping[str, Any]],
    saved: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    """Refuse an optimiser with other parameters, or with the parameters in other groups.

    Args:
        groups: Parameter groups in the checkpoint.
        new: Parameter groups of the optimiser that resumes.
        saved: Settings in the checkpoint.
        settings: Settings of the classifier that resumes.

    Raises:
        CheckpointError: The groups differ; the message names the settings that cause it.
    """
    if same_groups(groups, new):
        return
    differing = [
        f"model.{name} is {saved[name]} in the checkpoint and {settings[name]} here"
        for name in FINETUNING
        if name in saved and saved[name] != settings[name]
    ]
    raise CheckpointError(
        "the checkpoint's optimiser trains other parameters, or groups them otherwise: "
        f"{'; '.join(differing) or 'they are not named'}. To change this give the checkpoint "
        "as --model.init_from instead of --ckpt_path"
    )


def check_averaging(checkpoint: Mapping[str, Any], trainer: pl.Trainer) -> None:
    """Refuse to resume from averaged weights without the callback that averages them.

    Raises:
        CheckpointError: The trainer lacks the callback.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    averages = any(isinstance(each, WeightAveraging) for each in callbacks)
    if "averaging_state" in checkpoint and not averages:
        raise CheckpointError(
            "the checkpoint's weights are an average (EMA), beside which those in training are "
            "kept. Resume with the callback that made it, --config schedule/ema, "
            "or give the checkpoint as --model.init_from to start from the average"
        )


def check_class_names(saved: Sequence[str], names: Sequence[str]) -> None:
    """Refuse a checkpoint of other classes.

    Args:
        saved: Class names in the checkpoint.
        names: Class names of the data, as many.

    Raises:
        CheckpointError: The names differ; the message gives the first that does.
    """
    if saved == names:
        return
    number = next(i for i in range(len(names)) if names[i] != saved[i])
    unnamed = saved == [str(i) for i in range(len(saved))]
    hint = "It was imported without their names: see vidpool import --classes. " * unnamed
    raise CheckpointError(
        f"the checkpoint's classes are not the data's: class {number} is {saved[number]!r} "
        f"in the checkpoint and {names[number]!r} in the data. {hint}To fine-tune on other "
        "classes give the checkpoint as --model.init_from instead of --ckpt_path"
    )
