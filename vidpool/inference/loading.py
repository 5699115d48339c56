"""Trained networks, of the files that vidpool writes."""

import os
from typing import Any

import torch

from vidpool.data.views import Preprocessing
from vidpool.errors import CheckpointError, ConfigError
from vidpool.models.weights import load_checkpoint
from vidpool.train.classifier import VideoClassifier


def best_device(device: str) -> str:
    """The device itself; of ``auto`` a GPU where there is one."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_classifier(
    path: str | os.PathLike[str], device: str = "cpu"
) -> tuple[VideoClassifier, list[str], Preprocessing]:
    """The network in evaluation mode, its class names and its preprocessing, from a checkpoint.

    Args:
        path: A checkpoint of `vidpool fit` or `vidpool import`, or a `.pth` or `.safetensors` of
            `vidpool export`. Of a checkpoint with averaged weights, it is those.
        device: A PyTorch device that it is moved to; see :func:`best_device`.

    Raises:
        CheckpointError: The file cannot be read, or was not made by vidpool.
        ConfigError: The device cannot be used.
    """
    classifier, class_names, preprocessing = restore(load_checkpoint(path), path)
    device = best_device(device)
    try:
        classifier.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device!r} cannot be used: {error}") from None
    return classifier, class_names, preprocessing


def restore(
    checkpoint: dict[str, Any], path: str | os.PathLike[str]
) -> tuple[VideoClassifier, list[str], Preprocessing]:
    """What :func:`load_classifier` returns, of what :func:`load_checkpoint` read from `path`."""
    description = checkpoint.get("vidpool")
    if not description or "hyper_parameters" not in checkpoint:
        raise CheckpointError(
            f"{path}: holds no class names or preprocessing; needed is a checkpoint that "
            "`vidpool fit` or `vidpool import` made, or a file of `vidpool export`"
        )
    settings = {
        name: value
        for name, value in checkpoint["hyper_parameters"].items()
        if not name.startswith("_")
    }
    try:
        classifier = VideoClassifier(**settings)
        if "pytorch-lightning_version" in checkpoint:
            classifier.load_state_dict(checkpoint["state_dict"])
        else:  # of `vidpool export`, which are the network's alone
            classifier.model.load_state_dict(checkpoint["state_dict"])
        preprocessing = Preprocessing.from_dict(description["preprocessing"])
        class_names = description["class_names"]
        classifier.description = {
            "class_names": list(class_names),
            "preprocessing": preprocessing.to_dict(),
        }
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: does not fit this version of vidpool ({error})") from error
    return classifier.eval(), class_names, preprocessing
