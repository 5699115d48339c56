"""Batches on their way to the network: any loader's, changed on the device, normalized, mixed."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vidpool.data.views import normalize
from vidpool.errors import ConfigError


def as_dict(batch: Any) -> dict[str, Any]:
    """Return a batch as a dict with ``clip`` and what else it has.

    Args:
        batch: A dict, a ``(clip, label)`` pair, or the clips alone.

    Raises:
        ConfigError: The batch is none of these.
    """
    if isinstance(batch, Tensor):
        return {"clip": batch}
    if isinstance(batch, Mapping) and "clip" in batch:
        return dict(batch)
    if isinstance(batch, Sequence) and 1 <= len(batch) <= 2:
        return dict(zip(("clip", "label"), batch, strict=False))
    found = f"a dict of {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else type(batch)
    raise ConfigError(
        f"a batch must be a dict with 'clip' and 'label', or a (clip, label) pair, but is {found}"
    )


def label_of(batch: Mapping[str, Any]) -> Tensor:
    """Return the class ids of a batch.

    Raises:
        ConfigError: The batch has no labels.
    """
    if "label" not in batch:
        raise ConfigError(
            "the batch has no 'label': training, validation and testing need the class ids of its "
            "clips, int64 (N,)"
        )
    return batch["label"]


def normalize_clips(clip: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return uint8 clips normalized in float32; floating-point clips count as normalized.

    Args:
        clip: (N, C, T, H, W).
        mean: Mean of each channel, in [0, 1].
        std: Standard deviation of each channel, in [0, 1].

    Raises:
        ConfigError: The clips are of another dtype, or have another number of channels.
    """
    if clip.is_floating_point():
        return clip
    if clip.dtype != torch.uint8:
        raise ConfigError(f"clips must be uint8, or normalized floats, but are {clip.dtype}")
    if clip.ndim != 5 or clip.shape[1] != len(mean):
        raise ConfigError(
            f"uint8 clips must have the shape (N, {len(mean)}, T, H, W), since mean and std have "
            f"{len(mean)} values, but have {tuple(clip.shape)}"
        )
    return normalize(clip, tuple(mean), tuple(std))


def prepare(
    batch: Any, mean: Sequence[float], std: Sequence[float], num_classes: int
) -> dict[str, Any]:
    """Return a batch whose clips are ready for the network.

    What the batch's entry ``augment`` leaves to the device is done: change the uint8 clips,
    normalize them in float32, and mix them with each other. A prepared batch stays as it is.

    Args:
        batch: See :func:`as_dict`.
        mean: Mean of each channel, in [0, 1].
        std: Standard deviation of each channel, in [0, 1].
        num_classes: Number of classes, for the shares of mixed clips.
    """
    batch = as_dict(batch)
    augment = batch.pop("augment", None)
    clip = batch["clip"]
    if augment is not None and augment.on_device:
        frames = zip(clip.transpose(1, 2), batch["seed"], strict=True)
        changed = [augment.change(clip, seed) for clip, seed in frames]
        clip = torch.stack(changed).transpose(1, 2)
    clip = normalize_clips(clip, mean, std)
    if augment is None or not (augment.mixup or augment.cutmix):
        return {**batch, "clip": clip}
    clip, target = augment.mix(clip, batch["label"], num_classes, batch["seed"])
    return {**batch, "clip": clip, "target": target, "label": target.argmax(1)}
