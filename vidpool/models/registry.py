"""Registry of the models: facts about each, and building one by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import filter as matching
from typing import Any, Literal, TypeVar, overload

from torch import nn

from vidpool.errors import ConfigError
from vidpool.models.builder import ModelBuilder
from vidpool.models.heads import check_network
from vidpool.models.pooling import replace_pooling
from vidpool.registration import Origin

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])
Modality = Literal["video", "image"]

_AXES = {"video": ("T", "H", "W"), "image": ("H", "W")}
_NOMINAL_SIZES = {"video": (16, 224, 224), "image": (224, 224)}


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a registered model."""

    name: str
    modality: Modality
    """`"video"` for (N, C, T, H, W) clips, `"image"` for (N, C, H, W) pictures."""
    size: tuple[int, ...]
    """Input size that the model was designed for: (T, H, W) of clips or (H, W) of pictures."""
    smallest: tuple[int, ...]
    """Smallest input size that the model accepts."""
    fixed: bool
    """True if the model accepts `size` only, instead of any size from `smallest` on."""
    source: str
    """Package whose implementation is used."""

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that :func:`create_model` accepts for this model."""
        return tuple(_MODELS[self.name].build.options)

    @property
    def sizes(self) -> str:
        """Description of the accepted input sizes."""
        if self.fixed:
            return f"{size_text(self.size)} only"
        if set(self.smallest) == {1}:
            return "any"
        return f"{size_text(self.smallest)} or larger"

    def example_shape(self, channels: int = 3) -> tuple[int, ...]:
        """Return the shape (1, C, T, H, W) or (1, C, H, W) of a small input of the model.

        It has 8 frames and 64x64 pixels, unless the model needs more.
        """
        small = (64, 64) if self.modality == "image" else (8, 64, 64)
        return 1, channels, *(self.size if self.fixed else map(max, self.smallest, small))

    def check_size(self, size: Sequence[int]) -> None:
        """Check that the model accepts an input size.

        Args:
            size: (T, H, W), or (H, W) of a model of modality `"image"`.

        Raises:
            ConfigError: If the model does not accept the size; the message lists the sizes.
        """
        axes = _AXES[self.modality]
        if len(size) != len(axes):
            raise ConfigError(
                f"{self.name} takes {self.modality}s of size {'x'.join(axes)}, "
                f"not {size_text(size)}",
                argument="size",
            )
        too_small = any(given < least for given, least in zip(size, self.smallest, strict=True))
        if too_small or (self.fixed and tuple(size) != self.size):
            raise ConfigError(
                f"{self.name} does not take {'x'.join(axes)} = {size_text(size)}: {self.sizes}",
                argument="size",
            )


@dataclass(frozen=True)
class _Model:
    info: ModelInfo
    build: ModelBuilder
    origin: Origin


_MODELS: dict[str, _Model] = {}


@overload
def register_model(builder: Builder) -> Builder: ...


@overload
def register_model(
    *,
    name: str | None = ...,
    modality: Modality = ...,
    size: tuple[int, ...] | None = ...,
    smallest: tuple[int, ...] | None = ...,
    fixed: bool = ...,
    source: str = ...,
) -> Callable[[Builder], Builder]: ...


def register_model(
    builder: Callable[..., nn.Module] | None = None,
    *,
    name: str | None = None,
    modality: Modality = "video",
    size: tuple[int, ...] | None = None,
    smallest: tuple[int, ...] | None = None,
    fixed: bool = False,
    source: str = "vidpool",
) -> Any:
    """Register a function or class that builds a model; a decorator, with or without arguments.

    :func:`create_model`, `VideoClassifier` and the command line then know the model by its name.
    The function has to meet this protocol:

    - It takes `num_classes` as a keyword argument and returns a `torch.nn.Module` that maps
      (N, C, T, H, W) clips to (N, num_classes) logits. Models of modality `"image"` take
      (N, C, H, W) pictures.
    - Its further arguments are the options of the model. :func:`create_model` checks the types of
      those annotated as bool, int or float. `**options` stands for the keyword-only arguments of
      the class in its return annotation, or for any option if that is no class.

    The network may have these attributes:

    - `heads`: Tuple of the dotted names of the layers that compute logits. They are trained at the
      full learning rate, stay trainable if the backbone is frozen, and are re-initialized if the
      classes change. Defaults to the last `torch.nn.Linear`.
    - `forward_features(clips)`: Method that returns (N, F) features. By default, features are the
      input of the first head.
    - `input_convolutions`: Tuple of the dotted names of the convolutions that take the clip.
      Defaults to the first convolution.

    Registering again from the same module, such as a notebook cell that is run again, replaces the
    model.

    Args:
        builder: Function or class that builds the model.
        name: Name of the model; defaults to the function's name. A prefix such as
            `"torchvision/"` names the package that implements the network.
        modality: Input of the model, `"video"` or `"image"`.
        size: The (T, H, W) or (H, W) that the model was designed for; defaults to 16x224x224 or
            224x224.
        smallest: Smallest size that the model accepts; defaults to 1 on each axis.
        fixed: Whether the model accepts `size` only.
        source: Package whose implementation is used.

    Returns:
        The builder, or a decorator if it is not given.

    Raises:
        ConfigError: If the builder does not meet the protocol, as far as its signature tells;
            :func:`create_model` checks the network. If the name belongs to another module.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from vidpool.models import create_model, features_of, register_model
        >>> @register_model
        ... class TinyNet(nn.Module):
        ...     def __init__(self, num_classes: int, width: int = 8):
        ...         super().__init__()
        ...         self.body = nn.Sequential(nn.Conv3d(3, width, 3, padding=1), nn.MaxPool3d(2))
        ...         self.fc = nn.Linear(width, num_classes)
        ...
        ...     def forward(self, x):
        ...         return self.fc(self.body(x).mean((2, 3, 4)))
        >>> network = create_model("TinyNet", num_classes=4, width=16, pooling="soft")
        >>> type(network.body[1]).__name__
        'SoftPool3d'
        >>> features_of(network, torch.rand(1, 3, 8, 32, 32)).shape
        torch.Size([1, 16])
    """
    if modality not in _AXES:
        raise ConfigError(f"modality must be 'video' or 'image', but is {modality!r}", "modality")
    for argument, value in (("size", size), ("smallest", smallest)):
        if value is not None and len(value) != len(_AXES[modality]):
            axes = ", ".join(_AXES[modality])
            raise ConfigError(f"{argument} must be ({axes}), but is {value}", argument)

    def register(builder: Callable[..., nn.Module], depth: int = 1) -> Callable[..., nn.Module]:
        model = getattr(builder, "__name__", None) if name is None else name
        if not isinstance(model, str) or not model:
            raise ConfigError(f"{builder!r} has no name: give name, a string", "name")
        build = ModelBuilder(model, builder)
        origin = Origin.of(builder, depth)
        if model in _MODELS:
            _MODELS[model].origin.check_replaceable_by(origin, f"a model named {model!r}")
        nominal = size or _NOMINAL_SIZES[modality]
        minimum = nominal if fixed else smallest or (1,) * len(nominal)
        info = ModelInfo(model, modality, nominal, minimum, fixed, source)
        _MODELS[model] = _Model(info, build, origin)
        return builder

    return register if builder is None else register(builder, depth=2)


def create_model(
    name: str,
    num_classes: int = 400,
    *,
    pooling: str | Callable[..., nn.Module] | None = None,
    pooling_options: dict[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
    """Build a registered model with newly initialized weights.

    Args:
        name: One of :func:`list_models`.
        num_classes: Number of logits.
        pooling: Method of all pooling layers, such as `"soft"`; see the argument `to` of
            :func:`vidpool.nn.swap_pooling`. Defaults to None, which keeps the model's own pooling.
        pooling_options: Further arguments of `swap_pooling` and of the new layers, such as
            `{"gradient": "paper"}`.
        **options: Further options of the model, such as `width` or `dropout`; see
            :attr:`ModelInfo.options`.

    Returns:
        Module from (N, C, T, H, W) clips, or (N, C, H, W) pictures if its modality is `"image"`,
        to (N, num_classes) logits.

    Raises:
        ConfigError: If the name or an option is unknown, a value is out of range or of the wrong
            type, the package that implements the model is not installed, the model has no pooling
            to replace, or what was registered does not build such a module.

    Examples:
        >>> import torch
        >>> from vidpool.models import create_model
        >>> network = create_model("r3d_18", num_classes=101, pooling="soft", width=16)
        >>> network(torch.rand(1, 3, 8, 56, 56)).shape
        torch.Size([1, 101])
    """
    info = model_info(name)  # raises if the name is unknown
    network = _MODELS[name].build(options | {"num_classes": num_classes})
    example = info.example_shape(options.get("in_channels", 3))
    check_network(network, num_classes, name, example)
    replace_pooling(network, pooling, pooling_options, name=name, example=example)
    return network


def model_info(name: str) -> ModelInfo:
    """Return the facts about a registered model without building it.

    Raises:
        ConfigError: If the name is unknown or no string.

    Examples:
        >>> from vidpool.models import model_info
        >>> info = model_info("torchvision/inception_v3")
        >>> info.modality, info.size, info.sizes
        ('image', (299, 299), '75x75 or larger')
    """
    if not isinstance(name, str):
        raise ConfigError(
            f"name must be a string, the name of a registered model, but is of type "
            f"{type(name).__name__}",
            argument="name",
        )
    if name not in _MODELS:
        near = ", ".join(_near_names(name))
        raise ConfigError(
            f"unknown model {name!r}{f': did you mean one of {near}?' if near else ';'} "
            "vidpool.models.list_models() lists all",
            argument="name",
        )
    return _MODELS[name].info


def list_models(pattern: str = "*") -> list[str]:
    """List the names of the registered models in natural order, those with a prefix last.

    Models of packages that are not installed are listed too.

    Args:
        pattern: Shell-style pattern that the names must match, such as `"r3d_*"` or
            `"torchvision/*"`; `*` crosses the slash.

    Examples:
        >>> from vidpool.models import list_models
        >>> list_models("r3d_*")
        ['r3d_18', 'r3d_34', 'r3d_50', 'r3d_101', 'r3d_152', 'r3d_200']
    """
    return sorted(matching(_MODELS, pattern), key=_natural_order)


def find_models(patterns: Sequence[str]) -> list[str]:
    """List the names of the registered models that match at least one pattern, without duplicates.

    Args:
        patterns: See :func:`list_models`; an empty sequence finds all models.

    Raises:
        ConfigError: If a pattern matches no model.
    """
    found: dict[str, None] = {}
    for pattern in patterns or ["*"]:
        names = list_models(pattern)
        if not names:
            near = ", ".join(_near_names(pattern))
            raise ConfigError(
                f"no model matches {pattern!r}{f'; near names are {near}' if near else ''}",
                argument="patterns",
            )
        found.update(dict.fromkeys(names))
    return list(found)


def size_text(size: Sequence[int]) -> str:
    """Format a size, such as 16x224x224."""
    return "x".join(map(str, size))


def _near_names(name: str) -> list[str]:
    """Return up to three registered names similar to a wrong one, whose prefix may be missing."""
    full = {known.lower(): known for known in _MODELS}
    full |= {known.rpartition("/")[2].lower(): known for known in reversed(_MODELS)}
    wanted = name.lower()
    near = get_close_matches(wanted, full, n=6, cutoff=0.5)
    begun = [known for known in full if wanted and known.startswith(wanted.strip("*?[]"))]
    return list(dict.fromkeys(full[known] for known in [*begun, *near]))[:3]


def _natural_order(name: str) -> tuple[bool, list[tuple[int, str]]]:
    """Return a sort key that compares runs of digits as numbers."""
    parts = [(int(part or 0) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", name)]
    return "/" in name, parts
