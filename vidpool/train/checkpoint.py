"""Weights that start a training."""

import os
from collections.abc import Sequence

from pytorch_lightning.utilities import rank_zero_info
from torch import nn

from vidpool.errors import CheckpointError
from vidpool.files import expand_path
from vidpool.models.weights import MismatchError, load_weights, read_weights


def init_from(
    model: nn.Module, path: str | os.PathLike[str], class_names: Sequence[str] | None = None
) -> list[str]:
    """Start a network from a checkpoint's weights; a classifier of other classes stays fresh.

    Classes are others where their number is, or where the checkpoint names them otherwise.

    Args:
        model: The network, changed in place.
        path: A checkpoint of any kind that :func:`~vidpool.models.weights.read_weights`
            reads.
        class_names: Of the classes to be trained; None where they are not known.

    Returns:
        The keys that stay as they were made: none, or the classifier's.

    Raises:
        CheckpointError: There is no such file, or the backbone does not fit; then the message names
            the first key that differs.
    """
    path = expand_path(path)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such checkpoint file; --model.init_from names the one to start from"
        )
    weights = read_weights(path)
    known = (weights.content.get("vidpool") or {}).get("class_names")
    others = known is not None and class_names is not None and list(known) != list(class_names)
    try:
        report = load_weights(model, weights, fresh_classifier=others)
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
