"""Loading the weights of a file into a network, with a report and checks of what does not fit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from vidpool.errors import CheckpointError, ConfigError
from vidpool.models.heads import heads_of
from vidpool.models.weights.formats import Weights, read_weights
from vidpool.models.weights.key_maps import align_keys, inflate_kernel

AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""Prefixes of the auxiliary heads of torchvision's Inception networks, used in training only."""
BATCH_COUNT = ".num_batches_tracked"
"""Buffer that files from before PyTorch 0.4.1 lack and that no network here computes with."""


class ShapeMismatch(NamedTuple):
    """A weight whose shape differs between the file and the network."""

    key: str
    in_file: tuple[int, ...]
    in_model: tuple[int, ...]


@dataclass(frozen=True)
class Report:
    """The weights of a file that were loaded into a network, and those that were not."""

    matched: tuple[str, ...]
    """Keys of the network that were loaded, in its order."""
    missing: tuple[str, ...]
    """Keys of the network that the file lacks."""
    unexpected: tuple[str, ...]
    """Keys of the file that the network lacks."""
    shape_mismatches: tuple[ShapeMismatch, ...]
    """Keys of both whose shapes differ."""
    inflated: tuple[str, ...] = ()
    """Matched keys whose kernels were two-dimensional in the file."""
    swapped: tuple[str, ...] = ()
    """Matched keys whose input channels were reversed."""
    prefix: str = ""
    """Prefix that was removed from the keys of the file."""
    other_entries: tuple[str, ...] = ()
    """Entries of the file other than weights."""
    classifier: tuple[str, ...] = field(default=(), repr=False)
    """Keys of the network that belong to layers that compute logits."""

    @property
    def fresh(self) -> tuple[str, ...]:
        """Keys of the network that keep their initial values, sorted."""
        return tuple(sorted((*self.missing, *(entry.key for entry in self.shape_mismatches))))

    @property
    def fresh_classifier(self) -> tuple[str, ...]:
        """Keys of the classifier that keep their initial values, sorted."""
        return tuple(key for key in self.fresh if key in self.classifier)


class MismatchError(CheckpointError):
    """The weights do not fit the network; `report` lists the differences."""

    def __init__(self, message: str, report: Report, argument: str | None = None) -> None:
        super().__init__(message, argument)
        self.report = report


def load_weights(
    model: nn.Module,
    source: str | os.PathLike[str] | Weights,
    *,
    bgr: bool = False,
    inflate: bool = False,
    partial: bool = False,
    fresh_classifier: bool = False,
) -> Report:
    """Load the weights of a file into a network.

    Prefixes such as `module.` are removed. The classifier keeps its initial values if the number
    of classes differs. If an exception is raised, the network is unchanged.

    Args:
        model: The network, changed in place. Its classifier consists of the layers of
            :func:`~vidpool.models.heads_of`.
        source: A checkpoint of any format that :func:`read_weights` reads, or its result.
        bgr: Reverse the input channels of the first convolution, for weights that were trained on
            frames in the order blue, green, red.
        inflate: Inflate 2D kernels to 3D by repeating them along T and dividing them by the number
            of frames ("Quo Vadis, Action Recognition?", CVPR 2017, section 2.2). torchvision's
            ResNets fit the r3d networks and its GoogLeNet fits I3D; for other networks the keys
            have to be the same.
        partial: Load the weights that fit, if they are at least half of the backbone's.
        fresh_classifier: Do not load the classifier, even if it fits.

    Returns:
        A report of which weights were loaded and which were not.

    Raises:
        CheckpointError: If the file cannot be read.
        MismatchError: If the weights do not fit, apart from the number of classes; the message
            names the first difference, the error's `report` lists all. Auxiliary heads that the
            network lacks and batch counts that the file lacks are accepted.
        ConfigError: If `bgr` is set and the network does not take three channels.

    Examples:
        >>> import tempfile, torch
        >>> from vidpool.models import create_model, load_weights
        >>> source = create_model("r3d_18", num_classes=400, width=8)
        >>> network = create_model("r3d_18", num_classes=101, width=8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(source.state_dict(), f"{folder}/kinetics.pth")
        ...     report = load_weights(network, f"{folder}/kinetics.pth")
        >>> len(report.matched), report.fresh  # the classifier has other classes
        (120, ('fc.bias', 'fc.weight'))
    """
    weights = source if isinstance(source, Weights) else read_weights(source)
    target = model.state_dict()
    prefix, aligned, unexpected = align_keys(target, weights.state, inflate=inflate)
    heads = heads_of(model)
    classifier = tuple(k for k in target if k.startswith(tuple(f"{head}." for head in heads)))
    if fresh_classifier:
        aligned = {key: value for key, value in aligned.items() if key not in classifier}
    loaded: dict[str, Tensor] = {}
    inflated, mismatches = [], []
    for key, value in target.items():
        if key not in aligned:
            continue
        kernel = inflate_kernel(aligned[key], value) if inflate else None
        if aligned[key].shape == value.shape:
            loaded[key] = aligned[key]
        elif kernel is not None:
            loaded[key] = kernel
            inflated.append(key)
        else:
            mismatches.append(ShapeMismatch(key, tuple(aligned[key].shape), tuple(value.shape)))
    swapped = _input_weights(model) if bgr else ()
    report = Report(
        matched=tuple(loaded),
        missing=tuple(key for key in target if key not in aligned),
        unexpected=tuple(unexpected),
        shape_mismatches=tuple(mismatches),
        inflated=tuple(inflated),
        swapped=swapped,
        prefix=prefix,
        other_entries=tuple(weights.content),
        classifier=classifier,
    )
    _check_report(weights.path, target, report, inflate, partial)
    for key in swapped:
        if key not in loaded:
            raise MismatchError(
                f"{weights.path}: {key}, whose channels were to be swapped, is not in it", report
            )
        loaded[key] = loaded[key].flip(1)
    model.load_state_dict(loaded, strict=False)
    return report


def count_classes(model: nn.Module, weights: Weights, *, inflate: bool = False) -> int | None:
    """Return the number of classes of a file's classifier; None if it has no classifier.

    Args:
        model: The file's network with any number of classes; it may be on the meta device.
        weights: Result of :func:`read_weights`.
        inflate: See :func:`load_weights`.
    """
    aligned = align_keys(model.state_dict(), weights.state, inflate=inflate).state
    heads = heads_of(model)
    key = f"{heads[0]}.weight" if heads else ""
    return aligned[key].shape[0] if key in aligned else None


def _input_weights(model: nn.Module) -> tuple[str, ...]:
    """Return the keys of the convolutions that take the clip, one for each pathway.

    Raises:
        ConfigError: If they do not take three channels.
    """
    convolutions = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Conv3d))
    }
    names = getattr(model, "input_convolutions", ()) or tuple(convolutions)[:1]
    channels = [convolutions[name].in_channels for name in names]
    if set(channels) != {3}:
        raise ConfigError(
            f"bgr swaps the three channels of the first convolution, but this network's has "
            f"{channels[0] if channels else 'no convolution'}",
            argument="bgr",
        )
    return tuple(f"{name}.weight" for name in names)


def _check_report(
    path: Path, target: Mapping[str, Tensor], report: Report, inflate: bool, partial: bool
) -> None:
    """Check that enough weights fit.

    Raises:
        MismatchError: See :func:`load_weights`.
    """
    mismatches = {entry.key: entry for entry in report.shape_mismatches}
    _check_expansion(path, mismatches, report)
    wrong = [key for key in report.unexpected if not key.startswith(AUXILIARY)]
    wrong += [key for key in report.missing if not key.endswith(BATCH_COUNT)]
    wrong += mismatches
    wrong = [key for key in wrong if key not in _keys_of_other_classes(report)]
    if partial:
        backbone = [
            key for key in target if key not in report.classifier and not key.endswith(BATCH_COUNT)
        ]
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
    # the classifier's keys come last: they may differ because the backbone does
    key = min(wrong, key=lambda key: (key in report.classifier, key))
    in_model = str(tuple(target[key].shape)) if key in target else "absent"
    in_file = "present" if key in report.unexpected else "absent"
    if key in mismatches:
        in_file = str(mismatches[key].in_file)
    is_2d = any(
        len(entry.in_file) == 4 and len(entry.in_model) == 5 for entry in report.shape_mismatches
    )
    hint = ". Its kernels are two-dimensional: inflate them (inflate=True)" if is_2d else ""
    raise MismatchError(
        f"{path}: the backbone does not fit this model in {len(wrong)} of {len(target)} "
        f"weights; the first is {key}: {in_file} in the checkpoint, {in_model} in the model"
        f"{'' if inflate else hint}",
        report,
        argument="inflate" if is_2d and not inflate else None,
    )


def _check_expansion(path: Path, mismatches: Mapping[str, ShapeMismatch], report: Report) -> None:
    """Refuse bottlenecks that expand: they are of another family of networks with the same keys.

    Raises:
        MismatchError: If the file's bottlenecks expand.
    """
    entry = mismatches.get("layer1.0.conv3.0.weight")
    if entry and len(entry.in_file) >= 4 and entry.in_file[0] > entry.in_file[1]:
        raise MismatchError(
            f"{path}: its bottlenecks expand by {entry.in_file[0] // entry.in_file[1]} "
            f"({entry.key} makes {entry.in_file[0]} planes of {entry.in_file[1]}); this network is "
            "of the family whose bottlenecks do not expand",
            report,
        )


def _keys_of_other_classes(report: Report) -> set[str]:
    """Return the keys of classifiers that the file lacks or has for other classes."""
    differing = {
        entry.key
        for entry in report.shape_mismatches
        # a linear layer is a convolution of one cell
        if (*entry.in_file[1:], 1, 1, 1)[: len(entry.in_model) - 1] == entry.in_model[1:]
    } | set(report.missing)
    layers: dict[str, set[str]] = {}
    for key in report.classifier:
        layer, _, part = key.rpartition(".")
        if part in ("weight", "bias"):
            layers.setdefault(layer, set()).add(key)
    # if only one of weight and bias differs, the number of classes is not the reason
    return {key for keys in layers.values() if keys <= differing for key in keys}
