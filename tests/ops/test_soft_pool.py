"""SoftPool against loops over Python floats and max pooling's rules, whoever computes it."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vidpool.ops import soft_pool1d, soft_pool2d, soft_pool3d

pytestmark = pytest.mark.usefixtures("implementation")
SOFT = {1: soft_pool1d, 2: soft_pool2d, 3: soft_pool3d}
MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def expand(value, ndim):
    return (value,) * ndim if isinstance(value, int) else value


def loops(x, ndim, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Result, exact gradient and paper gradient of the sum, from the definition; all float64."""
    geometry = (kernel_size, kernel_size if stride is None else stride, padding, dilation)
    kernel, step, pad, dil = (expand(g, ndim) for g in geometry)
    x = x.double()
    sizes = MAX[ndim](x, kernel_size, stride, padding, dilation, ceil_mode).shape[-ndim:]
    out = torch.empty(*x.shape[:-ndim], *sizes, dtype=torch.float64)
    exact, paper = torch.zeros_like(x), torch.zeros_like(x)
    for plane in product(*map(range, x.shape[:-ndim])):
        for where in product(*map(range, sizes)):
            cells = []
            for offset in product(*map(range, kernel)):
                cell = tuple(
                    w * s - p + o * d
                    for w, s, p, o, d in zip(where, step, pad, offset, dil, strict=True)
                )
                if all(0 <= c < n for c, n in zip(cell, x.shape[-ndim:], strict=True)):
                    cells.append((*plane, *cell))
            values = [x[cell].item() for cell in cells]
            if not values:
                out[(*plane, *where)] = -math.inf
                continue
            exps = [math.exp(v - max(values)) for v in values]
            weights = [e / math.fsum(exps) for e in exps]
            mean = math.fsum(w * v for w, v in zip(weights, values, strict=True))
            out[(*plane, *where)] = mean
            for cell, w, v in zip(cells, weights, values, strict=True):
                exact[cell] += w * (1 + (v - mean))
                paper[cell] += w
    return out, exact, paper


def gradient(x, ndim, *args, **kwargs):
    x = x.detach().requires_grad_()
    SOFT[ndim](x, *args, **kwargs).sum().backward()
    return x.grad


def randn(*shape, dtype=torch.float64, scale=3.0):
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))).to(dtype)


@st.composite
def poolings(draw):
    ndim = draw(st.integers(1, 3))
    per_dim = st.tuples
    leading = draw(st.sampled_from([(1,), (2,), (0, 1), (1, 2), (2, 1)]))
    size = draw(per_dim(*[st.integers(1, {1: 12, 2: 7, 3: 5}[ndim])] * ndim))
    kernel = draw(per_dim(*[st.integers(1, 4)] * ndim))
    stride = draw(st.none() | per_dim(*[st.integers(1, 4)] * ndim))
    padding = draw(per_dim(*[st.integers(0, 2)] * ndim))
    dilation = draw(per_dim(*[st.integers(1, 3)] * ndim))
    return ndim, leading + size, (kernel, stride, padding, dilation, draw(st.booleans()))


@settings(max_examples=150, derandomize=True)
@given(poolings())
def test_agrees_with_loops_and_accepts_what_max_pool_accepts(pooling):
    ndim, shape, geometry = pooling
    x = randn(*shape)
    try:
        MAX[ndim](x, *geometry)
    except RuntimeError:
        with pytest.raises(RuntimeError):
            SOFT[ndim](x, *geometry)
        return
    out, exact, paper = loops(x, ndim, *geometry)
    torch.testing.assert_close(SOFT[ndim](x, *geometry), out, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient(x, ndim, *geometry), exact, rtol=1e-12, atol=1e-12)
    paper_gradient = gradient(x, ndim, *geometry, gradient="paper")
    torch.testing.assert_close(paper_gradient, paper, rtol=1e-12, atol=1e-12)


@settings(max_examples=200, derandomize=True)
@given(st.integers(1, 200), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.booleans())
def test_output_size_is_max_pools(length, kernel, stride, dilation, ceil_mode):
    x = torch.zeros(1, length)
    geometry = (kernel, stride, kernel // 2, dilation, ceil_mode)
    try:
        expected = F.max_pool1d(x, *geometry).shape
    except RuntimeError:
        with pytest.raises(RuntimeError):
            soft_pool1d(x, *geometry)
    else:
        assert soft_pool1d(x, *geometry).shape == expected


GEOMETRIES = [
    pytest.param({"kernel_size": 2}, id="k=s"),
    pytest.param({"kernel_size": 3, "stride": 2, "padding": 1}, id="overlapping"),
    pytest.param({"kernel_size": 2, "stride": 3, "ceil_mode": True}, id="gaps"),
    pytest.param({"kernel_size": 3, "stride": 1, "padding": 1, "dilation": 2}, id="dilated"),
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_exact_gradient_is_the_derivative_and_has_one(ndim, geometry):
    side = 4 if ndim == 3 else 5  # the check computes every pair of cells
    x = randn(1, 1, *(side,) * ndim, scale=1.0).requires_grad_()
    torch.autograd.gradcheck(lambda x: SOFT[ndim](x, **geometry), x)
    torch.autograd.gradgradcheck(lambda x: SOFT[ndim](x, **geometry), x)


@pytest.mark.parametrize("values", [[1.5], [1.5, -300.0], [1.5, -1e4]])
def test_second_derivative_where_one_cell_has_all_the_weight(values):
    x = torch.tensor([[values]], dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(SOFT[1](x, len(values)).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert first[0, 0, 0].item() == 1
    assert second.abs().max() < 1e-12


def test_paper_gradient_is_the_softmax_where_windows_do_not_overlap():
    x = randn(2, 3, 4)
    expected = x.unflatten(-1, (2, 2)).softmax(-1).flatten(-2)
    torch.testing.assert_close(gradient(x, 1, 2, gradient="paper"), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_is_as_accurate_as_the_dtypes_rounding(ndim, dtype):
    x = randn(2, 2, *(5,) * ndim, dtype=dtype)
    geometry = {"kernel_size": 3, "stride": 2, "padding": 1}
    out, exact, _ = loops(x, ndim, **geometry)
    actual, actual_gradient = SOFT[ndim](x, **geometry), gradient(x, ndim, **geometry)
    assert actual.dtype == actual_gradient.dtype == dtype
    rtol = 0.51 * torch.finfo(dtype).eps  # only the result is rounded to a half type
    atol = 1e-14 if dtype == torch.float64 else 5e-6
    torch.testing.assert_close(actual.double(), out, rtol=rtol, atol=atol)
    torch.testing.assert_close(actual_gradient.double(), exact, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1e4, -1e4, 3.0, 1e4], torch.float32),
        ([6e4, 6e4, -6e4, 5.9e4], torch.float16),
        ([-300.0, -301.5, -299.0, -300.5], torch.float32),
        ([400.0, -400.0, 0.0, 399.0], torch.float32),
        ([3e38, -3e38, -3e38, 3e38], torch.float32),
        ([3e38, -3e38, -3e38, 2e38], torch.bfloat16),
    ],
)
def test_large_values_and_spreads_neither_overflow_nor_lose_accuracy(values, dtype):
    x = torch.tensor([values], dtype=dtype)
    out, exact, _ = loops(x, 1, 4)
    rtol = torch.finfo(dtype).eps
    torch.testing.assert_close(soft_pool1d(x, 4).double(), out, rtol=rtol, atol=0)
    # 1 + a - out is a small difference of large numbers unless it is taken around the maximum.
    torch.testing.assert_close(gradient(x, 1, 4).double(), exact, rtol=4 * rtol, atol=1e-6)


@pytest.mark.parametrize("offset", [-300.0, 300.0, 1e4])
def test_gradient_does_not_change_with_an_offset(offset):
    x = (randn(1, 4, 8, 8, scale=1.0) + offset).float()  # rounded: the loops see the same numbers
    _, exact, _ = loops(x, 2, 3, 2, 1)
    error = (gradient(x, 2, 3, 2, 1).double() - exact).abs().max() / exact.abs().max()
    assert error < 1e-6


def test_equal_values_give_their_mean_and_a_large_scale_the_maximum():
    x = torch.full((1, 2, 4, 4, 4), 1.7)
    assert torch.equal(soft_pool3d(x, 2), x[..., :2, :2, :2])
    x = randn(1, 2, 4, 4, 4, dtype=torch.float32)
    torch.testing.assert_close(soft_pool3d(1e4 * x, 2), 1e4 * F.max_pool3d(x, 2))


@given(st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4))
@settings(derandomize=True)
def test_lies_between_average_and_maximum(values):
    x = torch.tensor([values], dtype=torch.float32)
    tolerance = 1e-5 * (1 + x.abs().max())
    assert F.avg_pool1d(x, 4) - tolerance <= soft_pool1d(x, 4) <= x.max()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_inf_stay_in_their_window_and_channel(bad):
    x = randn(2, 2, 4, 4)
    clean = soft_pool2d(x, 2)
    clean_gradient = gradient(x, 2, 2)
    x[1, 0, 2, 3] = bad
    window = torch.zeros(2, 2, 2, 2, dtype=torch.bool)
    window[1, 0, 1, 1] = True
    cells = window.repeat_interleave(2, 2).repeat_interleave(2, 3)
    out, out_gradient = soft_pool2d(x, 2), gradient(x, 2, 2)
    assert torch.equal(out.isnan(), window)
    assert torch.equal(out[~window], clean[~window])
    assert out_gradient[1, 0, 2, 3].isnan()
    assert torch.equal(out_gradient[~cells], clean_gradient[~cells])


def test_minus_infinity_weighs_nothing():
    x = torch.tensor([[-math.inf, 1.0, 2.0, -math.inf, -math.inf, -math.inf]])
    out = soft_pool1d(x, 3)
    torch.testing.assert_close(out[0, 0], soft_pool1d(x[:, 1:3], 2)[0, 0])
    assert out[0, 1] == -math.inf
    grad = gradient(x[:, :3], 1, 3)
    assert grad[0, 0] == 0
    assert grad.isfinite().all()


def test_padding_weighs_nothing():
    x = torch.full((1, 1, 3), -50.0)
    assert torch.equal(soft_pool1d(x, 3, 2, 1), torch.full((1, 1, 2), -50.0))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (0, 3)])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_batch_dimension_is_optional_and_may_be_empty(ndim, shape):
    x = randn(*shape, *(4,) * ndim)
    assert SOFT[ndim](x, 2).shape == (*shape, *(2,) * ndim)
    assert gradient(x, ndim, 2).shape == x.shape
    if len(shape) == 1:
        assert torch.equal(SOFT[ndim](x, 2), SOFT[ndim](x[None], 2)[0])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ndim", [2, 3])
def test_memory_format_stays(ndim, dtype, channels):
    x = randn(2, channels, *(5,) * ndim, dtype=dtype)
    for memory_format in (torch.contiguous_format, CHANNELS_LAST[ndim]):
        out = SOFT[ndim](x.contiguous(memory_format=memory_format), 3, 2, 1)
        assert out.is_contiguous(memory_format=memory_format)
        assert torch.equal(out, SOFT[ndim](x, 3, 2, 1))


def test_takes_any_strides():
    x = randn(2, 6, 5, 4).transpose(1, 3)[:, :, ::2]
    assert torch.equal(soft_pool2d(x, 2), soft_pool2d(x.contiguous(), 2))


def test_an_int_a_single_entry_and_one_entry_a_dimension_mean_the_same():
    x = randn(1, 2, 6, 6, 6)
    expected = soft_pool3d(x, 3, 2, 1, 1)
    assert torch.equal(soft_pool3d(x, (3,), [2], (1,), (1,)), expected)
    assert torch.equal(soft_pool3d(x, [3, 3, 3], (2, 2, 2), (1, 1, 1), (1, 1, 1)), expected)


VIDEO = torch.zeros(1, 2, 8, 8, 8)


@pytest.mark.parametrize(
    ("x", "arguments", "error", "named"),
    [
        (VIDEO[0, 0], {}, RuntimeError, r"\(8, 8, 8\)"),
        (VIDEO[None], {}, RuntimeError, r"\(1, 1, 2, 8, 8, 8\)"),
        (VIDEO[:, :0], {}, RuntimeError, r"\(1, 0, 8, 8, 8\)"),
        (VIDEO[0, :0], {}, RuntimeError, r"\(0, 8, 8, 8\)"),
        (VIDEO[:, :, :0], {}, RuntimeError, r"\(1, 2, 0, 8, 8\)"),
        (VIDEO, {"kernel_size": 9}, RuntimeError, r"\(8, 8, 8\).*\(9, 9, 9\).*too small"),
        (VIDEO, {"kernel_size": 0}, RuntimeError, "kernel_size.*0"),
        (VIDEO, {"kernel_size": (2, -1, 2)}, RuntimeError, r"kernel_size.*\(2, -1, 2\)"),
        (VIDEO, {"kernel_size": (2, 2)}, RuntimeError, r"kernel_size.*3 ints.*\(2, 2\)"),
        (VIDEO, {"stride": ()}, RuntimeError, r"stride.*\(\)"),
        (VIDEO, {"kernel_size": 2.0}, TypeError, "kernel_size.*2.0"),
        (VIDEO, {"kernel_size": "2"}, TypeError, "kernel_size.*'2'"),
        (VIDEO, {"stride": 0}, RuntimeError, "stride.*0"),
        (VIDEO, {"dilation": -2}, RuntimeError, "dilation.*-2"),
        (VIDEO, {"padding": -1}, RuntimeError, "padding.*-1"),
        (VIDEO, {"padding": 2}, RuntimeError, "padding.*2.*kernel_size.*2"),
        (VIDEO, {"kernel_size": 3, "padding": 2, "dilation": 2}, RuntimeError, "padding.*2"),
        (VIDEO.int(), {}, NotImplementedError, "int32"),
        (VIDEO.bool(), {}, NotImplementedError, "bool"),
        (VIDEO.cfloat(), {}, NotImplementedError, "complex64"),
        (VIDEO, {"gradient": "approximate"}, ValueError, "exact.*paper.*approximate"),
    ],
)
def test_error_names_the_value(x, arguments, error, named):
    with pytest.raises(error, match=named):
        soft_pool3d(x, **{"kernel_size": 2} | arguments)


@pytest.mark.parametrize("gradient_kind", ["exact", pytest.param("paper", marks=pytest.mark.slow)])
def test_compiles_to_one_graph(gradient_kind):
    @torch.compile(fullgraph=True, backend="aot_eager")
    def pool(x):
        return soft_pool3d(x, 3, 2, 1, gradient=gradient_kind)

    for size in (5, 7, 8):
        x = randn(1, 2, 4, size, size, dtype=torch.float32).requires_grad_()
        out = pool(x)
        torch.testing.assert_close(out, soft_pool3d(x, 3, 2, 1))
        (grad,) = torch.autograd.grad(out.sum(), x)
        torch.testing.assert_close(grad, gradient(x, 3, 3, 2, 1, gradient=gradient_kind))


def test_vmap_pools_each_example():
    x = randn(3, 2, 4, 5, 5).contiguous(memory_format=torch.channels_last_3d)
    expected = soft_pool2d(x.transpose(1, 2).flatten(0, 1), 2).unflatten(0, (3, 4)).transpose(1, 2)
    actual = torch.vmap(lambda x: soft_pool2d(x, 2), in_dims=2, out_dims=2)(x)
    torch.testing.assert_close(actual, expected)


def test_autocast_leaves_the_dtype():
    with torch.autocast("cpu", torch.bfloat16):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            assert soft_pool2d(randn(1, 4, 4, dtype=dtype), 2).dtype == dtype
