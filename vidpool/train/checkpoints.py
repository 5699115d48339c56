"""The content of the classifier's checkpoints: plain values, verified, with a format number.

Reading a checkpoint runs no code and imports nothing. Classes and functions among the
hyper-parameters are stored as a text such as ``class:torch.optim.adamw.AdamW``, which only messages
and comparisons use.
"""

import inspect
import io
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import is_dataclass
from enum import Enum
from functools import partial
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidpool.errors import CheckpointError

CLASS = "class:"
"""Prefix of the name of a class or function that stands for an object in a checkpoint."""
FORMAT = 1
"""Number of the format that this version writes."""
FORMAT_ENTRY = "vidpool_format"
"""Entry of a checkpoint with the number of its format."""


def class_name(value: object) -> str:
    """Return the text that stands for an object, class or function in hyper-parameters."""
    while isinstance(value, partial):
        value = value.func
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{CLASS}{named.__module__}.{named.__qualname__}"


def without_import(value: Any) -> Any:
    """Return a value, with the text that stands for a class if it is a dict with an import path."""
    return f"{CLASS}{value.get('class_path')}" if isinstance(value, Mapping) else value


def plain(value: Any, name_objects: bool = False) -> Any:
    """Return a value with numpy's scalars and arrays, paths, enums and namespaces as plain values.

    Args:
        value: The value; containers are copied.
        name_objects: Replace classes, functions and modules by their names.
    """

    def inner(child: Any) -> Any:
        return plain(child, name_objects)

    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Enum):
        return inner(value.value)
    if isinstance(value, Namespace) or (is_dataclass(value) and not isinstance(value, type)):
        value = vars(value)
    if isinstance(value, Mapping):
        items = [(inner(key), inner(child)) for key, child in value.items()]
        return OrderedDict(items) if isinstance(value, OrderedDict) else dict(items)
    if type(value) in (list, set):
        return type(value)(map(inner, value))
    if isinstance(value, tuple) and not isinstance(value, torch.Size):
        return tuple(map(inner, value))
    if name_objects and (callable(value) or isinstance(value, nn.Module)):
        return class_name(value)
    return value


def finish(checkpoint: dict[str, Any], verify: bool) -> None:
    """Make the content of a new checkpoint plain, and add the number of its format.

    Args:
        checkpoint: The content, changed in place.
        verify: Check that the content can be read again.

    Raises:
        CheckpointError: A value could not be read again; the message names it.
    """
    checkpoint[FORMAT_ENTRY] = FORMAT
    settings = checkpoint.get("hyper_parameters", {})
    checkpoint["hyper_parameters"] = {
        name: plain(value, name_objects=True)
        for name, value in settings.items()
        if not name.startswith("_")  # of Lightning: it would import what these name
    }
    for name, value in checkpoint.items():
        if name not in ("state_dict", "optimizer_states", "hyper_parameters"):
            checkpoint[name] = plain(value, name_objects=name == "datamodule_hyper_parameters")
    for state in checkpoint.get("optimizer_states", ()):
        if "param_groups" in state:
            state["param_groups"] = plain(state["param_groups"])
    if verify:
        found = _unreadable(checkpoint, "")
        if found is not None:
            raise CheckpointError(
                f"the checkpoint could not be read again: {found}, which is more than tensors and "
                "plain values. Callbacks and modules must save numbers, texts, lists, dicts and "
                "tensors"
            )


def check_format(checkpoint: Mapping[str, Any], path: object = "the checkpoint") -> None:
    """Refuse a checkpoint of a newer version of vidpool.

    Raises:
        CheckpointError: The number of the checkpoint's format is unknown.
    """
    number = checkpoint.get(FORMAT_ENTRY, 0)
    if not isinstance(number, int) or number > FORMAT:
        raise CheckpointError(
            f"{path}: has format {number!r}, of a newer version of vidpool; this version reads "
            f"formats up to {FORMAT}. Install the newer version"
        )


def restored_settings(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters of a checkpoint as arguments of the classifier.

    Callables that Lightning's command line stored by their import path become texts.
    """
    saved = checkpoint.get("hyper_parameters", {})
    settings = {name: value for name, value in saved.items() if not name.startswith("_")}
    for name in ("backbone", "optimizer", "lr_scheduler"):
        settings[name] = without_import(settings.get(name))
    return {name: value for name, value in settings.items() if name in saved or value is not None}


def accepted_settings(cls: type, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters of a checkpoint that the constructor of a class takes."""
    settings = restored_settings(checkpoint)
    parameters = inspect.signature(cls).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return settings
    return {name: value for name, value in settings.items() if name in parameters}


def _unreadable(value: Any, place: str) -> str | None:
    """Return where a value is that PyTorch does not read back, with its class; None if it does."""
    try:
        buffer = io.BytesIO()
        torch.save(_without_data(value), buffer)
        buffer.seek(0)
        torch.load(buffer, weights_only=True)
    except Exception:  # pickling may raise anything
        children: list[tuple[Any, Any]] = []
        if isinstance(value, Mapping):
            children = [(repr(key), child) for key, child in value.items()]
        elif isinstance(value, (list, tuple)):
            children = list(enumerate(value))
        for key, child in children:
            found = _unreadable(child, f"{place}[{key}]")
            if found is not None:
                return found
        return f"{place or 'it'} is of {type(value).__module__}.{type(value).__qualname__}"
    return None


def _without_data(value: Any) -> Any:
    """Return a value with empty tensors, which are as readable as those with data."""
    if isinstance(value, Tensor):
        return torch.empty(0)
    if type(value) in (dict, OrderedDict):
        return type(value)((key, _without_data(child)) for key, child in value.items())
    if type(value) in (list, tuple):
        return type(value)(map(_without_data, value))
    return value
