"""Models by name, and what a user needs to know of them before building one."""

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
Kind = Literal["video", "image"]

_AXES = {"video": ("T", "H", "W"), "image": ("H", "W")}
_NOMINAL = {"video": (16, 224, 224), "image": (224, 224)}
_EXPECTED: dict[Any, tuple[type, str]] = {
    bool: (bool, "true or false"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
}
"""What options of a type have to be an instance of, and in words; others are not checked."""


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a registered model."""

    name: str
    kind: Kind
    """`"video"` for (N, C, T, H, W) clips, `"image"` for (N, C, H, W) pictures."""
    size: tuple[int, ...]
    """(T, H, W) of the clips, or (H, W) of the pictures, that it was designed for."""
    smallest: tuple[int, ...]
    """The smallest size that it takes."""
    fixed: bool
    """Whether it takes `size` only; else it takes any size from `smallest` on."""
    source: str
    """Whose implementation it is."""

    @property
    def options(self) -> tuple[str, ...]:
        """What :func:`create_model` takes for it."""
        return tuple(_keywords(_MODELS[self.name].build))

    @property
    def sizes(self) -> str:
        """The sizes that it takes, in words."""
        if self.fixed:
            return f"{size_text(self.size)} only"
        if set(self.smallest) == {1}:
            return "any"
        return f"{size_text(self.smallest)} or larger"

    def check_size(self, size: Sequence[int]) -> None:
        """Refuse clips or pictures that the model cannot take.

        Args:
            size: (T, H, W), or (H, W) where the model is of kind `"image"`.

        Raises:
            ConfigError: If it takes other sizes only; the message says which.
        """
        axes = _AXES[self.kind]
        if len(size) != len(axes):
            raise ConfigError(
                f"{self.name} takes {self.kind}s of size {'x'.join(axes)}, not {size_text(size)}"
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
    kind: Kind = ...,
    size: tuple[int, ...] | None = ...,
    smallest: tuple[int, ...] | None = ...,
    fixed: bool = ...,
    source: str = ...,
) -> Callable[[Builder], Builder]: ...


def register_model(
    builder: Callable[..., nn.Module] | None = None,
    *,
    name: str | None = None,
    kind: Kind = "video",
    size: tuple[int, ...] | None = None,
    smallest: tuple[int, ...] | None = None,
    fixed: bool = False,
    source: str = "vidpool",
) -> Any:
    """Make a function's model available by name; a decorator, with arguments or without.

    The function takes keyword-only arguments, `num_classes` among them. `**options` stands for the
    keyword-only arguments of the class in its return annotation. :func:`create_model` checks the
    types of those annotated as bool, int or float; what else a value must be, the function says
    itself. What it builds may have `heads`, a
    tuple with the dotted names of its layers that make logits: those stay fresh where weights are
    loaded that were trained on other classes.

    Args:
        builder: The function.
        name: Name of the model, by default the function's. A prefix like `"torchvision/"` says
            whose network it is.
        kind: What it takes, `"video"` or `"image"`.
        size: The (T, H, W) or (H, W) that it was designed for; 16x224x224 and 224x224 by default.
        smallest: The smallest size that it takes, by default 1 on each axis.
        fixed: Whether it takes `size` only.
        source: Whose implementation it is.

    Raises:
        ValueError: If the name is taken.
    """

    def register(builder: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        called = name or builder.__name__
        if called in _MODELS:
            raise ValueError(f"a model named {called} is registered already")
        nominal = size or _NOMINAL[kind]
        least = nominal if fixed else smallest or (1,) * len(nominal)
        _MODELS[called] = _Model(ModelInfo(called, kind, nominal, least, fixed, source), builder)
        return builder

    return register if builder is None else register(builder)


def create_model(name: str, num_classes: int = 400, **options: Any) -> nn.Module:
    """Build a registered model with fresh weights.

    Args:
        name: One of :func:`list_models`.
        num_classes: Number of logits.
        **options: The model's further arguments, such as `width` or `dropout`;
            :func:`model_info` lists them.

    Returns:
        Module from (N, C, T, H, W) clips, or (N, C, H, W) pictures where the model is of kind
        `"image"`, to (N, num_classes) logits.

    Raises:
        ConfigError: If the name or an option is unknown, a value cannot work or is of the wrong
            type, or the model is of a package that is not installed.
    """
    model_info(name)  # which raises for unknown names
    build = _MODELS[name].build
    known = _keywords(build)
    unknown = sorted(options.keys() - known.keys())
    if unknown:
        raise ConfigError(f"{name} does not take {', '.join(unknown)}; it takes {', '.join(known)}")
    options["num_classes"] = num_classes
    for option, value in options.items():
        kind, expected = _EXPECTED.get(known.get(option), (object, ""))
        # True is an Integral, but no number of classes
        if not isinstance(value, kind) or (isinstance(value, bool) and kind in (Integral, Real)):
            raise ConfigError(f"{name}: {option} must be {expected}, but is {value!r}")
    return build(**options)


def model_info(name: str) -> ModelInfo:
    """Facts about a registered model, without building it.

    Raises:
        ConfigError: If the name is unknown.
    """
    if name not in _MODELS:
        near = ", ".join(_near(name))
        raise ConfigError(
            f"unknown model {name!r}{f': did you mean one of {near}?' if near else ';'} "
            "vidpool.models.list_models() lists all"
        )
    return _MODELS[name].info


def list_models(pattern: str = "*") -> list[str]:
    """Names of the registered models, r3d_18 before r3d_101, those with a prefix last.

    Models of packages that are not installed are listed too.

    Args:
        pattern: Shell-style pattern that the names have to match, such as `"r3d_*"` or
            `"torchvision/*"`; `*` crosses the slash.
    """
    return sorted(matching(_MODELS, pattern), key=_natural_order)


def find_models(patterns: Sequence[str]) -> list[str]:
    """Names of the registered models that match one pattern or another, each once.

    Args:
        patterns: As for :func:`list_models`; without any, all models are found.

    Raises:
        ConfigError: If a pattern matches nothing.
    """
    found: dict[str, None] = {}
    for pattern in patterns or ["*"]:
        names = list_models(pattern)
        if not names:
            near = ", ".join(_near(pattern))
            raise ConfigError(
                f"no model matches {pattern!r}{f'; near names are {near}' if near else ''}"
            )
        found.update(dict.fromkeys(names))
    return list(found)


def size_text(size: Sequence[int]) -> str:
    """A size as users write it: 16x224x224."""
    return "x".join(map(str, size))


def _near(name: str) -> list[str]:
    """Up to three names that look like a wrong one, whose prefix may be missing."""
    full = {known.lower(): known for known in _MODELS}
    full |= {known.rpartition("/")[2].lower(): known for known in reversed(_MODELS)}
    wanted = name.lower()
    near = get_close_matches(wanted, full, n=6, cutoff=0.5)
    begun = [known for known in full if wanted and known.startswith(wanted.strip("*?[]"))]
    return list(dict.fromkeys(full[known] for known in [*begun, *near]))[:3]


def _natural_order(name: str) -> tuple[bool, list[tuple[int, str]]]:
    """Sort key that compares runs of digits as numbers."""
    parts = [(int(part or 0) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", name)]
    return "/" in name, parts


def _keywords(builder: Callable[..., nn.Module]) -> dict[str, Any]:
    """Types, by name, of the arguments that a builder takes or that the class it returns takes."""
    signatures = [inspect.signature(builder, eval_str=True)]
    if any(p.kind is p.VAR_KEYWORD for p in signatures[0].parameters.values()):
        signatures.append(inspect.signature(signatures[0].return_annotation, eval_str=True))
    parameters = [p for signature in signatures for p in signature.parameters.values()]
    return {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}
