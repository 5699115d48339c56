"""Finding calls of pooling functions in a model and replacing them by layers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional as F

from vidpool.errors import ConfigError
from vidpool.nn.registry import adaptive_dimensions, pooled_dimensions

_MAX = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
_AVG = (
    "kernel_size",
    "stride",
    "padding",
    "ceil_mode",
    "count_include_pad",
    "divisor_override",
)
_ADAPTIVE = ("output_size",)
_LAYERS: dict[Callable[..., Any], tuple[type[nn.Module], tuple[str, ...]]] = {
    F.max_pool1d: (nn.MaxPool1d, _MAX),
    F.max_pool2d: (nn.MaxPool2d, _MAX),
    F.max_pool3d: (nn.MaxPool3d, _MAX),
    torch.max_pool1d: (nn.MaxPool1d, _MAX),
    torch.max_pool2d: (nn.MaxPool2d, _MAX),
    torch.max_pool3d: (nn.MaxPool3d, _MAX),
    F.avg_pool1d: (nn.AvgPool1d, _AVG),
    F.avg_pool2d: (nn.AvgPool2d, _AVG),
    F.avg_pool3d: (nn.AvgPool3d, _AVG),
    F.adaptive_max_pool1d: (nn.AdaptiveMaxPool1d, _ADAPTIVE),
    F.adaptive_max_pool2d: (nn.AdaptiveMaxPool2d, _ADAPTIVE),
    F.adaptive_max_pool3d: (nn.AdaptiveMaxPool3d, _ADAPTIVE),
    F.adaptive_avg_pool1d: (nn.AdaptiveAvgPool1d, _ADAPTIVE),
    F.adaptive_avg_pool2d: (nn.AdaptiveAvgPool2d, _ADAPTIVE),
    F.adaptive_avg_pool3d: (nn.AdaptiveAvgPool3d, _ADAPTIVE),
}
"""Pooling functions, the equivalent layers, and the names of the arguments after the input."""
_POOLING_NAMES = {f"{kind}_pool{ndim}d" for kind in ("max", "avg") for ndim in (1, 2, 3)}
_ADAPTIVE_NAMES = {f"adaptive_{name}" for name in _POOLING_NAMES}


class Call(NamedTuple):
    """A call of a pooling function in a block."""

    block: Block
    node: fx.Node
    name: str
    """Name of the layer in the block."""
    layer: nn.Module
    """The equivalent layer."""


class Block:
    """A module whose own `forward` calls pooling functions, and the traced graph of it.

    Only this `forward` is traced; submodules are leaves of the graph. The module stays the same
    object with the same attributes, submodules and hooks: :meth:`install` adds layers to its
    submodules and replaces its class by a subclass that overrides `forward` only, as
    `torch.nn.utils.parametrize` does. It keeps its training flag, state-dict keys and place in the
    model, and can be copied, but only its state dict can be pickled.
    """

    def __init__(self, module: nn.Module, graph: fx.Graph, adaptive: bool = False) -> None:
        self.module = module
        self.graph = graph
        self.calls: list[Call] = []
        taken = {name for name, _ in module.named_children()}
        for node in graph.nodes:
            layer = _equivalent_layer(node, adaptive)
            if layer is None:
                continue
            name = node.name
            while name in taken or hasattr(module, name):
                name += "_"
            taken.add(name)
            self.calls.append(Call(self, node, name, layer.train(module.training)))

    def install(self, calls: list[Call]) -> Callable[[], None]:
        """Replace some of the calls by equivalent submodules.

        Returns:
            Function that undoes the replacement.
        """
        module, cls = self.module, type(self.module)
        for call in calls:
            module.add_module(call.name, call.layer)
            with self.graph.inserting_before(call.node):
                args = (_arguments(call.node)["input"],)
                call.node.replace_all_uses_with(self.graph.call_module(call.name, args))
            self.graph.erase_node(call.node)
        compiled = fx.GraphModule(module, self.graph)
        body = {
            "forward": type(compiled).forward,
            "__module__": cls.__module__,
            "__doc__": cls.__doc__,
        }
        module.__class__ = type(cls.__name__, (cls,), body)

        def undo() -> None:
            module.__class__ = cls
            for call in calls:
                delattr(module, call.name)

        return undo


class Untraceable(NamedTuple):
    """A module that refers to pooling functions but cannot be traced."""

    name: str
    module: nn.Module
    reason: str

    def error(self) -> ConfigError:
        """Return the error to raise if the module's calls should be replaced."""
        return ConfigError(
            f"{self.name or 'the model'} ({type(self.module).__name__}) calls pooling functions, "
            f"which cannot be replaced because its forward {self.reason}: give it pooling layers "
            "by hand, or leave it out with `where`"
        )


def find_blocks(
    model: nn.Module, adaptive: bool = False
) -> Iterator[tuple[str, Block | Untraceable]]:
    """Yield the names and blocks of modules whose own `forward` calls pooling functions, in order.

    A module with several names is yielded under each of them, with the same block. Calls whose
    window depends on the input (global pooling) and calls that return indices are ignored.

    Args:
        model: Any module.
        adaptive: Whether functions of adaptive pooling count as well.
    """
    blocks: dict[nn.Module, Block | Untraceable | None] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if module not in blocks:
            blocks[module] = _examine(name, module, adaptive)
        found = blocks[module]
        if found is not None:
            yield name, found


def find_calls(model: nn.Module, adaptive: bool = False) -> dict[str, Call]:
    """Return the replaceable calls, in order, by the dotted names of their layers.

    Args:
        model: Any module.
        adaptive: Whether functions of adaptive pooling count as well.
    """
    return {
        f"{name}.{call.name}".removeprefix("."): call
        for name, block in find_blocks(model, adaptive)
        if isinstance(block, Block)
        for call in block.calls
    }


class _ShallowTracer(fx.Tracer):
    """Tracer of a single forward, which does not enter submodules."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        """Return True: every submodule is a leaf."""
        return True


def _examine(name: str, module: nn.Module, adaptive: bool) -> Block | Untraceable | None:
    # a block whose calls were replaced before has a generated forward without a module
    if (type(module).forward.__module__ or "").startswith(("torch.", "vidpool.nn.")):
        return None
    # a pooling layer, which swap_pooling selects by its class
    if pooled_dimensions(module) or adaptive_dimensions(module):
        return None

    def has_calls(graph: fx.Graph) -> bool:
        return any(_equivalent_layer(node, adaptive) for node in graph.nodes)

    reason = _tracing_obstacle(module)
    if not reason:
        try:
            graph = _trace(module, module.training)
            graphs = [graph]
            if has_calls(graph) or "training" in _referenced_names(module):
                graphs.append(_trace(module, not module.training))
        # user code may do anything with a proxy
        except Exception as error:
            reason = f"cannot be traced ({type(error).__name__}: {error})"
        else:
            if not any(map(has_calls, graphs)):
                return None
            if len({str(traced) for traced in graphs}) == 1:
                return Block(module, graph, adaptive)
            reason = "depends on self.training"
    functions = _POOLING_NAMES | _ADAPTIVE_NAMES if adaptive else _POOLING_NAMES
    return Untraceable(name, module, reason) if _referenced_names(module) & functions else None


def _trace(module: nn.Module, training: bool) -> fx.Graph:
    before, attributes = module.training, set(vars(module))
    module.training = training  # not of its submodules, which are not run
    try:
        graph = _ShallowTracer().trace(module)
    finally:
        module.training = before
        # tensors that the tracer stores as constants would not follow the module to a device
        constants = vars(module).keys() - attributes
        for name in constants:
            delattr(module, name)
    if constants:
        raise ValueError("it has a tensor that is no buffer")
    return graph


def _tracing_obstacle(module: nn.Module) -> str:
    """Return why tracing a module would silently go wrong; empty if no reason is known."""
    if "forward" in vars(module):
        return "is set on the instance"
    for parameter in inspect.signature(module.forward).parameters.values():
        # a traced argument is never None, so the branch for a given argument would be traced
        if parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            return f"has the optional argument {parameter.name!r}"
    if "isinstance" in _referenced_names(module):
        return "looks at the types of its arguments"
    return ""


def _referenced_names(module: nn.Module) -> set[str]:
    """Return the global names and attributes that the methods of a module's classes refer to."""
    names: set[str] = set()
    for cls in type(module).__mro__:
        if not cls.__module__.startswith("torch.nn."):
            for method in vars(cls).values():
                if isinstance(method, FunctionType) and method.__name__ != "__init__":
                    names |= _code_names(method.__code__)
    return names


def _code_names(code: CodeType) -> set[str]:
    nested = (
        _code_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)
    )
    return set(code.co_names).union(*nested)


def _equivalent_layer(node: fx.Node, adaptive: bool) -> nn.Module | None:
    """Return the layer that is equivalent to a call; None if there is none."""
    if node.op != "call_function" or node.target not in _LAYERS:
        return None
    cls, names = _LAYERS[node.target]
    if names is _ADAPTIVE and not adaptive:
        return None
    arguments = _arguments(node)
    if arguments.pop("return_indices", False) or not isinstance(arguments.pop("input"), fx.Node):
        return None
    found: list[fx.Node] = []
    fx.node.map_arg(tuple(arguments.values()), found.append)
    if found:  # an argument depends on the input
        return None
    # PyTorch's functions represent a missing stride as an empty list
    return cls(
        **{
            key: tuple(value) if isinstance(value, Sequence) else value
            for key, value in arguments.items()
            if value not in ((), [], None)
        }
    )


def _arguments(node: fx.Node) -> dict[str, Any]:
    """Return the arguments of a pooling call by name."""
    _, names = _LAYERS[node.target]  # type: ignore[index]
    return dict(zip(("input", *names, "return_indices"), node.args, strict=False)) | node.kwargs
