"""Reading checkpoints: errors in plain words, and weights that start a fine-tuning."""

import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn

from vidpool.errors import CheckpointError

CLASSIFIER = "fc."  # the layer that starts fresh where the classes differ


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a Lightning checkpoint onto the CPU, without running any code that it may hold.

    Raises:
        CheckpointError: The file is missing, cut short, no checkpoint, or a pickle of more than
            tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what unpickling raises depends on the file's bytes
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({reason})") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointError(f"{path}: is no Lightning checkpoint (it has no 'state_dict')")
    return checkpoint


def init_from(model: nn.Module, path: str | os.PathLike[str], prefix: str = "model.") -> list[str]:
    """Start a network from a checkpoint's weights; a classifier of other classes stays fresh.

    Args:
        model: The network, changed in place.
        path: A checkpoint of :class:`vidpool.train.classifier.VideoClassifier`.
        prefix: What stands before the network's keys in the checkpoint.

    Returns:
        The keys that stay as they were made: none, or the classifier's.

    Raises:
        CheckpointError: The backbone does not fit; the message names the first key that differs.
    """
    saved: dict[str, Tensor] = {
        key.removeprefix(prefix): value
        for key, value in load_checkpoint(path)["state_dict"].items()
        if key.startswith(prefix)
    }
    wanted = model.state_dict()
    differing = [
        key
        for key in wanted.keys() | saved.keys()
        if key not in saved or key not in wanted or saved[key].shape != wanted[key].shape
    ]
    backbone = sorted(key for key in differing if not key.startswith(CLASSIFIER))
    if backbone:
        key = backbone[0]
        there, here = (tuple(d[key].shape) if key in d else "absent" for d in (saved, wanted))
        raise CheckpointError(
            f"{path}: the backbone does not fit this model in {len(backbone)} of {len(wanted)} "
            f"weights; the first is {key}: {there} in the checkpoint, {here} in the model. Are "
            "model.backbone and model.width those of the checkpoint?"
        )
    model.load_state_dict({k: v for k, v in saved.items() if k not in differing}, strict=False)
    fresh = f"; the classifier starts fresh ({', '.join(sorted(differing))})" if differing else ""
    rank_zero_info(
        f"initialised {len(wanted) - len(differing)} of {len(wanted)} weights from {path}{fresh}"
    )
    return sorted(differing)
