"""Conversion of third-party checkpoints: weights, class names and preprocessing in one file."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from safetensors.torch import save_file

from vidpool.data.datamodule import MEAN, STD
from vidpool.data.views import Preprocessing
from vidpool.errors import CheckpointError, ConfigError
from vidpool.files import atomic_write, check_output
from vidpool.models import I3D, ResNet3d, create_model, model_info
from vidpool.models.weights import (
    Report,
    Weights,
    count_classes,
    load_weights,
    read_weights,
)
from vidpool.train.classifier import VideoClassifier
from vidpool.train.network import ARCHITECTURE

SUFFIXES = (".ckpt", ".pth", ".pt", ".safetensors")

# frames between those of a clip, where PyTorchVideo's model zoo has another number than 2
_STRIDES = {
    "pytorchvideo/r2plus1d_r50": 4,
    "pytorchvideo/slow_r50": 8,
    "pytorchvideo/x3d_xs": 12,
    "pytorchvideo/x3d_s": 6,
    "pytorchvideo/x3d_m": 5,
    "pytorchvideo/x3d_l": 5,
}
# as the documentation of torchvision's weights says they were tested
_TORCHVISION = {
    "torchvision/s3d": {"frames": 128, "clips": 1},
    "torchvision/swin3d_t": {"frames": 32, "clips": 12},
    "torchvision/mvit_v2_s": {"stride": 4},
}
# torchvision's own classes turn ImageNet's normalisation into this one first
_INCEPTIONS = ("torchvision/googlenet", "torchvision/inception_v3")


@dataclass(frozen=True)
class Imported:
    """A classifier with the weights of a file."""

    classifier: VideoClassifier
    """Its `description` contains class names and preprocessing."""
    report: Report
    origin: str
    """Source of the preprocessing, in words."""
    named: bool
    """The class names are known; otherwise classes are named by their numbers."""


def import_checkpoint(
    path: str | os.PathLike[str],
    backbone: str,
    *,
    num_classes: int | None = None,
    width: int | None = None,
    pooling: str | None = None,
    pooling_options: dict[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    bgr: bool = False,
    inflate: bool = False,
    partial: bool = False,
) -> Imported:
    """Build a classifier with the weights of a third-party checkpoint, or one of vidpool.

    Arguments that are not given follow from the file if it is a checkpoint of vidpool.

    Args:
        path: Any file that :func:`vidpool.models.weights.read_weights` reads.
        backbone: The network, one of :func:`vidpool.models.list_models`.
        num_classes: Number of classes. Defaults to that of the file's classifier.
        width: Channels of the first stage. Defaults to the network's own.
        pooling: Pooling method that the network was trained with, see
            :func:`vidpool.nn.swap_pooling`. Defaults to the network's own.
        pooling_options: Options of :func:`vidpool.nn.swap_pooling`.
        class_names: Names in the order of the classes. Defaults to numbers from 0.
        preprocessing: Fields of :class:`vidpool.data.views.Preprocessing` that differ from the
            usual ones of the file's source; mean and std in the order red, green, blue.
        bgr: See :func:`vidpool.models.load_weights`.
        inflate: See :func:`vidpool.models.load_weights`.
        partial: See :func:`vidpool.models.load_weights`.

    Raises:
        CheckpointError: The file cannot be read, does not fit (:class:`MismatchError`, with a
            report), or does not contain the number of classes.
        ConfigError: The network is unknown, or a value cannot work.
    """
    weights = read_weights(path)
    saved = _own_settings(weights)
    settings: dict[str, Any] = {"backbone": backbone, "pooling": pooling or saved.get("pooling")}
    # saved options are those of the saved network and pooling alone
    if settings["pooling"] == saved.get("pooling"):
        settings["pooling_options"] = saved.get("pooling_options")
    if pooling_options:
        settings["pooling_options"] = pooling_options
    if backbone == saved.get("backbone"):
        settings["backbone_options"] = saved.get("backbone_options")
    width = saved.get("width") if width is None else width
    if width is not None:
        settings["width"] = width
    if num_classes is None:
        num_classes = len(class_names) if class_names else _classes(weights, backbone, inflate)
    classifier = VideoClassifier(num_classes=num_classes, **settings)
    report = load_weights(classifier.model, weights, bgr=bgr, inflate=inflate, partial=partial)

    description = weights.content.get("vidpool") or {}
    if class_names is None and not report.fresh_classifier:
        class_names = description.get("class_names")
    named = class_names is not None
    class_names = [str(i) for i in range(num_classes)] if class_names is None else class_names
    if len(class_names) != num_classes:
        raise ConfigError(f"{len(class_names)} names for {num_classes} classes")
    if "preprocessing" in description:
        usual, origin = description["preprocessing"], "of the checkpoint"
    else:
        usual, origin = _usual_preprocessing(classifier, report)
    chosen = Preprocessing.from_dict({**usual, **(preprocessing or {})})
    classifier.description = {"class_names": list(class_names), "preprocessing": chosen.to_dict()}
    return Imported(classifier, report, origin, named)


def save(
    classifier: VideoClassifier, out: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write a classifier in the format of the file's suffix.

    Args:
        classifier: The classifier; a `.ckpt` contains its `description`.
        out: The file: `.ckpt` for a Lightning checkpoint without an optimiser, which vidpool's
            commands take; `.pth`, `.pt` or `.safetensors` for the state dict of the network.
        overwrite: Replace an existing file. Defaults to False.

    Raises:
        ConfigError: See :func:`vidpool.files.check_output`.
    """
    out = Path(out)
    check_output(out, overwrite, SUFFIXES)
    with atomic_write(out) as part:
        if out.suffix == ".ckpt":
            _save_lightning(classifier, part)
        elif out.suffix == ".safetensors":
            state = classifier.model.state_dict()
            save_file({key: value.contiguous() for key, value in state.items()}, part)
        else:
            torch.save(classifier.model.state_dict(), part)


def _save_lightning(classifier: VideoClassifier, path: Path) -> None:
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = logger.level
    logger.setLevel(logging.WARNING)  # the messages about processors are irrelevant here
    try:
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.strategy.connect(classifier)
        trainer.save_checkpoint(path, weights_only=True)
    finally:
        logger.setLevel(level)


def _own_settings(weights: Weights) -> dict[str, Any]:
    """Return the architecture in a checkpoint of vidpool; empty for other files."""
    saved = weights.content.get("hyper_parameters")
    if not isinstance(saved, dict) or "backbone" not in saved:
        return {}
    return {name: saved[name] for name in ARCHITECTURE if name in saved}


def _classes(weights: Weights, backbone: str, inflate: bool) -> int:
    with torch.device("meta"):
        model = create_model(backbone, num_classes=2)
    found = count_classes(model, weights, inflate=inflate)
    if found is None:
        raise CheckpointError(
            f"{weights.path}: has no classifier of {backbone}: give num_classes, or check "
            "that it is the checkpoint's network",
            argument="num_classes",
        )
    return found


def _usual_preprocessing(classifier: VideoClassifier, report: Report) -> tuple[dict[str, Any], str]:
    """Return fields of Preprocessing and their source, in words."""
    name, model = classifier.hparams["backbone"], classifier.model
    *frames, crop, _ = model_info(name).size
    fields: dict[str, Any] = {"stride": _STRIDES.get(name, 2), "crop": crop}
    fields["frames"] = frames[0] if frames else 1
    # the usual 256 for 224, and 128 for 112
    fields |= {"short_side": crop * 8 // 7, "clips": 10, "crops": 3, "mean": MEAN, "std": STD}
    if report.inflated:
        if isinstance(model, I3D):
            return fields | {"mean": (0.5,) * 3, "std": (0.5,) * 3}, "of torchvision's GoogLeNet"
        imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
        return fields | imagenet, "of torchvision's ImageNet networks"
    if isinstance(model, ResNet3d) and report.prefix == "module.":
        # one clip and crop of side 264; their means are in the order red, green, blue, but were
        # taken from frames in the order blue, green, red
        mean = tuple(value / 255 for value in (124, 117, 104))
        fields |= {"crop": 264, "short_side": 264, "clips": 1, "crops": 1}
        fields |= {"mean": mean[::-1] if report.swapped else mean, "std": (0.2348,) * 3}
        return fields, "of the SRTG authors"
    if isinstance(model, I3D):  # pixels in [-1, 1]; snippets of 64 frames in a row
        fields |= {"frames": 64, "stride": 1, "mean": (0.5,) * 3, "std": (0.5,) * 3}
        return fields, "of I3D's authors"
    if name.startswith("pytorchvideo/"):
        return fields | {"mean": (0.45,) * 3, "std": (0.225,) * 3}, "of PyTorchVideo"
    if name.startswith("torchvision/"):
        from torchvision.models import get_model_weights

        transforms = next(iter(get_model_weights(name.rpartition("/")[2]))).transforms()
        crop = transforms.crop_size[0]
        fields |= {"crop": crop, "short_side": max(crop, min(transforms.resize_size)), "clips": 5}
        if not frames:
            fields |= {"stride": 1, "clips": 1, "crops": 1}
            if name in _INCEPTIONS:
                return fields | {"mean": (0.5,) * 3, "std": (0.5,) * 3}, "of torchvision"
        fields |= _TORCHVISION.get(name, {})
        return fields | {"mean": transforms.mean, "std": transforms.std}, "of torchvision"
    return fields, "assumed, since the file does not tell"
