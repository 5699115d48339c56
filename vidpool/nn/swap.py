"""Exchange the pooling layers of a finished model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeAlias

from torch import nn

from vidpool.errors import ConfigError
from vidpool.nn.softpool import SoftPool1d, SoftPool2d, SoftPool3d

Where: TypeAlias = str | Sequence[str] | Callable[[str, nn.Module], bool]

_KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "soft": (SoftPool1d, SoftPool2d, SoftPool3d),
    "max": (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    "avg": (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
}
_ADAPTIVE = (
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
)


class Swap(NamedTuple):
    """One replaced layer."""

    name: str
    """Dotted name of the layer in the model."""
    old: nn.Module
    new: nn.Module


def swap_pooling(
    model: nn.Module, to: str = "soft", where: Where | None = None, **options: Any
) -> list[Swap]:
    """Replace pooling layers of a model in place, keeping output shapes and state-dict keys.

    The new layers have the old ones' geometry and training flag; hooks are not carried over. An
    instance that stands under several names is replaced by one new instance. A layer that is of
    the wanted kind already is made anew, with `options`. If anything is raised, the model is
    unchanged.

    Without `where`, every max and SoftPool layer is replaced, and every average pooling layer
    that downsamples. Average pooling with stride 1 is taken for the network's head and stays, as
    in the paper. So does a subclass with a `forward` of its own, since its arguments do not tell
    its geometry. Adaptive pooling is never replaced, and pooling that a model does by calling
    functions cannot be seen.

    Args:
        model: Any module that contains pooling layers.
        to: `"soft"`, `"max"` or `"avg"`. Average pooling is made with `count_include_pad=False`,
            since padding weighs nothing in the other two.
        where: Selects what to replace instead: a shell-style pattern for dotted names
            (`"layer1.*"`; `*` crosses dots), several patterns of which one has to match, or a
            function of name and layer.
        **options: Further arguments for every new layer, such as `gradient="paper"`.

    Returns:
        What was replaced, one entry a name, in the model's order.

    Raises:
        ConfigError: If `to` is unknown; if no layer was selected (the message lists what there
            is); if a selected layer has no equivalent: `return_indices`, `divisor_override`,
            dilation where `to` is `"avg"`, or a `forward` of its own.
        TypeError: If the new layers do not take `options`.
    """
    if to not in _KINDS:
        raise ConfigError(f"unknown pooling {to!r}: choose from {', '.join(_KINDS)}")
    selected = [
        (name, layer)
        for name, layer in model.named_modules(remove_duplicate=False)
        if _is_selected(name, layer, where)
    ]
    if not selected:
        raise ConfigError(_nothing_selected(model, where))
    new_layers: dict[nn.Module, nn.Module] = {}
    for name, layer in selected:
        if layer is model:
            raise ConfigError(
                f"the model is itself a pooling layer ({type(model).__name__}), which cannot be "
                "replaced inside itself: assign a new layer where the model is used"
            )
        if layer not in new_layers:
            new_layers[layer] = _equivalent(name, layer, to, options)
    for name, layer in selected:
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, new_layers[layer])
    return [Swap(name, layer, new_layers[layer]) for name, layer in selected]


def _pooled_dimensions(layer: nn.Module) -> int:
    """Number of dimensions that a max, average or SoftPool layer pools; 0 for other modules."""
    for classes in _KINDS.values():
        for ndim, cls in enumerate(classes, start=1):
            if isinstance(layer, cls):
                return ndim
    return 0


def _reason_to_stay(layer: nn.Module) -> str:
    """Say why a pooling layer stays by default; empty if it does not."""
    if isinstance(layer, _ADAPTIVE):
        return "adaptive"
    if _has_own_forward(layer):
        return "has a forward of its own"
    if isinstance(layer, _KINDS["avg"]) and _is_one(layer.stride):
        return "average with stride 1"
    return ""


def _has_own_forward(layer: nn.Module) -> bool:
    library = (cls.forward for classes in _KINDS.values() for cls in classes)
    return type(layer).forward not in library


def _is_one(size: Any) -> bool:
    return size == 1 if isinstance(size, int) else set(size) == {1}


def _is_selected(name: str, layer: nn.Module, where: Where | None) -> bool:
    if not _pooled_dimensions(layer):
        return False
    if where is None:
        return not _reason_to_stay(layer)
    if callable(where):
        return where(name, layer)
    patterns = [where] if isinstance(where, str) else where
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _equivalent(name: str, layer: nn.Module, to: str, options: dict[str, Any]) -> nn.Module:
    """Make a layer of kind `to` with the geometry and training flag of `layer`."""
    described = f"{name} ({type(layer).__name__})"
    if _has_own_forward(layer):
        raise ConfigError(f"{described} has a forward of its own: replace it by hand")
    if getattr(layer, "return_indices", False):
        raise ConfigError(f"{described} returns indices, which only max pooling has")
    if getattr(layer, "divisor_override", None) is not None:
        raise ConfigError(f"{described} has a divisor_override, which only average pooling has")
    shared = ("kernel_size", "stride", "padding", "ceil_mode")
    arguments = {argument: getattr(layer, argument) for argument in shared}
    dilation = getattr(layer, "dilation", 1)
    if to != "avg":
        arguments["dilation"] = dilation
    elif _is_one(dilation):
        arguments["count_include_pad"] = False
    else:
        raise ConfigError(f"{described} has dilation {dilation}, which average pooling lacks")
    new = _KINDS[to][_pooled_dimensions(layer) - 1](**arguments | options)
    return new.train(layer.training)


def _nothing_selected(model: nn.Module, where: Where | None) -> str:
    """Error message that lists the model's pooling layers and why they stay by default."""
    layers = []
    for name, layer in model.named_modules():
        if _pooled_dimensions(layer) or isinstance(layer, _ADAPTIVE):
            reason = _reason_to_stay(layer)
            layers.append(f"{name} ({type(layer).__name__}{': ' * bool(reason)}{reason})")
    wanted = "to replace" if where is None else f"that matches {where!r}"
    return (
        f"{type(model).__name__} has no pooling layer {wanted}; "
        f"its pooling layers are: {', '.join(layers) or 'none'}"
    )
