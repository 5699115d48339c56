"""Replace the pooling layers of an existing model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import nn

from vidpool.errors import ConfigError
from vidpool.nn.channels import find_channels
from vidpool.nn.functional import Call
from vidpool.nn.registry import (
    ADAPTIVE_LAYERS,
    PoolingFactory,
    PoolingMethod,
    adaptive_dimensions,
    find_method,
    overrides_forward,
    pooled_dimensions,
)
from vidpool.nn.selection import (
    Where,
    find_candidates,
    has_geometry,
    is_selected,
    nothing_selected_message,
)
from vidpool.ops.geometry import make_window

Channels: TypeAlias = int | Mapping[str, int]
Geometry: TypeAlias = Literal["keep", "authors"]


class Swap(NamedTuple):
    """A replaced layer."""

    name: str
    """Dotted name of the layer in the model."""
    old: nn.Module
    new: nn.Module


def swap_pooling(
    model: nn.Module,
    to: str | Callable[..., nn.Module] = "soft",
    where: Where | None = None,
    *,
    geometry: Geometry = "keep",
    functional: bool = False,
    adaptive: bool = False,
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

    By default, every layer of a registered class (:func:`register_pooling`) is replaced, with two
    exceptions. Average pooling with stride 1 and no padding is considered the network's head
    and stays, as in the paper. A subclass that overrides `forward` stays too, since its arguments
    may not describe its geometry.

    Adaptive pooling layers stay unless `adaptive` is set. Most are heads, whose trained classifier
    expects the averages of its features; others belong to squeeze-and-excitation blocks, which
    `where` can exclude. Average pooling with stride 1 stays in either case. Averages that a network
    computes by `Tensor.mean` are no layers.

    With `functional`, calls of PyTorch's max and average pooling functions count as layers. They
    are found by tracing the `forward` of each module that calls one, and become submodules named
    after the function: `Mixed_5b.avg_pool2d`, then `avg_pool2d_1`. The module stays the same object
    (see `vidpool.nn.functional.Block`); plain attributes that its `forward` reads keep their
    current values from then on. Calls whose window depends on the input stay.

    Args:
        model: Any module that contains pooling layers.
        to: Short name of the pooling method: `"soft"`, `"max"`, `"avg"`, `"sum"`, `"power"`,
            `"lp"`, `"gated"`, `"dpp"`, `"lip"`, `"stochastic"`, `"s3"`, `"ordinal"`, `"lift"` or
            the name of a registered one. Alternatively, a class or a function that takes
            `kernel_size`, `stride`, `padding`, `dilation` and `ceil_mode` and returns a layer;
            :func:`register_pooling` documents this protocol. Average pooling gets
            `count_include_pad=False`, since padding has no weight in the other methods.
        where: Layers to replace instead of the default: a shell-style pattern for dotted names
            (`"layer1.*"`; `*` crosses dots), several patterns of which one has to match, or a
            function of name and layer. A pattern that matches a module selects the pooling layers
            inside it.
        geometry: `"keep"`, or `"authors"` for weights published by the paper's authors, who
            replaced max pooling with kernel size 3, stride 2 and padding 1 by pooling with kernel
            size 2, stride 2 and no padding. The output is one cell shorter on axes of odd length.
        functional: Whether to replace calls of pooling functions.
        adaptive: Whether to replace `nn.AdaptiveAvgPool1d` to `nn.AdaptiveMaxPool3d` and
            :class:`vidpool.nn.AdaptiveSoftPool1d` to `AdaptiveSoftPool3d` as well, where `to` is
            `"soft"`, `"max"` or `"avg"`. With `functional`, calls of adaptive pooling functions
            are replaced, too.
        channels: Number of channels that the layers pool, or a number for each layer name, for
            methods that learn parameters for each channel; other methods ignore it.
        example: A small input, or its shape such as `(1, 3, 8, 32, 32)`, for one forward pass that
            finds the number of channels. The model is left unchanged by it.
        **options: Further arguments for every new layer, such as `gradient="paper"`.

    Returns:
        The replaced layers, one entry per name, in the model's order.

    Raises:
        ConfigError: If `to` is unknown, does not meet the protocol or has no layer for the number
            of dimensions of a selected layer; if no layer was selected (the message lists the
            pooling layers); if a selected layer has no equivalent: adaptive pooling where `to` has
            no adaptive layers, `return_indices`,
            `divisor_override`, an overridden `forward`, or a geometry that the new layer does not
            support, such as dilation where `to` is `"avg"`; if the number of channels is needed
            and neither given nor found; if no layer has the geometry that `"authors"` changes; if
            a module that calls a pooling function cannot be traced and `where` does not exclude
            it; if the model is a TorchScript module or contains one that pools.
        TypeError: If the new layers do not accept `options`.

    Examples:
        >>> import torch, torchvision
        >>> from vidpool.nn import swap_pooling
        >>> model = torchvision.models.resnet18()
        >>> [(swap.name, type(swap.new).__name__) for swap in swap_pooling(model, to="soft")]
        [('maxpool', 'SoftPool2d')]

        Methods with parameters for each channel need an example input:

        >>> swap_pooling(model, to="lip", example=(1, 3, 64, 64))[0].new.channels
        64

        The head of a network that is trained from scratch:

        >>> swap_pooling(model, to="soft", where="avgpool", adaptive=True)[0].new
        AdaptiveSoftPool2d(output_size=(1, 1), gradient='exact')

        A class of your own, and a function:

        >>> class MinPool2d(torch.nn.MaxPool2d):
        ...     def forward(self, x):
        ...         return -super().forward(-x)
        >>> blocks = torch.nn.Sequential(torch.nn.MaxPool2d(2), torch.nn.AvgPool2d(2))
        >>> [swap.name for swap in swap_pooling(blocks, to=MinPool2d)]
        ['0', '1']
        >>> def strided(kernel_size, stride):
        ...     return torch.nn.LPPool2d(2, kernel_size, stride)
        >>> _ = swap_pooling(torch.nn.Sequential(torch.nn.MaxPool2d(2)), to=strided)
    """
    try:
        method = find_method(to)
    except ConfigError as error:
        raise ConfigError(str(error), "to") from error
    if geometry not in get_args(Geometry):
        raise ConfigError(
            f"unknown geometry {geometry!r}: choose from {', '.join(get_args(Geometry))}",
            argument="geometry",
        )
    _refuse_scripted(model)
    candidates, calls = find_candidates(model, where, functional, adaptive)
    selected = [entry for entry in candidates if is_selected(*entry, where, adaptive)]
    if not selected:
        raise ConfigError(nothing_selected_message(model, candidates, where, functional, adaptive))
    if any(layer is model for _, layer in selected):
        raise ConfigError(
            f"the model is itself a pooling layer ({type(model).__name__}), which cannot be "
            "replaced inside itself: assign a new layer where the model is used",
            argument="model",
        )
    heads = {
        layer: _find_adaptive(to, name, layer)
        for name, layer in selected
        if adaptive and adaptive_dimensions(layer)
    }
    windowed = [(name, layer) for name, layer in selected if layer not in heads]
    if geometry == "authors" and not any(_is_authors_stem(layer) for _, layer in windowed):
        raise ConfigError(
            "geometry 'authors' changes pooling with kernel_size 3, stride 2 and padding 1, which "
            f"none of these has: {', '.join(name for name, _ in selected)}: leave geometry at "
            "'keep'",
            argument="geometry",
        )
    factories = {layer: _find_factory(method, name, layer) for name, layer in windowed}
    with _installed([calls[layer] for _, layer in selected if layer in calls]):
        counts = _channels(model, windowed, factories, channels, example)
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        new_layers: dict[nn.Module, nn.Module] = {}
        for name, layer in selected:
            if layer not in new_layers:
                changes = {"channels": counts[layer]} if layer in counts else {}
                if geometry == "authors" and layer in factories and _is_authors_stem(layer):
                    changes |= {"kernel_size": 2, "stride": 2, "padding": 0}
                build = heads.get(layer) or factories[layer]
                new = _equivalent(name, layer, build, changes | options)
                new_layers[layer] = new.to(like.device, like.dtype)
    for name, layer in selected:
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, new_layers[layer])
    return [Swap(name, layer, new_layers[layer]) for name, layer in selected]


def _refuse_scripted(model: nn.Module) -> None:
    """Raise an error if TorchScript modules of a model contain pooling layers."""
    for name, module in model.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):
            continue
        layers = [getattr(layer, "original_name", "") for layer in module.modules()]
        if module is model or any("Pool" in layer for layer in layers):
            raise ConfigError(
                f"{name or 'the model'} is a TorchScript module, whose layers cannot be replaced: "
                "swap the pooling of the network before torch.jit.script or torch.jit.trace",
                argument="model",
            )


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


def _find_factory(method: PoolingMethod, name: str, layer: nn.Module) -> PoolingFactory:
    """Return what makes the layers that replace a layer."""
    try:
        return method.factory(pooled_dimensions(layer))
    except ConfigError as error:
        raise ConfigError(f"{name} ({type(layer).__name__}): {error}", "to") from error


def _find_adaptive(
    to: str | Callable[..., nn.Module], name: str, layer: nn.Module
) -> type[nn.Module]:
    """Return the class of the layer that replaces an adaptive layer."""
    if isinstance(to, str) and to in ADAPTIVE_LAYERS:
        return ADAPTIVE_LAYERS[to][adaptive_dimensions(layer)]
    pooling = repr(to) if isinstance(to, str) else PoolingFactory(to).name
    raise ConfigError(
        f"{name} ({type(layer).__name__}): pooling {pooling} has no adaptive layers, only "
        f"{', '.join(map(repr, ADAPTIVE_LAYERS))} have: choose one of these for `to`, or leave "
        "the layer out with `where` or adaptive=False",
        argument="adaptive",
    )


def _geometry(layer: nn.Module) -> dict[str, Any]:
    """Return the arguments that determine the windows of a layer."""
    if adaptive_dimensions(layer):
        size = layer.output_size
        # PyTorch's layers take None only for each dimension
        return {"output_size": (None,) * adaptive_dimensions(layer) if size is None else size}
    sizes = {"padding": 0, "ceil_mode": False, "dilation": 1}
    geometry = {name: getattr(layer, name, default) for name, default in sizes.items()}
    stride = layer.kernel_size if layer.stride is None else layer.stride
    return {"kernel_size": layer.kernel_size, "stride": stride, **geometry}


def _is_authors_stem(layer: nn.Module) -> bool:
    """Return whether a layer has kernel size 3, stride 2 and padding 1 on every axis."""
    ndim = pooled_dimensions(layer)
    window = make_window(ndim, **_geometry(layer))
    return window == make_window(ndim, 3, 2, 1, 1, False)


def _channels(
    model: nn.Module,
    selected: list[tuple[str, nn.Module]],
    factories: Mapping[nn.Module, PoolingFactory],
    channels: Channels | None,
    example: Any,
) -> dict[nn.Module, int]:
    """Return the channels of selected layers whose replacements take them, as far as known."""
    layers = dict(selected)
    selected = [entry for entry in selected if factories[entry[1]].channels != "none"]
    if not selected:
        return {}
    if isinstance(channels, int):
        return {layer: channels for _, layer in selected}
    known: dict[nn.Module, int] = {}
    for _, layer in selected:
        count = getattr(layer, "channels", None)
        if isinstance(count, int):
            known[layer] = count
    for name, count in (channels or {}).items():
        if name not in layers:
            raise ConfigError(
                f"channels names {name!r}, which is not replaced; what is: {', '.join(layers)}",
                argument="channels",
            )
        known[layers[name]] = count
    unknown = {name: layer for name, layer in selected if layer not in known}
    if unknown and example is not None:
        return known | find_channels(model, unknown, example)
    needed = [name for name, layer in unknown.items() if factories[layer].channels == "needed"]
    if needed:
        raise ConfigError(
            f"{factories[layers[needed[0]]].name} learns something for every channel, and nothing "
            f"tells how many channels {', '.join(needed)} pools: give a small input to find out, "
            f"such as example=(1, 3, 8, 32, 32), or channels={{{needed[0]!r}: 64}}",
            argument="example",
        )
    return known


def _equivalent(
    name: str, layer: nn.Module, build: Callable[..., nn.Module], options: dict[str, Any]
) -> nn.Module:
    """Return a new layer with the geometry and training flag of `layer`."""
    described = f"{name} ({type(layer).__name__})"
    if overrides_forward(layer):
        raise ConfigError(f"{described} has a forward of its own: replace it by hand")
    if not has_geometry(layer):
        raise ConfigError(f"{described} has no attributes kernel_size and stride: name them so")
    if getattr(layer, "return_indices", False):
        raise ConfigError(f"{described} returns indices, which only max pooling has")
    if getattr(layer, "divisor_override", None) is not None:
        raise ConfigError(f"{described} has a divisor_override, which only average pooling has")
    try:
        new = build(**_geometry(layer) | options)
    except (ConfigError, RuntimeError) as error:  # the geometry is not supported
        argument = getattr(error, "argument", None)
        argument = argument if argument in options else "to"
        raise ConfigError(f"{described}: {error}", argument) from error
    return new.train(layer.training)
