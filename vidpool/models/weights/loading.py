"""Reading checkpoints, vidpool's and others', and taking their weights into a network.

What people have: the SRTG authors' ``{"epoch", "state_dict", "optimizer"}`` with `module.` before
every key, PyTorchVideo's ``{"model_state": ...}``, Lightning checkpoints with `model.` before
every key, plain state dicts such as torchvision's and the public I3D ports', safetensors, and
weights of image networks to be inflated.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vidpool.errors import CheckpointError, ConfigError
from vidpool.files import expand_path, utf8_path
from vidpool.models.pytorchvideo_models import PyTorchVideoNet

KeyMap: TypeAlias = Callable[[str, Mapping[str, Tensor]], str]
"""From a key of the file and the network's state dict to the network's key."""

ENTRIES = ("state_dict", "model_state", "model_state_dict", "model")
"""Where files of more than weights keep them: Lightning and SRTG's, PyTorchVideo's, others."""
PROGRAMS = (".onnx", ".pt2")
"""Suffixes of networks as programs, from which no weights are taken."""
WRAPPERS = ("module.", "model.", "_orig_mod.")
"""What DataParallel, Lightning modules and torch.compile put before every key."""
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""Heads of torchvision's Inception networks that serve training alone."""
DESCRIPTION = "vidpool"
"""Where vidpool's files say what is in them: in safetensors as JSON."""
UNUSED = ".num_batches_tracked"
"""A count that files from before PyTorch 0.4.1 lack, and that no network here computes with."""


@dataclass(frozen=True)
class Weights:
    """The tensors of a file."""

    path: Path
    state: dict[str, Tensor]
    """By the file's keys."""
    content: dict[str, Any]
    """What the file holds besides, by name: epoch, optimiser, hyper-parameters."""


class OtherShape(NamedTuple):
    """A weight that the file has in another shape."""

    key: str
    there: tuple[int, ...]
    here: tuple[int, ...]


@dataclass(frozen=True)
class Report:
    """What became of the weights of a file and of a network."""

    matched: tuple[str, ...]
    """The network's keys that were taken, in its order."""
    missing: tuple[str, ...]
    """The network's keys that the file lacks."""
    unexpected: tuple[str, ...]
    """The file's keys that the network lacks."""
    other_shape: tuple[OtherShape, ...]
    """Keys of both whose shapes differ."""
    inflated: tuple[str, ...] = ()
    """Those matched whose kernels were two-dimensional."""
    swapped: tuple[str, ...] = ()
    """Those matched whose input channels were put in the other order."""
    prefix: str = ""
    """What stood before the file's keys."""
    left_out: tuple[str, ...] = ()
    """What the file holds besides weights."""
    classifier: tuple[str, ...] = field(default=(), repr=False)
    """The network's keys of layers that make logits."""

    @property
    def fresh(self) -> tuple[str, ...]:
        """The network's keys that stay as they were made, sorted."""
        return tuple(sorted((*self.missing, *(entry.key for entry in self.other_shape))))

    @property
    def fresh_classifier(self) -> tuple[str, ...]:
        """Those of them that belong to the classifier."""
        return tuple(key for key in self.fresh if key in self.classifier)


class MismatchError(CheckpointError):
    """Weights that do not fit the network; `report` says which."""

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a Lightning checkpoint onto the CPU, without running any code that it may hold.

    Raises:
        CheckpointError: The file is missing, cut short, no checkpoint, or a pickle of more than
            tensors and plain values.
    """
    checkpoint = _read(expand_path(path))
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointError(f"{path}: is no Lightning checkpoint (it has no 'state_dict')")
    return checkpoint


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """Read the weights of a checkpoint of any kind onto the CPU, without running code in it.

    Raises:
        CheckpointError: As for :func:`load_checkpoint`, or there are no weights in the file.
    """
    path = expand_path(path)
    content = _read(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, no weights by name")
    name = next((entry for entry in ENTRIES if isinstance(content.get(entry), dict)), None)
    state = content if name is None else content[name]
    tensors = {
        key: value
        for key, value in state.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    if not tensors:
        raise CheckpointError(f"{path}: holds no weights (looked for {', '.join(ENTRIES)})")
    rest = {str(key): value for key, value in content.items() if name is not None and key != name}
    rest |= {str(key): value for key, value in state.items() if key not in tensors}
    return Weights(path, tensors, rest)


def load_weights(
    model: nn.Module,
    source: str | os.PathLike[str] | Weights,
    *,
    bgr: bool = False,
    inflate: bool = False,
    partial: bool = False,
    fresh_classifier: bool = False,
) -> Report:
    """Take a file's weights into a network; a classifier of other classes stays fresh.

    Prefixes such as `module.` are removed. If anything is raised, the network is unchanged.

    Args:
        model: The network, changed in place. Its `heads` are the names of the layers that make
            logits; of a network without, all weights have to fit.
        source: A checkpoint of any kind that :func:`read_weights` reads, or what it returned.
        bgr: Swap the input channels of the first convolution, for a network that was trained on
            frames in the order blue, green, red.
        inflate: Make three-dimensional kernels of two-dimensional ones by repeating them along T
            and dividing them by their number ("Quo Vadis, Action Recognition?", CVPR 2017, section
            2.2). torchvision's ResNets fit the r3d networks and its GoogLeNet fits I3D; of other
            networks, weights of the same names.
        partial: Take what fits, if it is at least half of the backbone's weights.
        fresh_classifier: Leave the classifier as it is even where the file's would fit.

    Returns:
        What was taken and what was not.

    Raises:
        CheckpointError: The file cannot be read.
        MismatchError: More than the classifier's number of classes differs; the message names the
            first weight, the error's `report` all. Auxiliary heads that the network was built
            without and missing counts of batches are no difference.
        ConfigError: `bgr` is asked for and the network does not take three channels.
    """
    weights = source if isinstance(source, Weights) else read_weights(source)
    wanted = model.state_dict()
    prefix, named, unexpected = _align(wanted, weights.state, inflate)
    heads = heads_of(model)
    classifier = tuple(k for k in wanted if k.startswith(tuple(f"{head}." for head in heads)))
    if fresh_classifier:
        named = {key: value for key, value in named.items() if key not in classifier}
    taken: dict[str, Tensor] = {}
    inflated, other = [], []
    for key, target in wanted.items():
        if key not in named:
            continue
        value = _inflated(named[key], target) if inflate else None
        if named[key].shape == target.shape:
            taken[key] = named[key]
        elif value is not None:
            taken[key] = value
            inflated.append(key)
        else:
            other.append(OtherShape(key, tuple(named[key].shape), tuple(target.shape)))
    swapped = _first_convolutions(model) if bgr else ()
    report = Report(
        matched=tuple(taken),
        missing=tuple(key for key in wanted if key not in named),
        unexpected=tuple(unexpected),
        other_shape=tuple(other),
        inflated=tuple(inflated),
        swapped=swapped,
        prefix=prefix,
        left_out=tuple(weights.content),
        classifier=classifier,
    )
    _check(weights.path, wanted, report, inflate, partial)
    for key in swapped:
        if key not in taken:
            raise MismatchError(
                f"{weights.path}: {key}, whose channels were to be swapped, is not in it", report
            )
        taken[key] = taken[key].flip(1)
    model.load_state_dict(taken, strict=False)
    return report


def count_classes(model: nn.Module, weights: Weights, *, inflate: bool = False) -> int | None:
    """How many classes a file's classifier tells apart; None where it has none.

    Args:
        model: The file's network with any number of classes; it may be on the meta device.
        weights: What :func:`read_weights` returned.
        inflate: As for :func:`load_weights`.
    """
    _, named, _ = _align(model.state_dict(), weights.state, inflate)
    heads = heads_of(model)
    key = f"{heads[0]}.weight" if heads else ""
    return named[key].shape[0] if key in named else None


def heads_of(model: nn.Module) -> tuple[str, ...]:
    """Dotted names of the layers that make logits, which networks of `create_model` have."""
    heads = getattr(model, "heads", ())
    return heads if isinstance(heads, tuple) else ()  # torchvision's ViT has a module of that name


def _read(path: Path) -> Any:
    """What a file holds, on the CPU."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    if path.suffix in PROGRAMS:
        raise CheckpointError(
            f"{path}: is a program of `vidpool export`, to predict with; give the checkpoint that "
            "it was made of"
        )
    with path.open("rb") as file:
        head = file.read(9)
    if path.suffix == ".safetensors" or head[8:] == b"{":
        return _read_safetensors(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickles and archives refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what unpickling raises depends on the file's bytes
        reason = _reason(head, str(error) or type(error).__name__)
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({reason})") from error


def _read_safetensors(path: Path) -> dict[str, Any]:
    """Tensors by name; of a file of `vidpool export`, the same entries as of its .pth."""
    try:
        with utf8_path(path) as name, safe_open(name, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            description = (file.metadata() or {}).get(DESCRIPTION)
        return state if description is None else {"state_dict": state, **json.loads(description)}
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({reason})") from error


def _reason(head: bytes, text: str) -> str:
    """Why PyTorch did not read a file, in a line."""
    code = re.search(r"GLOBAL (\S+)", text)
    if code:
        return f"its pickle wants to run {code[1]}; only tensors and plain values are read"
    if "TorchScript" in text:
        return "it is a TorchScript program; only tensors and plain values are read"
    if not head:
        return "it is empty"
    if not head.startswith((b"PK", b"\x80")):  # zip archives and pickles
        return f"it is no PyTorch file, it begins with {head[:8]!r}"
    if any(sign in text for sign in ("central directory", "EOF", "corrupted")):
        return "it is cut short or damaged"
    if "weights_only" in text:  # which PyTorch would have the user switch off
        return "its pickle holds more than tensors and plain values, or is damaged"
    return text.strip().splitlines()[0]


def _align(
    wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], inflate: bool
) -> tuple[str, dict[str, Tensor], list[str]]:
    """The prefix of a file's keys, its tensors by the network's keys, and its other keys.

    Of all prefixes and key maps, it is those by which most keys are the network's.
    """
    prefixes = {prefix for key in state for prefix in _prefixes(key)}
    maps = (_same_key, _resnet_key, _googlenet_key) if inflate else (_same_key,)
    best: tuple[str, dict[str, Tensor], list[str]] = ("", {}, list(state))
    for prefix in sorted(prefixes, key=len):
        for key_map in maps:
            named: dict[str, Tensor] = {}
            rest = []
            for key, value in state.items():
                name = key_map(key.removeprefix(prefix), wanted)
                if key.startswith(prefix) and name in wanted and name not in named:
                    named[name] = value
                else:
                    rest.append(key.removeprefix(prefix))
            if len(named) > len(best[1]):
                best = prefix, named, rest
    return best


def _prefixes(key: str) -> Iterable[str]:
    """The empty prefix, and what wrappers may have put before a key."""
    prefix = ""
    yield prefix
    while found := next((w for w in WRAPPERS if key.startswith(w, len(prefix))), ""):
        prefix += found
        yield prefix


def _same_key(key: str, wanted: Mapping[str, Tensor]) -> str:  # noqa: ARG001
    return key


def _resnet_key(key: str, wanted: Mapping[str, Tensor]) -> str:
    """From a key of torchvision's ResNets to one of :class:`vidpool.models.ResNet3d`."""
    stem = re.fullmatch(r"(conv|bn)1\.(\w+)", key)
    if stem:
        return f"stem.{('conv', 'bn').index(stem[1])}.{stem[2]}"
    inside = re.fullmatch(r"(layer\d+\.\d+)\.(conv|bn)(\d)\.(\w+)", key)
    if not inside:
        return key  # the shortcuts' and the classifier's are the same
    block, kind, number, name = inside.groups()
    if kind == "bn":
        return f"{block}.conv{number}.1.{name}"
    spatial = f"{block}.conv{number}.0.0.{name}"  # of kernels larger than one cell
    return spatial if spatial in wanted else f"{block}.conv{number}.0.{name}"


_GOOGLENET = {"conv1": "Conv3d_1a_7x7", "conv2": "Conv3d_2b_1x1", "conv3": "Conv3d_2c_3x3"}
_BRANCHES = {
    "branch1": "b0",
    "branch2.0": "b1a",
    "branch2.1": "b1b",
    "branch3.0": "b2a",
    "branch3.1": "b2b",
    "branch4.1": "b3b",
}


def _googlenet_key(key: str, wanted: Mapping[str, Tensor]) -> str:  # noqa: ARG001
    """From a key of torchvision's GoogLeNet to one of :class:`vidpool.models.I3D`.

    Both have a 3x3 kernel where the paper of GoogLeNet has a 5x5, and the same planes.
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
    # I3D's names count the pooling before the modules
    return f"Mixed_{module[1]}{chr(ord(module[2]) + 1)}.{_BRANCHES[module[3]]}.{module[4]}"


def _inflated(value: Tensor, target: Tensor) -> Tensor | None:
    """A weight (C', C, H, W) or (C', C) made (C', C, T, H, W); None where that does not fit."""
    if value.shape == target.shape or target.ndim != 5:
        return None
    if value.ndim == 2:
        value = value[..., None, None]
    frames = target.shape[2]
    if value.ndim != 4 or value.shape != (*target.shape[:2], *target.shape[3:]):
        return None
    return value.to(target.dtype).unsqueeze(2).repeat(1, 1, frames, 1, 1) / frames


def _first_convolutions(model: nn.Module) -> tuple[str, ...]:
    """Keys of the weights that meet the clip: the first convolution's, of each pathway."""
    convolutions = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Conv3d))
    }
    names = list(convolutions)[:1]
    if isinstance(model, PyTorchVideoNet) and model.alpha is not None:
        stems = (f"blocks.0.multipathway_blocks.{i}." for i in (0, 1))
        names = [next(name for name in convolutions if name.startswith(stem)) for stem in stems]
    channels = [convolutions[name].in_channels for name in names]
    if set(channels) != {3}:
        raise ConfigError(
            f"bgr swaps the three channels of the first convolution, but this network's has "
            f"{channels[0] if channels else 'no convolution'}"
        )
    return tuple(f"{name}.weight" for name in names)


def _check(
    path: Path, wanted: Mapping[str, Tensor], report: Report, inflate: bool, partial: bool
) -> None:
    """Refuse weights of which too many do not fit.

    Raises:
        MismatchError: See :func:`load_weights`.
    """
    differing = {entry.key: entry for entry in report.other_shape}
    _check_expansion(path, differing, report)
    wrong = [key for key in report.unexpected if not key.startswith(AUXILIARY)]
    wrong += [key for key in report.missing if not key.endswith(UNUSED)]
    wrong += differing
    wrong = [key for key in wrong if key not in _other_classes(report)]
    if partial:
        backbone = [k for k in wanted if k not in report.classifier and not k.endswith(UNUSED)]
        fitting = len(set(backbone) & set(report.matched))
        if 2 * fitting >= len(backbone):
            return
        raise MismatchError(
            f"{path}: only {fitting} of the backbone's {len(backbone)} weights fit this model, "
            "too few to be of use: is it the checkpoint's network, at its width?",
            report,
        )
    if not wrong:
        return
    # the classifier's last: that it differs may follow from the backbone
    key = min(wrong, key=lambda key: (key in report.classifier, key))
    here = str(tuple(wanted[key].shape)) if key in wanted else "absent"
    there = "present" if key in report.unexpected else "absent"
    if key in differing:
        there = str(differing[key].there)
    flat = [entry for entry in report.other_shape if len(entry.there) == 4 and len(entry.here) == 5]
    hint = ". Its kernels are two-dimensional: inflate them (--inflate)" if flat else ""
    raise MismatchError(
        f"{path}: the backbone does not fit this model in {len(wrong)} of {len(wanted)} "
        f"weights; the first is {key}: {there} in the checkpoint, {here} in the model"
        f"{'' if inflate else hint}",
        report,
    )


def _check_expansion(path: Path, differing: Mapping[str, OtherShape], report: Report) -> None:
    """Refuse bottlenecks that widen, whatever else fits: another family with the same keys."""
    entry = differing.get("layer1.0.conv3.0.weight")
    if entry and len(entry.there) >= 4 and entry.there[0] > entry.there[1]:
        raise MismatchError(
            f"{path}: its bottlenecks expand by {entry.there[0] // entry.there[1]} "
            f"({entry.key} makes {entry.there[0]} planes of {entry.there[1]}); this network is of "
            "the family whose bottlenecks do not expand",
            report,
        )


def _other_classes(report: Report) -> set[str]:
    """Keys of layers that make logits and that the file lacks, or has for other classes."""
    classes = {
        entry.key
        for entry in report.other_shape
        # a linear layer is a convolution of one cell
        if (*entry.there[1:], 1, 1, 1)[: len(entry.here) - 1] == entry.here[1:]
    } | set(report.missing)
    layers = {key.rpartition(".")[0] for key in report.classifier}
    of = {layer: {f"{layer}.{part}" for part in ("weight", "bias")} for layer in layers}
    # a layer of which one part fits is no classifier of other classes
    whole = [keys & set(report.classifier) for keys in of.values()]
    return {key for keys in whole if keys <= classes for key in keys}
