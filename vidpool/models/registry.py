"""Registry of the models: facts about each, and building one by name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import filter as matching
from numbers import Integral, Real
from typing import Any, Literal, TypeVar, overload

from torch import nn

from vidpool.errors import ConfigError

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])
Modality = Literal["video", "image"]

_AXES = {"video": ("T", "H", "W"), "image": ("H", "W")}
_NOMINAL_SIZES = {"video": (16, 224, 224), "image": (224, 224)}
_EXPECTED: dict[Any, tuple[type, str]] = {
    bool: (bool, "true or false"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
}
"""Accepted class and its description by the annotation of an option; others are not checked."""


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
        return tuple(_option_types(_MODELS[self.name].build))

    @property
    def sizes(self) -> str:
        """Description of the accepted input sizes."""
        if self.fixed:
            return f"{size_text(self.size)} only"
        if set(self.smallest) == {1}:
            return "any"
        return f"{size_text(self.smallest)} or larger"

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
                f"not {size_text(size)}"
            )
        too_small = any(given < least for given, least in zip(size, self.smallest, strict=True))
        if too_small or (self.fixed and tuple(size) != self.size):
            raise ConfigError(
                f"{self.name} does not take {'x'.join(axes)} = {size_text(size)}: {self.sizes}"
            )


@dataclass(frozen=True)
class _Model:
    info: ModelInfo
    build: Callable[..., nn.Module]


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
    """Register a function that builds a model; a decorator, with or without arguments.

    The function takes keyword-only arguments, including `num_classes`. `**options` stands for the
    keyword-only arguments of the class in its return annotation. :func:`create_model` checks the
    types of options annotated as bool, int or float; the function checks everything else itself.

    The network that it builds may have two attributes, both tuples of dotted layer names. `heads`
    are the layers that compute logits: they are re-initialized when loaded weights were trained on
    a different number of classes. `input_convolutions` are the convolutions that take the clip, if
    these are not just the first one.

    Args:
        builder: Function that builds the model.
        name: Name of the model; defaults to the function's name. A prefix such as
            `"torchvision/"` names the package that implements the network.
        modality: Input of the model, `"video"` or `"image"`.
        size: The (T, H, W) or (H, W) that the model was designed for; defaults to 16x224x224 or
            224x224.
        smallest: Smallest size that the model accepts; defaults to 1 on each axis.
        fixed: Whether the model accepts `size` only.
        source: Package whose implementation is used.

    Raises:
        ValueError: If the name is already registered.
    """

    def register(builder: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        model = name or builder.__name__
        if model in _MODELS:
            raise ValueError(f"a model named {model} is registered already")
        nominal = size or _NOMINAL_SIZES[modality]
        minimum = nominal if fixed else smallest or (1,) * len(nominal)
        info = ModelInfo(model, modality, nominal, minimum, fixed, source)
        _MODELS[model] = _Model(info, builder)
        return builder

    return register if builder is None else register(builder)


def create_model(name: str, num_classes: int = 400, **options: Any) -> nn.Module:
    """Build a registered model with newly initialized weights.

    Args:
        name: One of :func:`list_models`.
        num_classes: Number of logits.
        **options: Further options of the model, such as `width` or `dropout`; see
            :attr:`ModelInfo.options`.

    Returns:
        Module from (N, C, T, H, W) clips, or (N, C, H, W) pictures if its modality is `"image"`,
        to (N, num_classes) logits.

    Raises:
        ConfigError: If the name or an option is unknown, a value is out of range or of the wrong
            type, or the package that implements the model is not installed.
    """
    model_info(name)  # raises if the name is unknown
    build = _MODELS[name].build
    known = _option_types(build)
    unknown = sorted(options.keys() - known.keys())
    if unknown:
        raise ConfigError(f"{name} does not take {', '.join(unknown)}; it takes {', '.join(known)}")
    options["num_classes"] = num_classes
    for option, value in options.items():
        cls, expected = _EXPECTED.get(known.get(option), (object, ""))
        # True is an Integral, but not a number of classes
        if not isinstance(value, cls) or (isinstance(value, bool) and cls in (Integral, Real)):
            raise ConfigError(f"{name}: {option} must be {expected}, but is {value!r}")
    return build(**options)


def model_info(name: str) -> ModelInfo:
    """Return the facts about a registered model without building it.

    Raises:
        ConfigError: If the name is unknown.
    """
    if name not in _MODELS:
        near = ", ".join(_near_names(name))
        raise ConfigError(
            f"unknown model {name!r}{f': did you mean one of {near}?' if near else ';'} "
            "vidpool.models.list_models() lists all"
        )
    return _MODELS[name].info


def list_models(pattern: str = "*") -> list[str]:
    """List the names of the registered models in natural order, those with a prefix last.

    Models of packages that are not installed are listed too.

    Args:
        pattern: Shell-style pattern that the names must match, such as `"r3d_*"` or
            `"torchvision/*"`; `*` crosses the slash.
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
                f"no model matches {pattern!r}{f'; near names are {near}' if near else ''}"
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


def _option_types(builder: Callable[..., nn.Module]) -> dict[str, Any]:
    """Return the options of a builder, or of the class that it returns, with their annotations."""
    signatures = [inspect.signature(builder, eval_str=True)]
    if any(p.kind is p.VAR_KEYWORD for p in signatures[0].parameters.values()):
        signatures.append(inspect.signature(signatures[0].return_annotation, eval_str=True))
    parameters = [p for signature in signatures for p in signature.parameters.values()]
    return {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}
