"""Transforms of the user's own: callables on uint8 clips, applied after the crop in training."""

import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vidpool.data.schedule import mix_seeds
from vidpool.data.transforms.augmentation import seeded
from vidpool.errors import ConfigError

# The result is a tensor; for `Callable[[Tensor], Tensor]` jsonargparse would accept only callables
# that make an object of the class Tensor.
ClipTransform = Callable[[Tensor], Any]
"""Takes a uint8 (T, C, H, W) clip and returns one of the same dtype, T and C; any H and W."""


def check_transform(transform: object) -> None:
    """Check that ``transform`` is a callable or None.

    Raises:
        ConfigError: The transform is something else, or a class instead of an object of the class.
    """
    if transform is None or (callable(transform) and not isinstance(transform, type)):
        return
    hint = ""
    if isinstance(transform, type):
        hint = f"; create an object of it: {transform.__name__}(…)"
    raise ConfigError(
        "transform must be a callable that takes and returns a uint8 (T, C, H, W) clip, "
        f"got {transform!r}{hint}",
        argument="transform",
    )


def check_picklable(transform: ClipTransform | None, workers: int, start: str | None) -> None:
    """Check that the transform can be sent to the worker processes of a data loader.

    Args:
        transform: The transform.
        workers: Number of worker processes.
        start: Start method of the processes; None for the platform's default.

    Raises:
        ConfigError: The processes do not inherit the transform, and it cannot be pickled.
    """
    if transform is None or workers == 0:
        return
    if start is None:
        start = multiprocessing.get_start_method(allow_none=True)
    start = start or multiprocessing.get_all_start_methods()[0]
    if start == "fork":
        return
    try:
        pickle.dumps(transform)
    except Exception as error:
        raise ConfigError(
            f"transform {transform!r} cannot be sent to worker processes that are started by "
            f"{start} ({error}): define the function or class at the top level of a module instead "
            "of a lambda or a local function, or set worker_start to fork or num_workers to 0",
            argument="transform",
        ) from error


def apply_transform(transform: ClipTransform, clip: Tensor, seed: int) -> Tensor:
    """Return the transformed clip.

    Args:
        transform: The transform. PyTorch's random numbers that it draws depend on ``seed`` alone.
        clip: uint8 (T, C, H, W).
        seed: Seed of the clip.

    Returns:
        uint8 (T, C, H', W').

    Raises:
        ConfigError: The transform returns something else.
    """
    # from the same seed as the crop, the draws would repeat those of the crop
    with seeded(mix_seeds(seed, 3)):
        result = transform(clip)
    if not isinstance(result, Tensor):
        raise ConfigError(
            f"transform must return a tensor, but returned {type(result).__name__}",
            argument="transform",
        )
    if result.dtype != torch.uint8:
        raise ConfigError(
            f"transform must return a uint8 clip, but returned {result.dtype}; clips are "
            "normalized later, on the device",
            argument="transform",
        )
    if result.dim() != 4 or result.shape[:2] != clip.shape[:2]:
        raise ConfigError(
            f"transform must keep T and C of a (T, C, H, W) clip, but made {tuple(result.shape)} "
            f"out of {tuple(clip.shape)}",
            argument="transform",
        )
    return result.as_subclass(Tensor)
