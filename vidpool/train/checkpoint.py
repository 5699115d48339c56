"""Weights that start a training."""

import os

from pytorch_lightning.utilities import rank_zero_info
from torch import nn

from vidpool.models.checkpoint import MismatchError, load_weights


def init_from(model: nn.Module, path: str | os.PathLike[str]) -> list[str]:
    """Start a network from a checkpoint's weights; a classifier of other classes stays fresh.

    Args:
        model: The network, changed in place.
        path: A checkpoint of any kind that :func:`vidpool.models.checkpoint.read_weights` reads.

    Returns:
        The keys that stay as they were made: none, or the classifier's.

    Raises:
        CheckpointError: The backbone does not fit; the message names the first key that differs.
    """
    try:
        report = load_weights(model, path)
    except MismatchError as error:
        hint = "Are model.backbone and model.width those of the checkpoint?"
        raise MismatchError(f"{error}. {hint}", error.report) from error
    rest = ", ".join(report.fresh_classifier)
    rank_zero_info(
        f"initialised {len(report.matched)} of {len(report.matched) + len(report.fresh)} weights "
        f"from {path}{f'; the classifier starts fresh ({rest})' if rest else ''}"
    )
    if report.unexpected:
        rank_zero_info(f"not taken from {path}: {', '.join(report.unexpected)}")
    return list(report.fresh)
