"""The CUDA kernels against the reference in float64 on the CPU, and their manners in PyTorch."""

import pytest
import torch
from accuracy import EXTREMES, TOLERANCE
from torch.library import opcheck

from vidpool.ops import operator, reference, soft_pool1d, soft_pool2d, soft_pool3d
from vidpool.ops.geometry import make_window

DEVICE = "cuda"
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.skipif(DEVICE not in operator.COMPILED, reason="the kernels are not compiled"),
]

SOFT = {1: soft_pool1d, 2: soft_pool2d, 3: soft_pool3d}
GEOMETRIES = {
    "k2": {"kernel_size": 2},
    "k122": {"kernel_size": (1, 2, 2)},
    "k3": {"kernel_size": 3, "stride": 2, "padding": 1},
    "k133": {"kernel_size": (1, 3, 3), "stride": (1, 2, 2), "padding": (0, 1, 1)},
    "unpadded": {"kernel_size": 3, "stride": 2},
    "stride 1": {"kernel_size": 3, "stride": 1, "padding": 1},
    "disjoint": {"kernel_size": (2, 3, 3)},
    "gaps": {"kernel_size": 2, "stride": 3},
    "dilated": {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2},
    "over time": {"kernel_size": (3, 1, 1), "stride": (2, 1, 1), "padding": (1, 0, 0)},
}
COMMON = ["k2", "k122", "k3", "k133"]
# columns: for vectors of 4, for vectors of 2, odd
SIZES = [(4, 9, 16), (5, 14, 14), (8, 7, 7)]
LAYOUTS = ["contiguous", "channels_last", "strided", "misaligned"]


def window_of(geometry, ceil_mode=False, ndim=3):
    window = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": ceil_mode} | geometry
    return make_window(ndim, **window)


def randn(*shape, dtype=torch.float32, seed=0, device=DEVICE):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.to(device, dtype)


def in_layout(x, layout):
    """The same values in memory as the layout's name says."""
    if layout == "channels_last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "strided":
        return x.transpose(-1, 0).contiguous().transpose(-1, 0)
    if layout == "misaligned":
        return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)
    return x


def pool(x, window, gradient="exact", grad=None):
    """The result and the gradient of x, for a gradient of the result of `grad` or ones."""
    leaf = x.detach().requires_grad_()
    out = operator.soft_pool(leaf, window, gradient)
    grad = torch.ones_like(out) if grad is None else grad
    return out.detach(), torch.autograd.grad(out, leaf, grad)[0]


def agrees(x, window, gradient="exact"):
    exact = x.detach().cpu().double().requires_grad_()
    expected = reference.soft_pool(exact, window, gradient)
    grad = randn(*expected.shape, dtype=x.dtype, seed=1)
    (expected_grad,) = torch.autograd.grad(expected, exact, grad.cpu().double())
    out, actual_grad = pool(x, window, gradient, grad)
    assert out.dtype == actual_grad.dtype == x.dtype
    assert out.device == actual_grad.device == x.device
    tolerance = TOLERANCE[x.dtype]
    torch.testing.assert_close(out.cpu().double(), expected, rtol=tolerance, atol=tolerance)
    # a cell's gradient is a sum over windows of weight * (1 + z - mean of z)
    values = exact.detach()[exact.isfinite()]
    spread = 1 + (values.max() - values.min()).clamp(max=100).item()
    torch.testing.assert_close(
        actual_grad.cpu().double(), expected_grad, rtol=tolerance, atol=4 * tolerance * spread
    )


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_agrees_with_the_reference(geometry, layout, dtype):
    for size in SIZES:
        for ceil_mode in (False, True):
            window = window_of(GEOMETRIES[geometry], ceil_mode)
            x = 3 * randn(2, 8, *size, dtype=dtype)
            x[randn(2, 8, *size, seed=2) > 1] = -torch.inf
            agrees(in_layout(x, layout), window)
            agrees(in_layout(x, layout), window, "paper")
            agrees(in_layout(x[:, :3], layout), window)  # no vectors of channels


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_public_functions(ndim, dtype):
    for shape in ((2, 4), (4,), (0, 4)):
        x = randn(*shape, *(8,) * ndim, dtype=dtype).requires_grad_()
        for arguments in ((2,), (3, 2, 1), (3, 1, 1, 2, True)):
            out = SOFT[ndim](x, *arguments)
            expected = SOFT[ndim](x.detach().cpu().double(), *arguments)
            tolerance = TOLERANCE[dtype]
            torch.testing.assert_close(out.cpu().double(), expected, rtol=tolerance, atol=tolerance)
            assert torch.autograd.grad(out.sum(), x)[0].shape == x.shape  # grad has strides of 0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("geometry", [*COMMON, "stride 1", "gaps"])
def test_memory_format_stays(geometry, layout):
    x = in_layout(randn(2, 4, 4, 6, 8), layout)
    out, grad = pool(x, window_of(GEOMETRIES[geometry]))
    expected = torch.channels_last_3d if layout == "channels_last" else torch.contiguous_format
    assert out.is_contiguous(memory_format=expected)
    assert grad.shape == x.shape


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("geometry", [*COMMON, "stride 1"])
@pytest.mark.parametrize(("dtype", "make"), EXTREMES.values(), ids=EXTREMES)
def test_extreme_values(dtype, make, geometry, layout):
    x = make(randn(2, 4, 4, 8, 8, dtype=torch.float64)).to(dtype)
    agrees(in_layout(x, layout), window_of(GEOMETRIES[geometry]))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("geometry", [*COMMON, "stride 1"])
def test_nan_and_inf_stay_in_their_windows(geometry, layout, bad):
    window = window_of(GEOMETRIES[geometry])
    x = randn(2, 4, 4, 8, 8)
    clean, clean_grad = pool(in_layout(x, layout), window)
    x[1, 2, 2, 3, 5] = bad
    out, grad = pool(in_layout(x, layout), window)
    reached = reference.soft_pool(x.cpu(), window, "exact").isnan().to(DEVICE)
    assert torch.equal(out.isnan(), reached)
    assert torch.equal(out[~reached], clean[~reached])
    cells = pool(torch.zeros_like(x), window, grad=reached.float())[1] != 0
    assert grad[1, 2, 2, 3, 5].isnan()
    assert torch.equal(grad[~cells], clean_grad[~cells])


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("geometry", [*COMMON, "stride 1"])
def test_is_the_same_bit_for_bit(geometry, layout):
    window = window_of(GEOMETRIES[geometry])
    x = in_layout(randn(4, 32, 8, 28, 28), layout)
    first = pool(x, window)
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(3):
            for a, b in zip(first, pool(x, window), strict=True):
                assert torch.equal(a, b)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("geometry", ["k2", "k3", "gaps"])
def test_runs_on_the_current_stream(geometry):
    window = window_of(GEOMETRIES[geometry])
    x = randn(8, 64, 8, 28, 28)
    expected = pool(x, window)
    y = torch.zeros_like(x)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # the default stream would not wait for it
        y.copy_(x)
        actual = pool(y, window)
    stream.synchronize()
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("geometry", ["k2", "k3", "gaps"])
def test_cuda_graph(geometry):
    window = window_of(GEOMETRIES[geometry])
    x = torch.zeros(2, 8, 4, 15, 16, device=DEVICE)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        pool(x, window)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        actual = pool(x, window)
    for seed in range(3):
        x.copy_(randn(*x.shape, seed=seed))
        graph.replay()
        for a, b in zip(actual, pool(x, window), strict=True):
            assert torch.equal(a, b)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_another_device_than_the_current_one():
    assert torch.cuda.current_device() == 0
    x = randn(2, 4, 4, 8, 8, dtype=torch.bfloat16)
    for geometry in GEOMETRIES.values():
        window = window_of(geometry)
        for a, b in zip(pool(x.to("cuda:1"), window), pool(x, window), strict=True):
            assert a.device == torch.device("cuda:1")
            assert torch.equal(a.cpu(), b.cpu())


def skip_unless_free(gigabytes):
    if torch.cuda.mem_get_info()[0] < gigabytes * 2**30:
        pytest.skip(f"needs {gigabytes} GB of free GPU memory")


@pytest.mark.parametrize("geometry", ["k2", "k3"])
def test_more_than_2_to_the_31_elements_in_many_maps(geometry):
    skip_unless_free(24)
    window = window_of(GEOMETRIES[geometry])
    x = torch.randn(1100, 16, 8, 128, 120, device=DEVICE, dtype=torch.bfloat16)
    assert x.numel() > 2**31
    out, grad = pool(x, window)
    for i in (0, 500, 1099):
        few_out, few_grad = pool(x[i : i + 1], window)
        assert torch.equal(out[i : i + 1], few_out)
        assert torch.equal(grad[i : i + 1], few_grad)


@pytest.mark.parametrize("geometry", ["k2", "k3"])
def test_more_than_2_to_the_31_elements_in_one_map(geometry):
    skip_unless_free(32)
    window = window_of(GEOMETRIES[geometry])
    x = torch.randn(1, 34, 4096, 2048, 8, device=DEVICE, dtype=torch.bfloat16).movedim(-1, 1)
    assert x.numel() > 2**31
    out, grad = pool(x, window)
    # the last planes alone, but for those whose windows reach further back
    few_out, few_grad = pool(x[:, :, -8:], window)
    tolerance = TOLERANCE[x.dtype]  # other kernels add up in another order
    for whole, few in ((out, few_out[:, :, 1:]), (grad, few_grad[:, :, 2:])):
        end = whole[:, :, -few.shape[2] :]
        torch.testing.assert_close(end, few, rtol=2 * tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_autocast_leaves_the_dtype(dtype):
    x = randn(2, 4, 4, 8, 8, dtype=dtype).requires_grad_()
    with torch.autocast("cuda", torch.float16):
        out = soft_pool3d(x, 3, 2, 1)
    assert out.dtype == dtype
    assert torch.autograd.grad(out.sum(), x)[0].dtype == dtype


def test_gradcheck():
    for geometry in ("k2", "k3", "dilated"):
        window = window_of(GEOMETRIES[geometry])
        x = randn(1, 2, 5, 5, 6, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, w=window: operator.soft_pool(x, w, "exact"), x)


def test_opcheck():
    window = window_of(GEOMETRIES["k3"])
    arguments = (*map(list, window[:-1]), window.ceil_mode, "exact")
    for layout in ("contiguous", "channels_last"):
        x = in_layout(randn(2, 4, 4, 6, 8), layout)
        opcheck(torch.ops.vidpool.soft_pool.default, (x.detach().requires_grad_(), *arguments))
        grad = torch.ops.vidpool.soft_pool(x, *arguments)
        opcheck(torch.ops.vidpool.soft_pool_backward.default, (grad, x, *arguments))


def test_errors_name_the_value():
    x = randn(1, 2, 4, 4)
    arguments = ([2, 2], [2, 2], [0, 0], [1, 1], False)
    with pytest.raises(RuntimeError, match="steep"):
        torch.ops.vidpool.soft_pool(x, *arguments, "steep")
    with pytest.raises(RuntimeError, match="float16"):
        torch.ops.vidpool.soft_pool(x.int(), *arguments, "exact")
    with pytest.raises(RuntimeError, match=r"\(1, 2, 2, 2\).*\(1, 2, 4, 4\)"):
        torch.ops.vidpool.soft_pool_backward(x, x, *arguments, "exact")
    grad = torch.zeros(1, 2, 2, 2)
    with pytest.raises(RuntimeError, match="device"):
        torch.ops.vidpool.soft_pool_backward(grad, x, *arguments, "exact")
