"""Registry of the pooling methods by short name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any, Literal, NamedTuple, TypeVar, overload

from torch import nn

from vidpool.errors import ConfigError
from vidpool.nn import pooling
from vidpool.nn.adaptive import AdaptiveSoftPool1d, AdaptiveSoftPool2d, AdaptiveSoftPool3d
from vidpool.nn.softpool import SoftPool1d, SoftPool2d, SoftPool3d
from vidpool.registration import Origin

Layer = TypeVar("Layer", bound=Callable[..., nn.Module])

_DEFAULTS = {"padding": 0, "dilation": 1, "ceil_mode": False}
"""Arguments that a class may lack: it then makes layers with these values only."""


class PoolingFactory:
    """A class or function that makes pooling layers, checked to meet the protocol.

    :func:`register_pooling` documents the protocol.

    Args:
        build: The class or function.

    Raises:
        ConfigError: If it is not callable, a class other than a `torch.nn.Module`, or does not
            accept `kernel_size` and `stride` as keyword arguments.
    """

    def __init__(self, build: Callable[..., nn.Module]) -> None:
        self.build = build
        named = build.func if isinstance(build, partial) else build
        self.name = getattr(named, "__name__", None) or repr(build)
        if isinstance(build, type) and not issubclass(build, nn.Module):
            raise ConfigError(f"{self.name} is not a pooling layer: it is no torch.nn.Module")
        if not callable(build):
            raise ConfigError(f"{build!r} is neither a class nor a function that makes a layer")
        parameters = inspect.signature(build).parameters.values()
        by_name = {
            p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        }
        self._takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self._names = set(by_name)
        missing = [name for name in ("kernel_size", "stride") if not self.takes(name)]
        if missing:
            raise ConfigError(
                f"{self.name} does not take the argument {' and '.join(missing)}: a pooling layer "
                "is made with kernel_size, stride, padding, dilation and ceil_mode as keyword "
                "arguments"
            )
        self.required = [
            p.name
            for p in parameters
            if p.default is p.empty
            and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            and p.name not in ("kernel_size", "stride", "channels", *_DEFAULTS)
        ]
        """Further arguments without a default."""
        self.channels: Literal["none", "optional", "needed"] = "none"
        """Use of `channels`, the number of channels that the layers learn parameters for."""
        if "channels" in by_name:
            required = by_name["channels"].default is inspect.Parameter.empty
            self.channels = "needed" if required else "optional"

    def takes(self, name: str) -> bool:
        """Return whether it accepts a keyword argument."""
        return self._takes_all or name in self._names

    def __call__(self, **arguments: Any) -> nn.Module:
        """Make a layer.

        Average pooling gets `count_include_pad=False`, since padding has no weight in the other
        methods.

        Args:
            **arguments: `kernel_size` and, optionally, `stride`, `padding`, `dilation`,
                `ceil_mode`, `channels` and arguments of the method.

        Raises:
            ConfigError: If an argument without a default is missing, if `padding`, `dilation` or
                `ceil_mode` is given that the method lacks, or if the result is not a module.
            TypeError: If the method does not accept an argument.
        """
        for name, default in _DEFAULTS.items():
            if name in arguments and not self.takes(name):
                value = arguments.pop(name)
                if set(value if isinstance(value, (tuple, list)) else [value]) != {default}:
                    raise ConfigError(
                        f"{self.name} has no {name}, so it cannot pool with {name} {value}", name
                    )
        absent = [name for name in self.required if name not in arguments]
        if absent:
            raise ConfigError(f"{self.name} needs {', '.join(absent)}", absent[0])
        if "count_include_pad" in self._names:
            arguments = {"count_include_pad": False} | arguments
        layer = self.build(**arguments)
        if not isinstance(layer, nn.Module):
            raise ConfigError(f"{self.name} made {layer!r}, which is no torch.nn.Module")
        return layer


class PoolingMethod(NamedTuple):
    """The layers of a pooling method."""

    name: str
    factories: dict[int, PoolingFactory]
    """Factories of the layers by the number of pooled dimensions, in ascending order."""
    origin: Origin

    @property
    def layers(self) -> dict[int, Callable[..., nn.Module]]:
        """Classes or functions of the layers by the number of pooled dimensions."""
        return {ndim: factory.build for ndim, factory in self.factories.items()}

    def factory(self, ndim: int) -> PoolingFactory:
        """Return what makes the layers that pool `ndim` dimensions.

        Raises:
            ConfigError: If the method has no such layers.
        """
        if ndim not in self.factories:
            present = " and ".join(f"{known}D" for known in self.factories)
            hint = f": register one with register_pooling({self.name!r}, pool{ndim}d=…)"
            raise ConfigError(
                f"pooling {self.name!r} has no {ndim}D layer, only {present}"
                f"{hint if self.name in POOLING_METHODS else ''}"
            )
        return self.factories[ndim]


POOLING_METHODS: dict[str, PoolingMethod] = {}
"""Pooling methods by the short names that `swap_pooling` accepts."""

ADAPTIVE_LAYERS: Mapping[str, Mapping[int, type[nn.Module]]] = {
    "soft": {1: AdaptiveSoftPool1d, 2: AdaptiveSoftPool2d, 3: AdaptiveSoftPool3d},
    "max": {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d},
    "avg": {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d},
}
"""Layers with a given output size, by the pooling method and the number of pooled dimensions."""


@overload
def register_pooling(
    name: str,
    *,
    pool1d: Callable[..., nn.Module] | None = ...,
    pool2d: Callable[..., nn.Module] | None = ...,
    pool3d: Callable[..., nn.Module] | None = ...,
) -> None: ...


@overload
def register_pooling(name: str, *, ndim: int) -> Callable[[Layer], Layer]: ...


def register_pooling(
    name: str,
    *,
    pool1d: Callable[..., nn.Module] | None = None,
    pool2d: Callable[..., nn.Module] | None = None,
    pool3d: Callable[..., nn.Module] | None = None,
    ndim: int | None = None,
) -> Any:
    """Register the layers of a pooling method under a name that `swap_pooling` accepts.

    A method has a class, or a function that makes a layer, for each number of dimensions that it
    can pool; one is enough. It has to meet this protocol:

    - It takes the keyword arguments `kernel_size` and `stride`, which are ints or tuples of ints.
    - It may take `padding`, `dilation` and `ceil_mode`. If it lacks one of them, it cannot replace
      layers that use it.
    - If it takes `channels`, it gets the number of channels that the layer pools. The number is
      optional if `channels` has a default.
    - All other arguments have defaults. `swap_pooling` passes its further arguments to them.
    - The layer maps (N, C, *sizes) to (N, C, *output sizes of max pooling). If its class is
      registered and its attributes are named like the arguments, it can be replaced again.

    Args:
        name: Short name of the method, such as `"median"`.
        pool1d: Class or function for layers that pool one dimension.
        pool2d: Class or function for layers that pool two dimensions.
        pool3d: Class or function for layers that pool three dimensions.
        ndim: Number of dimensions that the decorated class or function pools; instead of the
            other arguments.

    Returns:
        With `ndim`, a decorator that registers a class or function and returns it; otherwise None.

    Raises:
        ConfigError: If there is nothing to register, if a class or function does not meet the
            protocol (the message names what is missing), or if the name belongs to another module.
            Registering again from the same module replaces the layers of the given dimensions.

    Examples:
        >>> import torch
        >>> from vidpool.nn import register_pooling, swap_pooling
        >>> @register_pooling("min", ndim=2)
        ... class MinPool2d(torch.nn.MaxPool2d):
        ...     def forward(self, x):
        ...         return -super().forward(-x)
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.MaxPool2d(2))
        >>> swap_pooling(model, to="min")[0].new
        MinPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)

        Without a decorator, for a class that needs a further argument:

        >>> from functools import partial
        >>> register_pooling("l2", pool2d=partial(torch.nn.LPPool2d, 2))
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(f"name must be a string such as 'median', but is {name!r}", "name")
    if ndim not in (None, 1, 2, 3):
        raise ConfigError(f"ndim must be 1, 2 or 3, but is {ndim!r}", "ndim")
    given = {1: pool1d, 2: pool2d, 3: pool3d}
    layers = {dimensions: build for dimensions, build in given.items() if build is not None}
    if ndim is None:
        if not layers:
            raise ConfigError(
                f"pooling {name!r} has no layers: give pool1d, pool2d or pool3d, or ndim to "
                "decorate a class"
            )
        _register(name, layers)
        return None
    if layers:
        raise ConfigError("ndim is for a decorator: give either ndim or layers", "ndim")

    def decorate(build: Layer) -> Layer:
        _register(name, {ndim: build})
        return build

    return decorate


def _register(name: str, layers: dict[int, Callable[..., nn.Module]]) -> None:
    """Check and register layers; called by what the user calls."""
    factories = {}
    for ndim, build in layers.items():
        try:
            factory = PoolingFactory(build)
            if factory.required:
                raise ConfigError(
                    f"{factory.name} needs {', '.join(factory.required)}, which nothing gives: "
                    "give a default, for example with functools.partial"
                )
            others = {other: known for other, known in layers.items() if other != ndim}
            if isinstance(build, type) and build in others.values():
                raise ConfigError(
                    f"{factory.name} is given for several numbers of dimensions: derive a class "
                    "for each of them"
                )
        except ConfigError as error:
            raise ConfigError(f"pooling {name!r}: {error}", f"pool{ndim}d") from error
        factories[ndim] = factory
    origin = Origin.of(next(iter(layers.values())), depth=2)
    known = POOLING_METHODS.get(name)
    if known:
        known.origin.check_replaceable_by(origin, f"a pooling named {name!r}")
        factories = known.factories | factories
    POOLING_METHODS[name] = PoolingMethod(name, dict(sorted(factories.items())), origin)


def _register_own(name: str, *layers: type[nn.Module]) -> None:
    """Register the classes of one of vidpool's methods for one, two and three dimensions."""
    register_pooling(name, pool1d=layers[0], pool2d=layers[1], pool3d=layers[2])


_register_own("soft", SoftPool1d, SoftPool2d, SoftPool3d)
_register_own("max", nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_register_own("avg", nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_register_own("sum", pooling.SumPool1d, pooling.SumPool2d, pooling.SumPool3d)
_register_own("power", pooling.PowerAvgPool1d, pooling.PowerAvgPool2d, pooling.PowerAvgPool3d)
_register_own("lp", pooling.LearnedNormPool1d, pooling.LearnedNormPool2d, pooling.LearnedNormPool3d)
_register_own("gated", pooling.GatedPool1d, pooling.GatedPool2d, pooling.GatedPool3d)
_register_own(
    "dpp",
    pooling.DetailPreservingPool1d,
    pooling.DetailPreservingPool2d,
    pooling.DetailPreservingPool3d,
)
_register_own(
    "lip",
    pooling.LocalImportancePool1d,
    pooling.LocalImportancePool2d,
    pooling.LocalImportancePool3d,
)
_register_own(
    "stochastic", pooling.StochasticPool1d, pooling.StochasticPool2d, pooling.StochasticPool3d
)
_register_own("s3", pooling.S3Pool1d, pooling.S3Pool2d, pooling.S3Pool3d)
_register_own("ordinal", pooling.OrdinalPool1d, pooling.OrdinalPool2d, pooling.OrdinalPool3d)
_register_own("lift", pooling.LiftPool1d, pooling.LiftPool2d, pooling.LiftPool3d)


def find_method(pooling: str | Callable[..., nn.Module]) -> PoolingMethod:
    """Return a registered pooling method, or one that consists of a single class or function.

    Args:
        pooling: Name of a registered method, or a class or function that makes layers; see
            :func:`register_pooling`.

    Raises:
        ConfigError: If the name is unknown (the message lists all names), or if the class or
            function does not meet the protocol.
    """
    if isinstance(pooling, str):
        if pooling not in POOLING_METHODS:
            names = ", ".join(POOLING_METHODS)
            raise ConfigError(f"unknown pooling {pooling!r}: choose from {names}")
        return POOLING_METHODS[pooling]
    factory = PoolingFactory(pooling)
    dimensions: tuple[int, ...] = (1, 2, 3)
    if isinstance(pooling, type):
        known = {ndim for ndim, cls in _classes() if issubclass(pooling, cls)}
        dimensions = tuple(sorted(known)) or dimensions
    return PoolingMethod(factory.name, dict.fromkeys(dimensions, factory), Origin.of(pooling))


def pooled_dimensions(layer: nn.Module) -> int:
    """Return the number of dimensions that a layer of a registered class pools, or 0."""
    return next((ndim for ndim, cls in _classes() if isinstance(layer, cls)), 0)


def overrides_forward(layer: nn.Module) -> bool:
    """Return whether the layer's class overrides `forward` of the pooling layer that it extends."""
    classes = chain(_classes(), _adaptive_classes())
    return all(type(layer).forward is not cls.forward for _, cls in classes)


def adaptive_dimensions(layer: nn.Module) -> int:
    """Return the number of dimensions that an adaptive pooling layer pools, or 0 for others."""
    return next((ndim for ndim, cls in _adaptive_classes() if isinstance(layer, cls)), 0)


def _classes() -> Iterator[tuple[int, type[nn.Module]]]:
    """Yield the registered classes and the number of dimensions that they pool."""
    for method in POOLING_METHODS.values():
        for ndim, build in method.layers.items():
            if isinstance(build, type):
                yield ndim, build


def _adaptive_classes() -> Iterator[tuple[int, type[nn.Module]]]:
    """Yield the classes of adaptive layers and the number of dimensions that they pool."""
    for layers in ADAPTIVE_LAYERS.values():
        yield from layers.items()
