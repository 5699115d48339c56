"""Selection of the layers of a model that `swap_pooling` replaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from torch import nn

from vidpool.nn.functional import Call, Untraceable, find_blocks, find_calls
from vidpool.nn.registry import (
    ADAPTIVE_LAYERS,
    adaptive_dimensions,
    overrides_forward,
    pooled_dimensions,
)

Where: TypeAlias = str | Sequence[str] | Callable[[str, nn.Module], bool]

_AVERAGE = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)


def find_candidates(
    model: nn.Module, where: Where | None, functional: bool, adaptive: bool
) -> tuple[list[tuple[str, nn.Module]], dict[nn.Module, Call]]:
    """List the modules of a model by name, and its pooling calls as equivalent layers.

    Returns:
        Names and modules, each module followed by the layers of its calls; and the call of each
        of these layers.
    """
    blocks = dict(find_blocks(model, adaptive)) if functional else {}
    candidates: list[tuple[str, nn.Module]] = []
    calls: dict[nn.Module, Call] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        candidates.append((name, module))
        block = blocks.get(name)
        if isinstance(block, Untraceable):
            if where is None or (not callable(where) and matches(f"{name}.call", where)):
                raise block.error()
        elif block is not None:
            for call in block.calls:
                candidates.append((f"{name}.{call.name}".removeprefix("."), call.layer))
                calls[call.layer] = call
    return candidates, calls


def skip_reason(layer: nn.Module, adaptive: bool = False) -> str:
    """Return why :func:`swap_pooling` skips a module without `where`; empty if it is replaced.

    Args:
        layer: Module of a model.
        adaptive: Whether adaptive pooling is replaced.
    """
    is_adaptive = adaptive_dimensions(layer) > 0
    if is_adaptive and not adaptive:
        return "adaptive"
    if not is_adaptive and not pooled_dimensions(layer):
        return "no pooling layer"
    if overrides_forward(layer):
        return "has a forward of its own"
    if not has_geometry(layer):
        return "has no attributes kernel_size and stride"
    # with padding it keeps the map's size: not a head, but part of an Inception block
    if isinstance(layer, _AVERAGE) and _all_equal(layer.stride, 1) and _all_equal(layer.padding, 0):
        return "average with stride 1"
    return ""


def has_geometry(layer: nn.Module) -> bool:
    """Return whether the attributes of a layer tell its windows."""
    is_adaptive = adaptive_dimensions(layer) > 0
    return is_adaptive or (hasattr(layer, "kernel_size") and hasattr(layer, "stride"))


def _all_equal(size: Any, value: int) -> bool:
    return size == value if isinstance(size, int) else set(size) == {value}


def is_selected(name: str, layer: nn.Module, where: Where | None, adaptive: bool) -> bool:
    """Return whether :func:`swap_pooling` replaces a module."""
    if not pooled_dimensions(layer) and not (adaptive and adaptive_dimensions(layer)):
        return False
    if where is None:
        return not skip_reason(layer, adaptive)
    if callable(where):
        return where(name, layer)
    return matches(name, where)


def matches(name: str, where: str | Sequence[str]) -> bool:
    """Return whether a pattern matches the name of a module or of one that contains it."""
    patterns = [where] if isinstance(where, str) else where
    parts = name.split(".")
    names = [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def nothing_selected_message(
    model: nn.Module,
    candidates: list[tuple[str, nn.Module]],
    where: Where | None,
    functional: bool,
    adaptive: bool,
) -> str:
    """Return an error message that lists the pooling layers and calls and why they are skipped."""
    layers = []
    for name, layer in candidates:
        if pooled_dimensions(layer) or adaptive_dimensions(layer):
            reason = skip_reason(layer, adaptive)
            layers.append(f"{name} ({type(layer).__name__}{': ' * bool(reason)}{reason})")
    wanted = "to replace" if where is None else f"that matches {where!r}"
    calls = {} if functional else find_calls(model, adaptive)
    hint = f"; functional=True replaces calls too: {', '.join(calls)}" if calls else ""
    heads = [name for name, layer in candidates if adaptive_dimensions(layer)]
    if heads and not adaptive:
        methods = ", ".join(map(repr, ADAPTIVE_LAYERS))
        hint += f"; adaptive=True replaces adaptive layers too, by {methods}: {', '.join(heads)}"
    return (
        f"{type(model).__name__} has no pooling layer {wanted}; "
        f"its pooling layers are: {', '.join(layers) or 'none'}{hint}"
    )
