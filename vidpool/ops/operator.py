"""The operators `torch.ops.vidpool.soft_pool` and `soft_pool_backward`, and their dispatch.

The compiled kernels of `csrc/` serve the devices that they were built for. On all other devices,
the reference computes the same in plain PyTorch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, ParamSpec

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from vidpool.errors import ConfigError
from vidpool.ops import reference
from vidpool.ops.geometry import Window, check_input, is_channels_last, make_window
from vidpool.ops.reference import Gradient

P = ParamSpec("P")
_OPTIONS = (
    "int[] kernel_size, int[] stride, int[] padding, int[] dilation, bool ceil_mode, str gradient"
)
torch.library.define("vidpool::soft_pool", f"(Tensor x, {_OPTIONS}) -> Tensor")
torch.library.define(
    "vidpool::soft_pool_backward", f"(Tensor grad, Tensor x, {_OPTIONS}) -> Tensor"
)


def load_libraries(folder: Path) -> set[str]:
    """Load the compiled kernels in `folder` and return the device types that they serve."""
    wanted = ["cpu"]
    if torch.version.cuda is not None:  # the library needs PyTorch's CUDA libraries
        wanted.append("cuda")
    loaded = set()
    for device in wanted:
        for path in folder.glob(f"_{device}.abi3.*"):
            try:
                torch.ops.load_library(path)
            except OSError as error:
                warnings.warn(
                    f"vidpool: {path} cannot be loaded, so SoftPool runs as plain PyTorch on "
                    f"{device}, which is slower. Build it again for this PyTorch, "
                    f"{torch.__version__}. The reason: {error}",
                    stacklevel=2,
                )
            else:
                loaded.add(device)
    return loaded


COMPILED = frozenset(load_libraries(Path(__file__).parent))
"""Device types with compiled kernels."""


def refuse_scripting() -> NoReturn:
    """Raise an error; torch.jit.script calls this for functions and layers before it compiles them.

    Raises:
        ConfigError: Always.
    """
    raise ConfigError(
        "vidpool's pooling cannot be compiled by torch.jit.script, which PyTorch has deprecated: "
        "use torch.export.export, torch.compile or torch.jit.trace"
    )


def overridable(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Let torch.fx record the calls of a function, and tensor subclasses override it.

    PyTorch's own functions allow the same. The first argument of the function is `x`.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        x: Any = args[0] if args else kwargs.get("x")
        if has_torch_function_unary(x):
            recorded: Tensor = handle_torch_function(call, (x,), *args, **kwargs)
            return recorded
        return function(*args, **kwargs)

    call.__prepare_scriptable__ = refuse_scripting  # type: ignore[attr-defined]
    return call


@overridable
def soft_pool(x: Tensor, window: Window, gradient: Gradient) -> Tensor:
    """Compute :func:`vidpool.ops.reference.soft_pool` by compiled kernels if there are any.

    The backward pass stores only the input and is deterministic. Sums are computed in float32, or
    in float64 for float64 inputs. On the CPU, a cell whose weight is less than e^-64 (e^-640 in
    float64) of the largest weight in its window has the gradient 0.

    Arguments, return value and exceptions are those of the reference.

    Raises:
        ConfigError: In the ONNX exporter that is based on TorchScript.
    """
    # torch.func cannot differentiate custom operators; torch.jit cannot trace autograd functions
    transformed = torch._C._are_functorch_transforms_active() or torch.jit.is_tracing()
    if x.device.type not in COMPILED or transformed:
        check_exporter()
        return reference.soft_pool(x, window, gradient)
    reference.check_gradient(gradient)
    check_input(x, len(window.kernel_size))
    options = (*window, gradient)
    if torch.compiler.is_compiling():
        result: Tensor = torch.ops.vidpool.soft_pool(x, *options)
    else:
        result = _SoftPool.apply(x, options)
    return result


def check_exporter() -> None:
    """Refuse the ONNX exporter that is based on TorchScript.

    Raises:
        ConfigError: If it is running.
    """
    if torch.jit.is_tracing() and torch.onnx.is_in_onnx_export():
        raise ConfigError(
            "SoftPool cannot be exported by the TorchScript-based ONNX exporter (dynamo=False): "
            "use PyTorch's default exporter, torch.onnx.export(..., dynamo=True)"
        )


class _SoftPool(torch.autograd.Function):
    """The operator with its autograd formula, at half the overhead for small maps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, options: tuple[Any, ...]) -> Tensor:
        _setup_context(ctx, (x, *options))
        ctx.save_for_forward(x)
        with torch._C._AutoDispatchBelowAutograd():
            out: Tensor = torch.ops.vidpool.soft_pool(x, *options)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        return _backward(ctx, grad)[0], None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        # forward mode does not nest; differentiating the backward pass by `grad` gives the same
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            out = _pool_by_reference(x, *ctx.options)
            grad = torch.zeros_like(out, requires_grad=True)
            (grad_x,) = torch.autograd.grad(out, x, grad, create_graph=True)
            (out_tangent,) = torch.autograd.grad(grad_x, grad, tangent)
        return out_tangent


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor | None = None) -> None:  # noqa: ARG001
    x, *ctx.options = inputs
    ctx.save_for_backward(x)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (x,) = ctx.saved_tensors
    if torch.is_grad_enabled():  # create_graph: the reference can be differentiated again
        out = _pool_by_reference(x, *ctx.options)
        (grad_x,) = torch.autograd.grad(out, x, grad, create_graph=True)
    else:
        grad_x = torch.ops.vidpool.soft_pool_backward(grad, x, *ctx.options)
    return grad_x, *(None for _ in ctx.options)


def _pool_by_reference(x: Tensor, *options: Any) -> Tensor:
    *window, gradient = options
    return reference.soft_pool(x, Window(*window), gradient)


DECOMPOSITIONS: dict[torch._ops.OperatorBase, Callable[..., Any]] = {
    torch.ops.vidpool.soft_pool.default: _pool_by_reference
}
"""Decomposition of SoftPool into standard operators, for `ExportedProgram.run_decompositions`.

The default ONNX exporter of PyTorch finds it by itself.
"""
# The ONNX exporter reads PyTorch's own table; torch.compile does not decompose by it, so compiled
# programs still call the kernels.
torch._decomp.register_decomposition(list(DECOMPOSITIONS))(_pool_by_reference)


torch.library.register_autograd("vidpool::soft_pool", _backward, setup_context=_setup_context)


@torch.library.register_fake("vidpool::soft_pool")
def _soft_pool_shape(x: Tensor, *options: Any) -> Tensor:
    ndim = len(options[0])
    window = make_window(ndim, *options[:-1])
    check_input(x, ndim)
    counts = window.output_size(x.shape[-ndim:])
    return _new_empty(x, (*x.shape[:-ndim], *counts), ndim)


# Without an entry in this table, shapes of dynamic size would be found by the decomposition.
torch._decomp.register_decomposition(list(DECOMPOSITIONS), type="meta")(_soft_pool_shape)


@torch.library.register_fake("vidpool::soft_pool_backward")
def _soft_pool_backward_shape(_grad: Tensor, x: Tensor, *options: Any) -> Tensor:
    return _new_empty(x, x.shape, len(options[0]))


def _new_empty(x: Tensor, shape: Sequence[int], ndim: int) -> Tensor:
    """Return an uninitialized tensor in the memory layout of the kernels' output for x."""
    if is_channels_last(x, ndim):
        return x.new_empty((shape[0], *shape[2:], shape[1])).movedim(-1, 1)
    return x.new_empty(shape)


@torch.library.register_vmap("vidpool::soft_pool")
def _soft_pool_vmap(
    info: Any,  # noqa: ARG001
    in_dims: Sequence[int | None],
    x: Tensor,
    *options: Any,
) -> tuple[Tensor, int]:
    x, batch = _fold(x, in_dims[0], len(options[0]))
    return torch.ops.vidpool.soft_pool(x, *options).unflatten(0, batch), 0


@torch.library.register_vmap("vidpool::soft_pool_backward")
def _soft_pool_backward_vmap(
    info: Any, in_dims: Sequence[int | None], grad: Tensor, x: Tensor, *options: Any
) -> tuple[Tensor, int]:
    ndim = len(options[0])
    if in_dims[0] is None:
        grad = grad.expand(info.batch_size, *grad.shape)
    if in_dims[1] is None:
        x = x.expand(info.batch_size, *x.shape)
    grad, _ = _fold(grad, in_dims[0] or 0, ndim)
    x, batch = _fold(x, in_dims[1] or 0, ndim)
    return torch.ops.vidpool.soft_pool_backward(grad, x, *options).unflatten(0, batch), 0


def _fold(x: Tensor, dim: int | None, ndim: int) -> tuple[Tensor, tuple[int, ...]]:
    """Merge the mapped dimension into N; also return the shape to restore N to."""
    assert dim is not None
    x = x.movedim(dim, 0)
    if x.ndim == ndim + 2:  # inputs without N
        return x, (x.shape[0],)
    return x.flatten(0, 1), (x.shape[0], x.shape[1])
