"""Networks to predict with, of any file that vidpool writes."""

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
from torch import Tensor

from vidpool.data.views import Preprocessing
from vidpool.errors import CheckpointError, ConfigError
from vidpool.files import expand_path
from vidpool.inference.loading import best_device, load_classifier
from vidpool.models.weights import DESCRIPTION

EXTRA_FILE = f"{DESCRIPTION}.json"
"""Where a torch.export program has its description."""


@dataclass(frozen=True)
class Network:
    """A network to predict with, whatever runs it."""

    logits: Callable[[Tensor], Tensor]
    """Of normalised float32 clips (N, C, T, H, W) on `device`: (N, num_classes), float32."""
    class_names: list[str]
    preprocessing: Preprocessing
    device: str


def load_network(path: str | os.PathLike[str], device: str = "auto") -> Network:
    """Load a checkpoint, or a file of `vidpool export`.

    Args:
        path: `.onnx` and `.pt2` (torch.export) are run as they are, without vidpool's networks; all
            else is read by :func:`vidpool.inference.loading.load_classifier`. Like any program, a
            `.pt2` should come from someone you trust.
        device: A PyTorch device; `auto` is a GPU where there is one that can be used.

    Raises:
        CheckpointError: The file cannot be read or was not made by vidpool.
        ConfigError: The device cannot be used, or a package is missing.
    """
    path = expand_path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    if path.suffix == ".onnx":
        return _load_onnx(path, device)
    device = best_device(device)
    if path.suffix == ".pt2":
        return _load_program(path, device)
    classifier, class_names, preprocessing = load_classifier(path, device)
    return Network(lambda clip: classifier(clip).float(), class_names, preprocessing, device)


def need_onnx() -> None:
    """Make sure that ONNX files can be written and run.

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
            raise ConfigError(f"device {device!r} cannot be used: {error}") from None
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
                "install onnxruntime-gpu in its place"
            )
    elif device != "cpu":
        raise ConfigError(f"device {device!r} cannot be used: ONNX files run on cpu or cuda")
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
    """Class names and preprocessing of a description in JSON."""
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
