"""Loading of trained networks, from checkpoints and exported files."""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidpool.data.views import Preprocessing
from vidpool.errors import CheckpointError, ConfigError
from vidpool.files import expand_path
from vidpool.models.weights import DESCRIPTION, load_checkpoint
from vidpool.train.checkpoints import check_format, restored_settings
from vidpool.train.classifier import VideoClassifier

EXTRA_FILE = f"{DESCRIPTION}.json"
"""File in a torch.export program that holds its description."""


@dataclass(frozen=True)
class Network:
    """A network to predict with, run by PyTorch or ONNX Runtime."""

    logits: Callable[[Tensor], Tensor]
    """Returns logits (N, num_classes) of normalised clips (N, C, T, H, W) on `device`; float32."""
    class_names: list[str]
    preprocessing: Preprocessing
    device: str
    features: Callable[[Tensor], Tensor] | None = None
    """Returns features (N, F) before the classifier, float32; None for exported programs."""


def load_network(
    path: str | os.PathLike[str], device: str = "auto", network: nn.Module | None = None
) -> Network:
    """Load a checkpoint, or a file of `vidpool export`.

    Args:
        path: `.onnx` and `.pt2` (torch.export) files run without vidpool's networks; other files
            are read by :func:`load_classifier`. Like any program, a `.pt2` should come from someone
            you trust.
        device: A PyTorch device; `auto` is a GPU if one can be used. Defaults to `auto`.
        network: As for :func:`load_classifier`.

    Raises:
        CheckpointError: The file cannot be read, was not made by vidpool, or needs ``network``.
        ConfigError: The device cannot be used, a package is missing, or ``network`` was given for
            a file that contains its network.
    """
    path = expand_path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    if network is not None and path.suffix in (".onnx", ".pt2"):
        raise ConfigError(f"{path}: contains its network; leave out network", "network")
    if path.suffix == ".onnx":
        return _load_onnx(path, device)
    device = best_device(device)
    if path.suffix == ".pt2":
        return _load_program(path, device)
    classifier, class_names, preprocessing = load_classifier(path, device, network)
    return Network(
        lambda clip: classifier(clip).float(),
        class_names,
        preprocessing,
        device,
        lambda clip: classifier.features(clip).float(),
    )


def best_device(device: str) -> str:
    """Return a device name; ``auto`` becomes a GPU if there is one, else the CPU."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_classifier(
    path: str | os.PathLike[str], device: str = "cpu", network: nn.Module | None = None
) -> tuple[VideoClassifier, list[str], Preprocessing]:
    """Load a classifier in evaluation mode, with its class names and preprocessing.

    Args:
        path: A checkpoint of `vidpool fit` or `vidpool import`, or a `.pth` or `.safetensors` of
            `vidpool export`. A checkpoint with averaged weights gives these.
        device: A PyTorch device for the classifier, see :func:`best_device`. Defaults to the CPU.
        network: The network of a checkpoint whose classifier was made with a module instead of a
            name: an instance of its class, which gets the checkpoint's weights.

    Raises:
        CheckpointError: The file cannot be read, was not made by vidpool, or needs ``network``.
        ConfigError: The device cannot be used.
    """
    classifier, class_names, preprocessing = restore_classifier(
        load_checkpoint(path), path, network
    )
    device = best_device(device)
    try:
        classifier.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device!r} cannot be used: {error}", "device") from None
    return classifier, class_names, preprocessing


def restore_classifier(
    checkpoint: dict[str, Any], path: str | os.PathLike[str], network: nn.Module | None = None
) -> tuple[VideoClassifier, list[str], Preprocessing]:
    """Return what :func:`load_classifier` returns, from the content of a checkpoint.

    Args:
        checkpoint: The content, from :func:`~vidpool.models.weights.load_checkpoint`.
        path: The file, for messages.
        network: As for :func:`load_classifier`.

    Raises:
        CheckpointError: The checkpoint was not made by vidpool, does not fit this version, or needs
            ``network``.
    """
    description = checkpoint.get("vidpool")
    if not description or "hyper_parameters" not in checkpoint:
        hint = (
            "it was trained without one of vidpool's datamodules, which describe them; load it "
            "with VideoClassifier.load_from_checkpoint"
            if "vidpool_format" in checkpoint
            else "needed is a checkpoint that `vidpool fit` or `vidpool import` made, or a file of "
            "`vidpool export`"
        )
        raise CheckpointError(f"{path}: holds no class names or preprocessing: {hint}")
    check_format(checkpoint, path)
    settings = restored_settings(checkpoint)
    if network is not None:
        settings["backbone"] = network
    try:
        classifier = VideoClassifier(**settings)
        if "pytorch-lightning_version" in checkpoint:
            classifier.load_state_dict(checkpoint["state_dict"])
        else:  # of `vidpool export`: the weights of the network alone
            classifier.model.load_state_dict(checkpoint["state_dict"])
        preprocessing = Preprocessing.from_dict(description["preprocessing"])
        class_names = description["class_names"]
        classifier.description = {
            "class_names": list(class_names),
            "preprocessing": preprocessing.to_dict(),
        }
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}", error.argument) from error
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        if network is not None:
            raise CheckpointError(
                f"{path}: the given network, {type(network).__name__}, does not fit ({error})",
                "network",
            ) from error
        raise CheckpointError(f"{path}: does not fit this version of vidpool ({error})") from error
    return classifier.eval(), class_names, preprocessing


def need_onnx() -> None:
    """Check that ONNX files can be written and run.

    Raises:
        ConfigError: A package is missing; the message says how to install it.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"ONNX needs a package that cannot be imported here ({error}): "
            "pip install 'vidpool[export]'"
        ) from error


def _load_program(path: Path, device: str) -> Network:
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: is no torch.export program, or is cut short")
    extra = {EXTRA_FILE: ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with path.open("rb") as file:  # a path must be UTF-8
                program = torch.export.load(file, extra_files=extra)
    except Exception as error:  # what reading raises depends on the file's bytes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: cannot be read as a torch.export program ({reason})") from (
            error
        )
    class_names, preprocessing = _described(path, extra[EXTRA_FILE])
    if device != "cpu":
        from torch.export.passes import move_to_device_pass

        try:
            torch.empty(0, device=device)
            program = move_to_device_pass(program, device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"device {device!r} cannot be used: {error}", "device") from None
    return Network(program.module(), class_names, preprocessing, device)


def _load_onnx(path: Path, device: str) -> Network:
    need_onnx()
    import onnxruntime

    available = onnxruntime.get_available_providers()
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.partition(":")[0] == "cuda" or device == "auto":
        number = int(device.partition(":")[2] or 0)
        if "CUDAExecutionProvider" in available:
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": number}))
        elif device != "auto":
            raise ConfigError(
                f"device {device!r} cannot be used: this onnxruntime has {', '.join(available)}; "
                "install onnxruntime-gpu in its place",
                "device",
            )
    elif device != "cpu":
        raise ConfigError(
            f"device {device!r} cannot be used: ONNX files run on cpu or cuda", "device"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=providers)
    except Exception as error:  # its errors have no common base
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: cannot be read as an ONNX file ({reason})") from error
    metadata = session.get_modelmeta().custom_metadata_map
    class_names, preprocessing = _described(path, metadata.get(DESCRIPTION, ""))
    (name,) = (given.name for given in session.get_inputs())

    def logits(clip: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: clip.numpy()})[0])

    return Network(logits, class_names, preprocessing, "cpu")  # onnxruntime copies to its device


def _described(path: Path, text: str | bytes) -> tuple[list[str], Preprocessing]:
    """Return class names and preprocessing from a description in JSON."""
    if not text:
        raise CheckpointError(
            f"{path}: holds no class names or preprocessing; `vidpool export` puts them in"
        )
    try:
        description: dict[str, Any] = json.loads(text)[DESCRIPTION]
        preprocessing = Preprocessing.from_dict(description["preprocessing"])
        return description["class_names"], preprocessing
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: does not fit this version of vidpool ({error})") from error
