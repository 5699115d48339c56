"""Models by name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from difflib import get_close_matches
from fnmatch import filter as matching
from typing import Any, TypeVar, get_type_hints

from torch import nn

from vidpool.errors import ConfigError

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])

_BUILDERS: dict[str, Callable[..., nn.Module]] = {}


def register_model(builder: Builder) -> Builder:
    """Make a function's model available under the function's name; for use as a decorator.

    The function takes keyword-only arguments, `num_classes` among them. `**options` stands for the
    keyword-only arguments of the class in its return annotation.

    Raises:
        ValueError: If the name is taken.
    """
    name = builder.__name__
    if name in _BUILDERS:
        raise ValueError(f"a model named {name} is registered already")
    _BUILDERS[name] = builder
    return builder


def create_model(name: str, num_classes: int = 400, **options: Any) -> nn.Module:
    """Build a registered model with fresh weights.

    Args:
        name: One of :func:`list_models`.
        num_classes: Number of logits.
        **options: The model's further arguments, such as `width` or `dropout`.

    Returns:
        Module from (N, C, T, H, W) clips to (N, num_classes) logits.

    Raises:
        ConfigError: If the name or an option is unknown, or a value cannot work.
    """
    if name not in _BUILDERS:
        near = ", ".join(get_close_matches(name, _BUILDERS, cutoff=0.5))
        raise ConfigError(
            f"unknown model {name!r}{f': did you mean one of {near}?' if near else ';'} "
            "vidpool.models.list_models() lists all"
        )
    builder = _BUILDERS[name]
    known = _keywords(builder)
    unknown = sorted(options.keys() - known)
    if unknown:
        raise ConfigError(f"{name} does not take {', '.join(unknown)}; it takes {', '.join(known)}")
    return builder(num_classes=num_classes, **options)


def list_models(pattern: str = "*") -> list[str]:
    """Names of the registered models, r3d_18 before r3d_101.

    Args:
        pattern: Shell-style pattern that the names have to match.
    """
    return sorted(matching(_BUILDERS, pattern), key=_natural_order)


def _natural_order(name: str) -> list[tuple[int, str]]:
    """Sort key that compares runs of digits as numbers."""
    return [(int(part or 0) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", name)]


def _keywords(builder: Callable[..., nn.Module]) -> list[str]:
    """Names of the arguments that a builder takes, or passes on to the class it returns."""
    signatures = [inspect.signature(builder)]
    if any(p.kind is p.VAR_KEYWORD for p in signatures[0].parameters.values()):
        signatures.append(inspect.signature(get_type_hints(builder)["return"]))
    parameters = [p for signature in signatures for p in signature.parameters.values()]
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
