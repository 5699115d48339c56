"""Adaptive SoftPool against loops over the windows of PyTorch's adaptive pooling, in float64."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend
from torch.export import Dim
from torch.nn import functional as F

from vidpool.errors import ConfigError
from vidpool.ops import (
    adaptive,
    adaptive_soft_pool1d,
    adaptive_soft_pool2d,
    adaptive_soft_pool3d,
    operator,
)

SOFT = {1: adaptive_soft_pool1d, 2: adaptive_soft_pool2d, 3: adaptive_soft_pool3d}
MAX = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
# global; regular; irregular on one axis; more windows than cells; one axis kept
OUTPUT_SIZES = [1, (2, 4), (2, 3), (6, 1), (None, 3)]


def loops(x, output_size, gradient="exact"):
    """Result, and gradient of the sum, by one softmax for each window."""
    x = x.detach().double().requires_grad_()
    sizes = x.shape[-len(output_size) :]
    counts = [
        size if count is None else count for size, count in zip(sizes, output_size, strict=True)
    ]
    out = []
    for place in product(*map(range, counts)):
        window = x
        for axis, (i, count, size) in enumerate(zip(place, counts, sizes, strict=True)):
            start, end = math.floor(i * size / count), math.ceil((i + 1) * size / count)
            window = window.narrow(axis - len(counts), start, end - start)
        values = window.flatten(-len(counts))
        weights = values.softmax(-1)
        out.append(((weights.detach() if gradient == "paper" else weights) * values).sum(-1))
    stacked = torch.stack(out, -1).unflatten(-1, counts)
    (grad,) = torch.autograd.grad(stacked.sum(), x)
    return stacked.detach(), grad


def gradient_of(x, ndim, output_size, gradient="exact"):
    x = x.detach().requires_grad_()
    SOFT[ndim](x, output_size, gradient=gradient).sum().backward()
    return x.grad


def randn(*shape, dtype=torch.float64, scale=3.0):
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))).to(dtype)


@st.composite
def poolings(draw):
    ndim = draw(st.integers(1, 3))
    leading = draw(st.sampled_from([(1,), (2,), (1, 2), (2, 1)]))
    size = draw(st.tuples(*[st.integers(1, {1: 12, 2: 7, 3: 5}[ndim])] * ndim))
    output_size = draw(st.tuples(*[st.none() | st.integers(1, 6)] * ndim))
    return leading + size, output_size, draw(st.booleans())


@settings(max_examples=120, derandomize=True)
@given(poolings())
def test_agrees_with_loops(pooling):
    shape, output_size, channels_last = pooling
    ndim, x = len(output_size), randn(*shape)
    if channels_last and len(shape) == ndim + 2 > 3:
        x = x.contiguous(memory_format=CHANNELS_LAST[ndim])
    for gradient in ("exact", "paper"):
        out, grad = loops(x, output_size, gradient)
        torch.testing.assert_close(SOFT[ndim](x, output_size), out, rtol=1e-12, atol=1e-12)
        actual = gradient_of(x, ndim, output_size, gradient)
        torch.testing.assert_close(actual, grad, rtol=1e-12, atol=1e-12)


def test_windows_are_those_of_adaptive_max_pooling():
    for length, count in product(range(1, 12), range(1, 14)):
        x = 1e6 * randn(2, length)  # where SoftPool is the maximum
        torch.testing.assert_close(SOFT[1](x, count), MAX[1](x, count))
    x = 1e6 * randn(1, 2, 7, 8, 9)
    for output_size in (1, (None, 3, 2), (1, 5, 1), [9, 9, 9]):
        torch.testing.assert_close(SOFT[3](x, output_size), MAX[3](x, output_size))


@pytest.mark.parametrize(
    ("size", "output_size", "kernel_size", "stride"),
    [
        ((8, 6), (4, 2), (2, 3), (2, 3)),
        ((7, 5), (7, None), (1, 1), (1, 1)),
        ((7, 4), (2, 3), (4, 2), (3, 1)),
        ((7, 7), (7, 1), (1, 7), (1, 7)),
        ((7, 6), (3, 4), None, None),
        ((7, 8), (1, 3), None, None),
        ((1, 4), (2, 2), None, None),
        ((7, 7), (1, 1), None, None),
        ((7, 6), (None, 1), None, None),
        ((7, 6), (1, None), (7, 1), (7, 1)),
    ],
)
def test_kernels_compute_regular_windows(monkeypatch, size, output_size, kernel_size, stride):
    windows = []

    def record(x, window, gradient):
        windows.append((window.kernel_size, window.stride))
        return kernels(x, window, gradient)

    kernels = adaptive.soft_pool
    monkeypatch.setattr(adaptive, "soft_pool", record)
    x = randn(2, 3, *size)
    expected, _ = loops(x, output_size)
    torch.testing.assert_close(SOFT[2](x, output_size), expected, rtol=1e-12, atol=1e-12)
    assert windows == ([] if kernel_size is None else [(kernel_size, stride)])
    if output_size == (1, 1):  # global pooling is faster in PyTorch unless channels are last
        x = x.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(SOFT[2](x, output_size), expected, rtol=1e-12, atol=1e-12)
        assert windows == [(size, size)]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("output_size", OUTPUT_SIZES)
def test_can_be_differentiated_twice_and_forward(output_size, channels_last):
    x = randn(1, 2, 4, 4, scale=1.0)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()

    def pool(x):
        return SOFT[2](x, output_size)

    torch.autograd.gradcheck(pool, x, check_forward_ad=True, fast_mode=True)
    torch.autograd.gradgradcheck(pool, x, fast_mode=True)
    torch.func.jvp(pool, (x,), (x,))
    batch = randn(3, 2, 4, 4)
    torch.testing.assert_close(torch.vmap(pool)(batch), pool(batch))
    torch.testing.assert_close(torch.vmap(pool, 1, 1)(batch[None]), pool(batch)[None])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("output_size", [(1, 1, 1), (2, 2, 5), (3, 2, 1)])
def test_is_as_accurate_as_the_dtypes_rounding(output_size, dtype):
    x = randn(2, 2, 5, 4, 5, dtype=dtype)
    out, grad = loops(x, output_size)
    actual, actual_grad = SOFT[3](x, output_size), gradient_of(x, 3, output_size)
    assert actual.dtype == actual_grad.dtype == dtype
    rtol = 0.51 * torch.finfo(dtype).eps  # only the result is rounded to a half type
    atol = 1e-14 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(actual.double(), out, rtol=rtol, atol=atol)
    torch.testing.assert_close(actual_grad.double(), grad, rtol=rtol, atol=atol)


@pytest.mark.parametrize("output_size", [1, 2, 3])
@pytest.mark.parametrize("values", [[1e4, -1e4, 3.0, 1e4, 0.0], [3e38, -3e38, -3e38, 2e38, 1.0]])
def test_large_values_neither_overflow_nor_lose_accuracy(values, output_size):
    x = torch.tensor([values])
    out, grad = loops(x, (output_size,))
    torch.testing.assert_close(SOFT[1](x, output_size).double(), out, rtol=2e-7, atol=0)
    torch.testing.assert_close(gradient_of(x, 1, output_size).double(), grad, rtol=5e-7, atol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("output_size", OUTPUT_SIZES)
def test_nan_and_inf_stay_in_their_windows(output_size, bad):
    x = randn(1, 2, 5, 4)
    clean, clean_grad = SOFT[2](x, output_size), gradient_of(x, 2, output_size)
    x[0, 1, 4, 3] = bad  # read again, without weight, in place of cells beyond the end
    bad_cells = torch.zeros_like(x)
    bad_cells[0, 1, 4, 3] = 1
    windows = MAX[2](bad_cells, output_size) > 0
    bad_cells.requires_grad_()
    F.adaptive_avg_pool2d(bad_cells, output_size)[windows].sum().backward()
    touched = bad_cells.grad > 0
    out, grad = SOFT[2](x, output_size), gradient_of(x, 2, output_size)
    assert torch.equal(out.isnan(), windows)
    torch.testing.assert_close(out[~windows], clean[~windows])
    assert grad[0, 1, 4, 3].isnan()
    torch.testing.assert_close(grad[~touched], clean_grad[~touched])


@pytest.mark.parametrize(
    ("output_size", "rest"), [(1, []), (2, [-math.inf]), (3, [2.0, -math.inf])]
)
def test_minus_infinity_weighs_nothing(output_size, rest):
    x = torch.tensor([[1.0, 2.0, -math.inf, -math.inf, -math.inf]])
    out, grad = SOFT[1](x, output_size), gradient_of(x, 1, output_size)
    torch.testing.assert_close(out[0, 0], SOFT[1](x[:, :2], 1)[0, 0])
    assert out[0, 1:].tolist() == rest
    assert torch.equal(grad[0, 2:], torch.zeros(3))
    assert grad.isfinite().all()


@pytest.mark.parametrize("shape", [(3,), (2, 3), (0, 3)])
@pytest.mark.parametrize("output_size", OUTPUT_SIZES)
def test_batch_dimension_is_optional_and_may_be_empty(output_size, shape):
    x = randn(*shape, 4, 8)
    expected = F.adaptive_avg_pool2d(x, output_size).shape
    assert SOFT[2](x, output_size).shape == expected
    assert gradient_of(x, 2, output_size).shape == x.shape
    if len(shape) == 1:
        assert torch.equal(SOFT[2](x, output_size), SOFT[2](x[None], output_size)[0])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("output_size", [1, 2, 3])
@pytest.mark.parametrize("ndim", [2, 3])
def test_memory_format_stays(ndim, output_size, channels):
    x = randn(2, channels, *(5,) * ndim, dtype=torch.bfloat16)
    for memory_format in (torch.contiguous_format, CHANNELS_LAST[ndim]):
        out = SOFT[ndim](x.contiguous(memory_format=memory_format), output_size)
        assert out.is_contiguous(memory_format=memory_format)
        assert torch.equal(out, SOFT[ndim](x, output_size))
    strided = randn(2, 6, 5, 4).transpose(1, 3)[:, :, ::2]
    torch.testing.assert_close(SOFT[2](strided, 2), SOFT[2](strided.contiguous(), 2))


VIDEO = torch.zeros(1, 2, 8, 8, 8)


@pytest.mark.parametrize(
    ("x", "arguments", "error", "named"),
    [
        (VIDEO[0, 0], {}, RuntimeError, r"\(8, 8, 8\)"),
        (VIDEO[:, :0], {}, RuntimeError, r"\(1, 0, 8, 8, 8\)"),
        (VIDEO[:, :, :0], {}, RuntimeError, r"\(1, 2, 0, 8, 8\)"),
        (VIDEO, {"output_size": 0}, RuntimeError, "output_size.*0"),
        (VIDEO, {"output_size": (2, -1, None)}, RuntimeError, r"output_size.*\(2, -1, None\)"),
        (VIDEO, {"output_size": (2, 2)}, RuntimeError, r"output_size.*3 of these.*\(2, 2\)"),
        (VIDEO, {"output_size": (2,)}, RuntimeError, r"output_size.*3 of these.*\(2,\)"),
        (VIDEO, {"output_size": 2.0}, TypeError, "output_size.*2.0"),
        (VIDEO, {"output_size": "222"}, TypeError, "output_size.*'222'"),
        (VIDEO.int(), {}, NotImplementedError, "int32"),
        (VIDEO, {"gradient": "approximate"}, ConfigError, "exact.*paper.*approximate"),
        (VIDEO, {"return_indices": True}, ConfigError, "adaptive_soft_pool3d cannot return ind"),
    ],
)
def test_error_names_the_value(x, arguments, error, named):
    with pytest.raises(error, match=named):
        SOFT[3](x, **{"output_size": 2} | arguments)


def test_positional_arguments_are_in_torchs_order():
    x = randn(1, 2, 6)
    assert torch.equal(SOFT[1](x, [4], False), SOFT[1](x, 4))
    with pytest.raises(TypeError, match="positional"):
        SOFT[1](x, 4, False, "paper")


class Pools(torch.nn.Module):
    """Global windows of one axis, and windows that are regular for some sizes."""

    def forward(self, x):
        return SOFT[2](x, (None, 1)), SOFT[2](x, (3, 2))


def test_exports_with_dynamic_sizes_to_standard_operators():
    sizes = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = torch.export.export(Pools(), (randn(2, 3, 6, 8),), dynamic_shapes=(sizes,))
    assert "vidpool" not in str(program.graph)
    for shape in ((2, 3, 6, 8), (1, 3, 7, 5), (4, 3, 2, 11)):
        x = randn(*shape)
        torch.testing.assert_close(program.module()(x), Pools()(x))


def test_compiles_to_one_graph_that_fits_all_sizes():
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(Pools(), fullgraph=True, backend=counter)
    for shape in ((2, 3, 6, 8), (4, 3, 7, 5), (3, 3, 2, 11)):
        x = randn(*shape).requires_grad_()
        outs, expected = compiled(x), Pools()(x)
        torch.testing.assert_close(outs, expected)
        (grad,) = torch.autograd.grad(sum(out.sum() for out in outs), x)
        (expected_grad,) = torch.autograd.grad(sum(out.sum() for out in expected), x)
        torch.testing.assert_close(grad, expected_grad)
    # constant sizes are pooled by the kernels, then dynamic sizes without
    assert ["soft_pool" in str(graph.graph) for graph in counter.graphs] == [
        "cpu" in operator.COMPILED,
        False,
    ]


def test_autocast_leaves_the_dtype():
    with torch.autocast("cpu", torch.bfloat16):
        for dtype, output_size in product(
            (torch.float32, torch.float64, torch.bfloat16), (1, 2, 3)
        ):
            assert SOFT[2](randn(1, 4, 4, dtype=dtype), output_size).dtype == dtype
