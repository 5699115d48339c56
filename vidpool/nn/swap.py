"""Replace the pooling layers of an existing model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import nn

from vidpool.errors import ConfigError
from vidpool.nn.channels import find_channels
from vidpool.nn.functional import Call, Untraceable, find_blocks, find_calls
from vidpool.nn.registry import POOLING_METHODS, overrides_forward, pooled_dimensions
from vidpool.ops.geometry import make_window

Where: TypeAlias = str | Sequence[str] | Callable[[str, nn.Module], bool]
Channels: TypeAlias = int | Mapping[str, int]
Geometry: TypeAlias = Literal["keep", "authors"]

_ADAPTIVE = (
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
)


class Swap(NamedTuple):
    """A replaced layer."""

    name: str
    """Dotted name of the layer in the model."""
    old: nn.Module
    new: nn.Module


def swap_pooling(
    model: nn.Module,
    to: str = "soft",
    where: Where | None = None,
    *,
    geometry: Geometry = "keep",
    functional: bool = False,
    channels: Channels | None = None,
    example: Any = None,
    **options: Any,
) -> list[Swap]:
    """Replace pooling layers of a model in place; output shapes stay by default.

    The new layers have the geometry and training flag of the old layers and the device and dtype
    of the model; hooks are lost. State-dict keys stay, except for parameters of the pooling layers
    themselves. An instance with several names is replaced by one new instance. Layers that already
    use the method `to` are replaced too, with `options`. If an exception is raised, the model is
    unchanged.

    By default, every layer of a method in `vidpool.nn.registry.POOLING_METHODS` is replaced, with
    two exceptions. Average pooling with stride 1 and no padding is considered the network's head
    and stays, as in the paper. A subclass that overrides `forward` stays too, since its arguments
    may not describe its geometry. Adaptive pooling is never replaced.

    With `functional`, calls of PyTorch's max and average pooling functions count as layers. They
    are found by tracing the `forward` of each module that calls one, and become submodules named
    after the function: `Mixed_5b.avg_pool2d`, then `avg_pool2d_1`. The module stays the same object
    (see `vidpool.nn.functional.Block`); plain attributes that its `forward` reads keep their
    current values from then on. Calls whose window depends on the input stay.

    Args:
        model: Any module that contains pooling layers.
        to: Short name of the pooling method: `"soft"`, `"max"`, `"avg"`, `"sum"`, `"power"`,
            `"lp"`, `"gated"`, `"dpp"`, `"lip"`, `"stochastic"`, `"s3"`, `"ordinal"` or `"lift"`.
            Average pooling gets `count_include_pad=False`, since padding has no weight in the
            other methods.
        where: Layers to replace instead of the default: a shell-style pattern for dotted names
            (`"layer1.*"`; `*` crosses dots), several patterns of which one has to match, or a
            function of name and layer. A pattern that matches a module selects the pooling layers
            inside it.
        geometry: `"keep"`, or `"authors"` for weights published by the paper's authors, who
            replaced max pooling with kernel size 3, stride 2 and padding 1 by pooling with kernel
            size 2, stride 2 and no padding. The output is one cell shorter on axes of odd length.
        functional: Whether to replace calls of pooling functions.
        channels: Number of channels that the layers pool, or a number for each layer name, for
            methods that learn parameters for each channel; other methods ignore it.
        example: A small input, or its shape such as `(1, 3, 8, 32, 32)`, for one forward pass that
            finds the number of channels. The model is left unchanged by it.
        **options: Further arguments for every new layer, such as `gradient="paper"`.

    Returns:
        The replaced layers, one entry per name, in the model's order.

    Raises:
        ConfigError: If `to` is unknown; if no layer was selected (the message lists the pooling
            layers); if a selected layer has no equivalent: `return_indices`, `divisor_override`,
            dilation where `to` is `"avg"`, an overridden `forward`, or a geometry that the new
            layer does not support; if the number of channels is needed and neither given nor
            found; if no layer has the geometry that `"authors"` changes; if a module that calls a
            pooling function cannot be traced and `where` does not exclude it.
        TypeError: If the new layers do not accept `options`.
    """
    if to not in POOLING_METHODS:
        raise ConfigError(f"unknown pooling {to!r}: choose from {', '.join(POOLING_METHODS)}")
    if geometry not in get_args(Geometry):
        raise ConfigError(
            f"unknown geometry {geometry!r}: choose from {', '.join(get_args(Geometry))}"
        )
    candidates, calls = _candidates(model, where, functional)
    selected = [(name, layer) for name, layer in candidates if _is_selected(name, layer, where)]
    if not selected:
        raise ConfigError(_nothing_selected(model, candidates, where, functional))
    if any(layer is model for _, layer in selected):
        raise ConfigError(
            f"the model is itself a pooling layer ({type(model).__name__}), which cannot be "
            "replaced inside itself: assign a new layer where the model is used"
        )
    if geometry == "authors" and not any(_is_authors_stem(layer) for _, layer in selected):
        raise ConfigError(
            "geometry 'authors' changes pooling with kernel_size 3, stride 2 and padding 1, which "
            f"none of these has: {', '.join(name for name, _ in selected)}: leave geometry at "
            "'keep'"
        )
    with _installed([calls[layer] for _, layer in selected if layer in calls]):
        counts = _channels(model, to, selected, channels, example)
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        new_layers: dict[nn.Module, nn.Module] = {}
        for name, layer in selected:
            if layer not in new_layers:
                changes = {"channels": counts[layer]} if layer in counts else {}
                if geometry == "authors" and _is_authors_stem(layer):
                    changes |= {"kernel_size": 2, "stride": 2, "padding": 0}
                new = _equivalent(name, layer, to, changes | options)
                new_layers[layer] = new.to(like.device, like.dtype)
    for name, layer in selected:
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, new_layers[layer])
    return [Swap(name, layer, new_layers[layer]) for name, layer in selected]


def _candidates(
    model: nn.Module, where: Where | None, functional: bool
) -> tuple[list[tuple[str, nn.Module]], dict[nn.Module, Call]]:
    """List the modules of a model by name, and its pooling calls as equivalent layers.

    Returns:
        Names and modules, each module followed by the layers of its calls; and the call of each
        of these layers.
    """
    blocks = dict(find_blocks(model)) if functional else {}
    candidates: list[tuple[str, nn.Module]] = []
    calls: dict[nn.Module, Call] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        candidates.append((name, module))
        block = blocks.get(name)
        if isinstance(block, Untraceable):
            if where is None or (not callable(where) and _matches(f"{name}.call", where)):
                raise block.error()
        elif block is not None:
            for call in block.calls:
                candidates.append((f"{name}.{call.name}".removeprefix("."), call.layer))
                calls[call.layer] = call
    return candidates, calls


@contextmanager
def _installed(calls: list[Call]) -> Iterator[None]:
    """Replace calls by submodules, and undo that if an exception is raised."""
    undo_steps = [
        block.install([call for call in dict.fromkeys(calls) if call.block is block])
        for block in dict.fromkeys(call.block for call in calls)
    ]
    try:
        yield
    except BaseException:
        for undo in reversed(undo_steps):
            undo()
        raise


def _is_authors_stem(layer: nn.Module) -> bool:
    """Return whether a layer has kernel size 3, stride 2 and padding 1 on every axis."""
    ndim = pooled_dimensions(layer)
    names = ("kernel_size", "stride", "padding", "ceil_mode")
    sizes: dict[str, Any] = {name: getattr(layer, name) for name in names}
    window = make_window(ndim, dilation=getattr(layer, "dilation", 1), **sizes)
    return window == make_window(ndim, 3, 2, 1, 1, False)


def skip_reason(layer: nn.Module) -> str:
    """Return why :func:`swap_pooling` skips a module by default; empty if it is replaced."""
    if isinstance(layer, _ADAPTIVE):
        return "adaptive"
    if not pooled_dimensions(layer):
        return "no pooling layer"
    if overrides_forward(layer):
        return "has a forward of its own"
    # with padding it keeps the map's size: not a head, but part of an Inception block
    is_average = isinstance(layer, POOLING_METHODS["avg"].layers)
    if is_average and _all_equal(layer.stride, 1) and _all_equal(layer.padding, 0):
        return "average with stride 1"
    return ""


def _all_equal(size: Any, value: int) -> bool:
    return size == value if isinstance(size, int) else set(size) == {value}


def _is_selected(name: str, layer: nn.Module, where: Where | None) -> bool:
    if not pooled_dimensions(layer):
        return False
    if where is None:
        return not skip_reason(layer)
    if callable(where):
        return where(name, layer)
    return _matches(name, where)


def _matches(name: str, where: str | Sequence[str]) -> bool:
    patterns = [where] if isinstance(where, str) else where
    parts = name.split(".")
    # the name of the layer and of every module that contains it
    names = [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _channels(
    model: nn.Module,
    to: str,
    selected: list[tuple[str, nn.Module]],
    channels: Channels | None,
    example: Any,
) -> dict[nn.Module, int]:
    """Return the channels of the selected layers, as far as `to` needs them and they are known."""
    if POOLING_METHODS[to].channels == "none":
        return {}
    if isinstance(channels, int):
        return {layer: channels for _, layer in selected}
    known: dict[nn.Module, int] = {}
    for _, layer in selected:
        count = getattr(layer, "channels", None)
        if isinstance(count, int):
            known[layer] = count
    layers = dict(selected)
    for name, count in (channels or {}).items():
        if name not in layers:
            raise ConfigError(
                f"channels names {name!r}, which is not replaced; what is: {', '.join(layers)}"
            )
        known[layers[name]] = count
    unknown = {name: layer for name, layer in selected if layer not in known}
    if unknown and example is not None:
        known |= find_channels(model, unknown, example)
    elif unknown and POOLING_METHODS[to].channels == "needed":
        name = next(iter(unknown))
        raise ConfigError(
            f"{to!r} learns something for every channel, and nothing tells how many channels "
            f"{', '.join(unknown)} pools: give a small input to find out, such as "
            f"example=(1, 3, 8, 32, 32), or channels={{{name!r}: 64}}"
        )
    return known


def _equivalent(name: str, layer: nn.Module, to: str, options: dict[str, Any]) -> nn.Module:
    """Return a layer of the method `to` with the geometry and training flag of `layer`."""
    described = f"{name} ({type(layer).__name__})"
    if overrides_forward(layer):
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
    elif _all_equal(dilation, 1):
        arguments["count_include_pad"] = False
    else:
        raise ConfigError(f"{described} has dilation {dilation}, which average pooling lacks")
    make = POOLING_METHODS[to].layers[pooled_dimensions(layer) - 1]
    try:
        new = make(**arguments | options)
    except (ConfigError, RuntimeError) as error:  # the geometry is not supported
        raise ConfigError(f"{described}: {error}") from error
    return new.train(layer.training)


def _nothing_selected(
    model: nn.Module,
    candidates: list[tuple[str, nn.Module]],
    where: Where | None,
    functional: bool,
) -> str:
    """Return an error message that lists the pooling layers and calls and why they are skipped."""
    layers = []
    for name, layer in candidates:
        if pooled_dimensions(layer) or isinstance(layer, _ADAPTIVE):
            reason = skip_reason(layer)
            layers.append(f"{name} ({type(layer).__name__}{': ' * bool(reason)}{reason})")
    wanted = "to replace" if where is None else f"that matches {where!r}"
    calls = {} if functional else find_calls(model)
    hint = f"; functional=True replaces calls too: {', '.join(calls)}" if calls else ""
    return (
        f"{type(model).__name__} has no pooling layer {wanted}; "
        f"its pooling layers are: {', '.join(layers) or 'none'}{hint}"
    )
