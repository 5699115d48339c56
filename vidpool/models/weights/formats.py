"""Reading checkpoint files of many formats onto the CPU, without running code in them.

Supported are the SRTG authors' ``{"epoch", "state_dict", "optimizer"}``, PyTorchVideo's
``{"model_state": ...}``, Lightning checkpoints, plain state dicts such as those of torchvision and
the public I3D ports, and safetensors.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vidpool.errors import CheckpointError
from vidpool.files import expand_path, utf8_path

ENTRIES = ("state_dict", "model_state", "model_state_dict", "model")
"""Entries that may hold the weights: of Lightning and SRTG, of PyTorchVideo, of others."""
PROGRAMS = (".onnx", ".pt2")
"""Suffixes of exported programs, which are not read as checkpoints."""
DESCRIPTION = "vidpool"
"""Entry of vidpool's files that describes their content; JSON in safetensors."""


@dataclass(frozen=True)
class Weights:
    """The content of a checkpoint file."""

    path: Path
    state: dict[str, Tensor]
    """The tensors by the keys of the file."""
    content: dict[str, Any]
    """All other entries by name: epoch, optimizer, hyper-parameters."""


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a Lightning checkpoint onto the CPU, without running code that it may contain.

    Raises:
        CheckpointError: If the file is missing, truncated, not a checkpoint, or a pickle of more
            than tensors and plain values.
    """
    checkpoint = _read(expand_path(path))
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointError(f"{path}: is no Lightning checkpoint (it has no 'state_dict')")
    return checkpoint


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """Read the weights of a checkpoint of any format onto the CPU, without running code in it.

    Raises:
        CheckpointError: As in :func:`load_checkpoint`, or if the file contains no weights.
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


def _read(path: Path) -> Any:
    """Return the content of a file, with tensors on the CPU."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    if path.suffix in PROGRAMS:
        raise CheckpointError(
            f"{path}: is a program of `vidpool export`, to predict with; give the checkpoint that "
            "it was made of"
        )
    with path.open("rb") as file:
        first_bytes = file.read(9)
    if path.suffix == ".safetensors" or first_bytes[8:] == b"{":
        return _read_safetensors(path)
    try:
        with warnings.catch_warnings():
            # about pickles and archives that are refused below
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling may raise anything, depending on the file's bytes
        reason = _failure_reason(first_bytes, str(error) or type(error).__name__)
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({reason})") from error


def _read_safetensors(path: Path) -> dict[str, Any]:
    """Return tensors by name; for a file of `vidpool export`, the same entries as of its .pth."""
    try:
        with utf8_path(path) as name, safe_open(name, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            description = (file.metadata() or {}).get(DESCRIPTION)
        return state if description is None else {"state_dict": state, **json.loads(description)}
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({reason})") from error


def _failure_reason(first_bytes: bytes, error: str) -> str:
    """Return in one line why PyTorch failed to read a file."""
    code = re.search(r"GLOBAL (\S+)", error)
    if code:
        return f"its pickle wants to run {code[1]}; only tensors and plain values are read"
    if "TorchScript" in error:
        return "it is a TorchScript program; only tensors and plain values are read"
    if not first_bytes:
        return "it is empty"
    if not first_bytes.startswith((b"PK", b"\x80")):  # zip archives and pickles
        return f"it is no PyTorch file, it begins with {first_bytes[:8]!r}"
    if any(part in error for part in ("central directory", "EOF", "corrupted")):
        return "it is cut short or damaged"
    if "weights_only" in error:  # PyTorch's message suggests to switch this protection off
        return "its pickle holds more than tensors and plain values, or is damaged"
    return error.strip().splitlines()[0]
