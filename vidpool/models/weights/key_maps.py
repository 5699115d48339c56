"""Translating the keys of a checkpoint to those of a network, and inflating 2D kernels.

Wrappers put a prefix before every key: ``module.`` in the SRTG authors' files, ``model.`` in
Lightning checkpoints. Weights of torchvision's image networks are mapped to the video networks that
they can be inflated to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeAlias

from torch import Tensor

KeyMap: TypeAlias = Callable[[str, Mapping[str, Tensor]], str]
"""Maps a key of the file, given the network's state dict, to a key of the network."""

WRAPPERS = ("module.", "model.", "_orig_mod.")
"""Prefixes that DataParallel, Lightning modules and torch.compile put before every key."""


class Alignment(NamedTuple):
    """The tensors of a file by the keys of a network."""

    prefix: str
    """Prefix that was removed from the file's keys."""
    state: dict[str, Tensor]
    """Tensors by the network's keys."""
    unexpected: list[str]
    """The file's other keys, without the prefix."""


def align_keys(
    target: Mapping[str, Tensor], state: Mapping[str, Tensor], *, inflate: bool
) -> Alignment:
    """Find the prefix and key map by which most keys of a file are keys of the network.

    Args:
        target: State dict of the network.
        state: Tensors of the file.
        inflate: Try the key maps from image networks too.
    """
    prefixes = {prefix for key in state for prefix in _prefixes(key)}
    maps: tuple[KeyMap, ...] = (_same_key,)
    if inflate:
        maps = (_same_key, _resnet_key, _googlenet_key)
    best = Alignment("", {}, list(state))
    for prefix in sorted(prefixes, key=len):
        for key_map in maps:
            aligned: dict[str, Tensor] = {}
            unexpected = []
            for key, value in state.items():
                name = key_map(key.removeprefix(prefix), target)
                if key.startswith(prefix) and name in target and name not in aligned:
                    aligned[name] = value
                else:
                    unexpected.append(key.removeprefix(prefix))
            if len(aligned) > len(best.state):
                best = Alignment(prefix, aligned, unexpected)
    return best


def inflate_kernel(value: Tensor, target: Tensor) -> Tensor | None:
    """Repeat a 2D kernel along T and divide it by the number of frames.

    Args:
        value: (C', C, H, W), or (C', C) of a linear layer.
        target: (C', C, T, H, W) weight of the network.

    Returns:
        Weight of the target's shape and dtype; None if the shapes do not allow it.
    """
    if value.shape == target.shape or target.ndim != 5:
        return None
    if value.ndim == 2:
        value = value[..., None, None]
    frames = target.shape[2]
    if value.ndim != 4 or value.shape != (*target.shape[:2], *target.shape[3:]):
        return None
    return value.to(target.dtype).unsqueeze(2).repeat(1, 1, frames, 1, 1) / frames


def _prefixes(key: str) -> Iterable[str]:
    """Yield the prefixes of a key that wrappers may have added, beginning with the empty one."""
    prefix = ""
    yield prefix
    while found := next((w for w in WRAPPERS if key.startswith(w, len(prefix))), ""):
        prefix += found
        yield prefix


def _same_key(key: str, target: Mapping[str, Tensor]) -> str:  # noqa: ARG001
    return key


def _resnet_key(key: str, target: Mapping[str, Tensor]) -> str:
    """Map a key of torchvision's ResNets to one of :class:`vidpool.models.ResNet3d`."""
    stem = re.fullmatch(r"(conv|bn)1\.(\w+)", key)
    if stem:
        return f"stem.{('conv', 'bn').index(stem[1])}.{stem[2]}"
    inside = re.fullmatch(r"(layer\d+\.\d+)\.(conv|bn)(\d)\.(\w+)", key)
    if not inside:
        return key  # shortcuts and the classifier have the same keys
    block, layer, number, name = inside.groups()
    if layer == "bn":
        return f"{block}.conv{number}.1.{name}"
    spatial = f"{block}.conv{number}.0.0.{name}"  # kernels larger than one cell
    return spatial if spatial in target else f"{block}.conv{number}.0.{name}"


_GOOGLENET = {"conv1": "Conv3d_1a_7x7", "conv2": "Conv3d_2b_1x1", "conv3": "Conv3d_2c_3x3"}
_BRANCHES = {
    "branch1": "b0",
    "branch2.0": "b1a",
    "branch2.1": "b1b",
    "branch3.0": "b2a",
    "branch3.1": "b2b",
    "branch4.1": "b3b",
}


def _googlenet_key(key: str, target: Mapping[str, Tensor]) -> str:  # noqa: ARG001
    """Map a key of torchvision's GoogLeNet to one of :class:`vidpool.models.I3D`.

    Both have a 3x3 kernel where the GoogLeNet paper has a 5x5 one, and the same numbers of planes.
    """
    if key.startswith("fc."):
        return key.replace("fc.", "logits.conv3d.")
    key = key.replace(".conv.", ".conv3d.")
    layer, _, rest = key.partition(".")
    if layer in _GOOGLENET:
        return f"{_GOOGLENET[layer]}.{rest}"
    module = re.fullmatch(r"inception(\d)([a-e])\.(branch\d(?:\.\d)?)\.((?:conv3d|bn)\.\w+)", key)
    if not module or module[3] not in _BRANCHES:
        return key
    # I3D's names count the pooling layer before the modules
    return f"Mixed_{module[1]}{chr(ord(module[2]) + 1)}.{_BRANCHES[module[3]]}.{module[4]}"
