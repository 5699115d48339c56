"""The CUDA kernels' arithmetic, run on the host thread by thread: it needs g++ but no GPU."""

import ctypes
import random
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from vidpool.ops.geometry import make_window
from vidpool.ops.reference import soft_pool

GXX = shutil.which("g++")
pytestmark = pytest.mark.skipif(GXX is None, reason="needs g++")

INT32 = 2**31 - 1
TOLERANCE = {torch.float32: 4e-6, torch.float64: 1e-12}
MARGIN = 64  # elements before and after each tensor, which nothing may read or write
STEPS = ("forward", "spread", "prepare", "gather")
ACCESS = {  # by channels, windows side by side, and whether the windows are centred
    (1, 1, 0): "single",
    (1, 2, 1): "quads",
    (4, 1, 0): "channels",
    (4, 1, 1): "centred channels",
}


@pytest.fixture(scope="module")
def threads(tmp_path_factory):
    library = tmp_path_factory.mktemp("cuda_on_host") / "threads.so"
    source = Path(__file__).with_name("cuda_on_host.cpp")
    flags = ["-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([GXX, *flags, "-o", library, source], check=True)
    return ctypes.CDLL(str(library))


class Memory:
    """A tensor in memory without gaps, in one layout, with a margin around it.

    `offset` elements lie between the place that vectors need and the tensor.
    """

    def __init__(self, values, channels_last, offset=0):
        dense = (values.movedim(1, -1) if channels_last else values).contiguous()
        room = torch.full((dense.numel() + 2 * MARGIN + offset,), torch.nan, dtype=values.dtype)
        self.cells = room[MARGIN + offset :][: dense.numel()].view(dense.shape)
        self.cells.copy_(dense)
        self.margins = (room[: MARGIN + offset], room[MARGIN + offset + dense.numel() :])
        self.channels_last = channels_last
        assert room.data_ptr() % 64 == 0

    def read(self):
        assert all(margin.isnan().all() for margin in self.margins)
        return self.cells.movedim(-1, 1) if self.channels_last else self.cells


def run(threads, x, window, gradient, grad=None, channels_last=False, limit=INT32, offset=0):
    """The result, or with `grad` the gradient of x, and the name of the kernel that wrote it."""
    sizes, counts = x.shape[2:], window.output_size(x.shape[2:])
    axes = [(1, 1, 1, 1, 0, 1)] * (3 - len(sizes)) + list(
        zip(sizes, counts, *(window[i] for i in range(4)), strict=True)
    )
    batch, channels = x.shape[:2]
    maps = (batch, channels) if channels_last else (batch * channels, 1)
    numbers = (ctypes.c_int64 * 20)(*maps, *(number for axis in axes for number in axis))
    shape = x.shape if grad is not None else (*x.shape[:2], *counts)
    memory = [
        None if values is None else Memory(values, channels_last, offset)
        for values in (grad, x, torch.full(shape, torch.nan, dtype=x.dtype))
    ]
    last = (ctypes.c_int * 7)()
    function = threads.run_double if x.dtype == torch.float64 else threads.run_float
    function(
        numbers,
        ctypes.c_bool(gradient == "paper"),
        ctypes.c_int64(limit),
        *(m and ctypes.c_void_p(m.cells.data_ptr()) for m in memory),
        last,
    )
    step, kernel_t, kernel, *access, bits = last
    shape = f"{kernel_t}x{kernel}x{kernel}" if kernel else "any"
    return memory[2].read(), f"{STEPS[step]} {shape} {ACCESS.get(tuple(access))} {bits}"


def check(threads, x, window, **options):
    """Compare both passes with the definition in float64; return the names of the last kernels."""
    names = []
    for gradient in ("exact", "paper"):
        wide = x.double().requires_grad_()
        expected = soft_pool(wide, window, gradient)
        grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(x.dtype)
        (expected_grad,) = torch.autograd.grad(expected, wide, grad.double())
        results = run(threads, x, window, gradient, **options)
        gradients = run(threads, x, window, gradient, grad, **options)
        tolerance = TOLERANCE[x.dtype]
        for actual, wanted in ((results[0], expected), (gradients[0], expected_grad)):
            torch.testing.assert_close(
                actual.double(), wanted.detach(), rtol=tolerance, atol=tolerance, equal_nan=True
            )
        names += [results[1], gradients[1]]
    assert names[:2] == names[2:]
    return names[:2]


def randn(*shape, dtype=torch.float32, holes=0.1, scale=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    return x.masked_fill_(torch.rand(shape, generator=generator) < holes, -torch.inf).to(dtype)


SHAPES = {
    "2x2x2": {"kernel_size": 2},
    "1x2x2": {"kernel_size": (1, 2, 2)},
    "3x3x3": {"kernel_size": 3, "stride": 2, "padding": 1},
    "1x3x3": {"kernel_size": (1, 3, 3), "stride": (1, 2, 2), "padding": (0, 1, 1)},
}
OTHERS = {
    "unpadded": {"kernel_size": 3, "stride": 2},
    "stride 1": {"kernel_size": 3, "stride": 1, "padding": 1},
    "disjoint": {"kernel_size": 3},
    "gaps": {"kernel_size": 2, "stride": 3},
    "overlapping pairs": {"kernel_size": 2, "stride": 1},
    "strides 1, 2, 3": {"kernel_size": 3, "stride": (1, 2, 3), "padding": (1, 0, 1)},
    "strides 3, 1, 2": {"kernel_size": (1, 3, 3), "stride": (3, 1, 2), "padding": (0, 1, 1)},
    "dilated": {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2},
    "dilated, disjoint": {"kernel_size": 2, "stride": 4, "dilation": 3},
    "over time": {"kernel_size": (3, 1, 1), "stride": (2, 1, 1), "padding": (1, 0, 0)},
    "in a row": {"kernel_size": (1, 1, 3), "stride": (1, 1, 2), "padding": (0, 0, 1)},
}


# the size of the windows in OTHERS that the compiler knows; all else is "any"
KNOWN_SIZE = {
    "unpadded": "3x3x3",
    "stride 1": "3x3x3",
    "disjoint": "3x3x3",
    "gaps": "2x2x2",
    "strides 1, 2, 3": "3x3x3",
    "strides 3, 1, 2": "1x3x3",
}


def window_of(kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, ndim=3):
    return make_window(ndim, kernel_size, stride, padding, dilation, ceil_mode)


def expected_names(shape, access, bits=32):
    step = "gather" if shape.endswith("3") else "spread"
    if access == "channels" and step == "gather":
        access = "centred channels"
    return [f"{step} {shape} {access} {bits}" for step in ("forward", step)]


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("size", [(4, 6, 8), (5, 11, 12), (4, 7, 14), (3, 18, 7), (2, 3, 4)])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_of_common_windows(threads, shape, size, ceil_mode):
    window = window_of(**SHAPES[shape], ceil_mode=ceil_mode)
    x = randn(2, 4, *size)
    is_aligned = size[-1] % 4 == 0 and window.output_size(size)[-1] * 2 == size[-1]
    access = "quads" if is_aligned else "single"
    assert check(threads, x, window) == expected_names(shape, access)
    assert check(threads, x, window, channels_last=True) == expected_names(shape, "channels")
    x = x[:, :3]  # no vectors of channels
    assert check(threads, x, window, channels_last=True) == expected_names(shape, "single")


@pytest.mark.parametrize("shape", SHAPES)
def test_addresses_that_vectors_cannot_take(threads, shape):
    window = window_of(**SHAPES[shape])
    for channels_last in (False, True):
        options = {"channels_last": channels_last, "offset": 1}
        names = check(threads, randn(2, 4, 4, 4, 4), window, **options)
        assert names == expected_names(shape, "single")


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("other", [*OTHERS, *SHAPES])
def test_kernels_of_any_window(threads, other, ceil_mode, dtype):
    window = window_of(**(SHAPES | OTHERS)[other], ceil_mode=ceil_mode)
    x = randn(2, 3, 5, 6, 9, dtype=dtype)
    size = "any" if dtype == torch.float64 else KNOWN_SIZE.get(other, "any")
    if other in SHAPES and dtype != torch.float64:
        size = other
    for channels_last in (False, True):
        names = check(threads, x, window, channels_last=channels_last)
        assert all(f" {size} single 32" in name for name in names)
        # so many that 32 bits do not count them, in one map and in all
        names = check(threads, x, window, channels_last=channels_last, limit=8)
        assert all(name.endswith("any single 64") for name in names)
        names = check(threads, x, window, channels_last=channels_last, limit=3 * 5 * 6 * 9)
        assert all(name.endswith("32") for name in names)


@pytest.mark.parametrize("size", [(5, 6, 9), (4, 7, 8)])
@pytest.mark.parametrize("other", KNOWN_SIZE)
def test_any_stride_and_padding(threads, other, size):
    """Windows of known sizes use vectors of channels, however far apart they are."""
    for ceil_mode in (False, True):
        window = window_of(**OTHERS[other], ceil_mode=ceil_mode)
        names = check(threads, randn(2, 8, *size), window, channels_last=True)
        assert all(f" {KNOWN_SIZE[other]} channels 32" in name for name in names)
        names = check(threads, randn(2, 8, *size), window)
        assert all(f" {KNOWN_SIZE[other]} single 32" in name for name in names)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_random_windows(threads, ndim):
    draw = random.Random(ndim)
    for seed in range(60):
        size = [draw.randint(1, {1: 20, 2: 9, 3: 6}[ndim]) for _ in range(ndim)]
        kernel = [draw.randint(1, 4) for _ in range(ndim)]
        window = make_window(
            ndim,
            kernel,
            [draw.randint(1, 4) for _ in range(ndim)],
            [draw.randint(0, k // 2) for k in kernel],
            [draw.choice((1, 1, 2, 3)) for _ in range(ndim)],
            draw.random() < 0.5,
        )
        try:
            window.output_size(size)
        except RuntimeError:
            continue
        x = randn(2, draw.choice((1, 3, 4)), *size, seed=seed, dtype=draw.choice([*TOLERANCE]))
        limit = draw.choice((INT32, x[0].numel()))
        check(threads, x, window, channels_last=draw.random() < 0.5, limit=limit)


@pytest.mark.parametrize("shape", [*SHAPES, "stride 1"])
def test_large_values_cost_no_accuracy(threads, shape):
    window = window_of(**(SHAPES | OTHERS)[shape])
    for offset, scale in ((-300.0, 1.0), (1e4, 1.0), (0.0, 100.0), (0.0, 1e38)):
        x = (randn(1, 4, 4, 8, 8, holes=0, scale=scale) + offset).float()
        wide = x.double().requires_grad_()
        expected = soft_pool(wide, window, "exact")
        (expected_grad,) = torch.autograd.grad(expected.sum(), wide)
        for channels_last in (False, True):
            out, _ = run(threads, x, window, "exact", channels_last=channels_last)
            torch.testing.assert_close(out.double(), expected.detach(), rtol=2e-7, atol=2e-6)
            grad = torch.ones_like(out)
            actual, _ = run(threads, x, window, "exact", grad, channels_last=channels_last)
            error = (actual.double() - expected_grad).abs().max() / expected_grad.abs().max()
            assert error < 1e-6


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("shape", [*SHAPES, "stride 1"])
def test_nan_and_inf_stay_in_their_windows(threads, shape, bad):
    window = window_of(**(SHAPES | OTHERS)[shape])
    x = randn(2, 4, 4, 6, 8, holes=0)
    x[1, 2, 2, 3, 5] = bad
    expected = soft_pool(x, window, "exact")
    zeros = torch.zeros_like(x).requires_grad_()
    reached = soft_pool(zeros, window, "exact")[expected.isnan()].sum()
    in_its_windows = torch.autograd.grad(reached, zeros)[0] != 0
    for channels_last in (False, True):
        out, _ = run(threads, x, window, "exact", channels_last=channels_last)
        assert torch.equal(out.isnan(), expected.isnan())
        grad = torch.ones_like(out)
        actual, _ = run(threads, x, window, "exact", grad, channels_last=channels_last)
        assert actual[1, 2, 2, 3, 5].isnan()
        assert actual[~in_its_windows].isfinite().all()


def test_an_empty_batch(threads):
    window = window_of(2)
    x = torch.zeros(0, 4, 2, 2, 2)
    out, _ = run(threads, x, window, "exact")
    assert out.shape == (0, 4, 1, 1, 1)
    assert run(threads, x, window, "exact", out)[0].shape == x.shape
