"""Registry of the datamodules by name; :func:`register_datamodule` documents the protocol."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple, TypeVar, overload

import pytorch_lightning as pl

from vidpool.errors import ConfigError
from vidpool.registration import Origin

DataModule = TypeVar("DataModule", bound=type[pl.LightningDataModule])

_OWN = (
    "vidpool.data.datasets.hacs_kinetics",
    "vidpool.data.datasets.image_folder",
    "vidpool.data.datasets.ucf101",
    "vidpool.data.datasets.video_folder",
    "vidpool.data.shards.datamodule",
)
"""Modules that register vidpool's datamodules when they are imported."""


class _Entry(NamedTuple):
    datamodule: type[pl.LightningDataModule]
    origin: Origin


_ENTRIES: dict[str, _Entry] = {}


@overload
def register_datamodule(name: DataModule) -> DataModule: ...


@overload
def register_datamodule(name: str | None = ...) -> Callable[[DataModule], DataModule]: ...


def register_datamodule(name: Any = None) -> Any:
    """Register a datamodule by name; a decorator, with or without a name.

    A datamodule is a class that

    - derives from :class:`pytorch_lightning.LightningDataModule`, and may derive from
      :class:`vidpool.data.datamodule.VideoDataModule` or one of vidpool's datamodules,
    - has a method ``train_dataloader``; ``val_dataloader``, ``test_dataloader`` and
      ``predict_dataloader`` are optional. Batches are dicts with ``clip``, uint8 (N, C, T, H, W),
      and ``label``, int64 (N,); or tuples of the two,
    - declares ``class_names``, the names of the classes in the order of their ids, or
      ``num_classes``: as a property, a class attribute, or an annotation (``num_classes: int``) of
      an attribute that ``__init__`` sets,
    - has no abstract methods.

    Registering again from the same place, such as a notebook cell, replaces the datamodule.

    Args:
        name: Name of the datamodule. Defaults to the name of the class.

    Returns:
        The class itself.

    Raises:
        ConfigError: The class lacks something, which the message names; or the name is taken.

    Examples:
        >>> import pytorch_lightning as pl
        >>> import torch
        >>> from torch.utils.data import DataLoader
        >>> @register_datamodule("noise")
        ... class Noise(pl.LightningDataModule):
        ...     num_classes = 2
        ...
        ...     def train_dataloader(self):
        ...         clips = torch.randint(0, 256, (4, 3, 8, 32, 32), dtype=torch.uint8)
        ...         return DataLoader([(clip, n % 2) for n, clip in enumerate(clips)], batch_size=2)
        >>> datamodules()["noise"]
        <class 'vidpool.data.registry.Noise'>
    """

    def register(cls: Any, depth: int = 1) -> Any:
        check_datamodule(cls)
        key = cls.__name__ if name is None or name is cls else name
        if not isinstance(key, str) or not key.replace("-", "_").isidentifier():
            raise ConfigError(
                f"name must be letters, digits, _ and -, got {key!r}", argument="name"
            )
        origin = Origin.of(cls, depth)
        if not cls.__module__.startswith("vidpool."):
            datamodules()  # so that vidpool's own names are taken
        if key in _ENTRIES:
            _ENTRIES[key].origin.check_replaceable_by(origin, f"a datamodule named {key!r}")
        _ENTRIES[key] = _Entry(cls, origin)
        return cls

    return register(name, depth=2) if inspect.isclass(name) else register


def check_datamodule(cls: Any) -> None:
    """Check that a class meets the protocol of :func:`register_datamodule`.

    Raises:
        ConfigError: The class does not; the message names everything that is missing.
    """
    if not inspect.isclass(cls) or not issubclass(cls, pl.LightningDataModule):
        raise ConfigError(
            f"{getattr(cls, '__name__', repr(cls))} is not a datamodule: it must be derived "
            "from pytorch_lightning.LightningDataModule"
        )
    missing = []
    if cls.train_dataloader is pl.LightningDataModule.train_dataloader:
        missing.append("a method train_dataloader")
    if not any(_declares(cls, attribute) for attribute in ("class_names", "num_classes")):
        missing.append(
            "class_names or num_classes (a property, a class attribute, or an annotation such as "
            "`num_classes: int` in the class)"
        )
    abstract = sorted(getattr(cls, "__abstractmethods__", ()))
    if abstract:
        missing.append(f"the abstract {', '.join(abstract)}")
    if missing:
        raise ConfigError(f"the datamodule {cls.__name__} lacks {'; and '.join(missing)}")


def datamodules() -> dict[str, type[pl.LightningDataModule]]:
    """Return the registered datamodules by name, sorted.

    Examples:
        >>> [name for name in datamodules() if name.startswith("U")]
        ['UCF101DataModule']
    """
    for module in _OWN:
        import_module(module)
    return {name: _ENTRIES[name].datamodule for name in sorted(_ENTRIES)}


def find_datamodule(name: str) -> type[pl.LightningDataModule]:
    """Return the datamodule of a name.

    Raises:
        ConfigError: There is none; the message suggests names.
    """
    known = datamodules()
    if name not in known:
        near = get_close_matches(name, known, n=3, cutoff=0.4) or list(known)
        raise ConfigError(f"there is no datamodule named {name!r}; registered: {', '.join(near)}")
    return known[name]


def _declares(cls: type, attribute: str) -> bool:
    return hasattr(cls, attribute) or any(
        attribute in inspect.get_annotations(base) for base in cls.__mro__
    )
