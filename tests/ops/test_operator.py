"""The compiled kernels against the reference in float64, and their manners in PyTorch."""

import os
import shutil
import subprocess
import sys
import warnings
from functools import partial

import pytest
import torch
from accuracy import EXTREMES, TOLERANCE
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.library import opcheck

from vidpool.ops import operator, reference, soft_pool1d, soft_pool2d, soft_pool3d
from vidpool.ops.geometry import make_window

needs_kernels = pytest.mark.skipif("cpu" not in operator.COMPILED, reason="not compiled")
K2 = make_window(3, 2, None, 0, 1, False)
K3 = make_window(3, 3, 2, 1, 1, False)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def in_layout(x, layout):
    """The same values, contiguous, channels-last or with strides of no known layout."""
    if layout == "channels_last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "strided":
        return x.transpose(-1, 0).contiguous().transpose(-1, 0)
    return x


def agrees(x, window, gradient, tolerance=None, equal_nan=False):
    """Compare forward and backward with the reference in float64, errors as max pooling's scale."""
    exact = x.detach().double().requires_grad_()
    expected = reference.soft_pool(exact, window, gradient)
    grad = randn(*expected.shape, seed=1).to(x.dtype)
    (expected_grad,) = torch.autograd.grad(expected, exact, grad.double())
    leaf = x.detach().requires_grad_()
    out = operator.soft_pool(leaf, window, gradient)
    (actual_grad,) = torch.autograd.grad(out, leaf, grad)
    assert out.dtype == actual_grad.dtype == x.dtype
    tolerance = tolerance or TOLERANCE[x.dtype]
    close = partial(torch.testing.assert_close, rtol=tolerance, equal_nan=equal_nan)
    close(out.double(), expected, atol=tolerance)
    # a cell's gradient is a sum over windows of weight * (1 + z - mean of z)
    values = x.double()[x.isfinite()]
    spread = 1 + (values.max() - values.min()).clamp(max=100).item()
    atol = tolerance * spread * max(1, grad.double().abs().max().item())
    close(actual_grad.double(), expected_grad, atol=atol)
    return out, actual_grad


@pytest.mark.skipif(os.environ.get("VIDPOOL_KERNELS") == "none", reason="not wanted")
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
def test_the_kernels_are_built_where_they_can_be():
    assert "cpu" in operator.COMPILED


@st.composite
def calls(draw):
    ndim = draw(st.integers(1, 3))
    sizes = draw(st.tuples(*[st.integers(1, {1: 90, 2: 40, 3: 18}[ndim])] * ndim))
    kernel = draw(st.tuples(*[st.integers(1, 4)] * ndim))
    window = make_window(
        ndim,
        kernel,
        draw(st.tuples(*[st.integers(1, 4)] * ndim)),
        tuple(draw(st.integers(0, k // 2)) for k in kernel),
        draw(st.tuples(*[st.integers(1, 3)] * ndim)),
        draw(st.booleans()),
    )
    shape = (draw(st.integers(1, 2)), draw(st.sampled_from([1, 3, 16, 21, 150])), *sizes)
    dtype = draw(st.sampled_from(list(TOLERANCE)))
    layout = draw(st.sampled_from(["contiguous", "channels_last", "strided"]))
    scale, offset = draw(st.sampled_from([(1, 0), (30, 0), (1, 300)]))
    holes = draw(st.booleans())
    gradient = draw(st.sampled_from(["exact", "paper"]))
    return shape, window, dtype, layout, scale, offset, holes, gradient


@pytest.mark.usefixtures("kernels")
@settings(max_examples=100, derandomize=True)
@given(call=calls())
def test_agrees_with_the_reference(call):
    shape, window, dtype, layout, scale, offset, holes, gradient = call
    try:
        window.output_size(shape[2:])
    except RuntimeError:
        assume(False)
    x = (scale * randn(*shape) + offset).to(dtype)
    if holes:
        x[randn(*shape, seed=2) > 1] = -torch.inf
    agrees(in_layout(x, layout), window, gradient)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("window", [K2, K3], ids=["k2", "k3"])
@pytest.mark.parametrize(("dtype", "make"), EXTREMES.values(), ids=EXTREMES)
def test_any_finite_value_is_pooled_exactly(dtype, make, window, layout):
    x = in_layout(make(randn(1, 17, 5, 9, 9).double()).to(dtype), layout)
    # at 1e4 float32 itself has steps of 1e-3
    out, grad = agrees(x, window, "exact", {torch.float32: 1e-5}.get(dtype))
    assert out.isfinite().all()
    assert grad.isfinite().all()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("gradient", ["exact", "paper"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("value", [16, -16, 17, -17, 300, -1e30, -torch.inf, torch.nan])
@pytest.mark.parametrize("frame", [0, 8])
def test_one_large_value_among_small_ones(value, frame, layout, gradient):
    # where windows overlap the kernels take a shorter way, until they meet a large value
    x = in_layout(randn(2, 3, 9, 12, 11), layout)
    x[0, 1, frame, 11, 10] = value
    out, grad = agrees(x, K3, gradient, equal_nan=True)
    assert torch.equal(out[1], operator.soft_pool(x[1:], K3, gradient)[0])
    assert grad[1].isfinite().all()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("offset", [-15, 0, 15])
def test_values_up_to_where_the_shorter_way_ends(dtype, offset):
    x = torch.rand(2, 5, 6, 20, 20, generator=torch.Generator().manual_seed(0)).double()
    spread = 31 if offset == 0 else 1
    agrees((offset + spread * (x - 0.5)).to(dtype), K3, "exact")


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("channels", [15, 16, 17, 65, 70, 137, 150, 193])
@pytest.mark.parametrize("scale", [1, 30])  # with 30, no value is pooled cell by cell
@pytest.mark.parametrize("window", [(3, 2, 1), (2, 2, 0), (2, 3, 1)])
def test_any_number_of_channels_in_channels_last(channels, scale, window):
    x = in_layout(scale * randn(1, channels, 28, 28), "channels_last")
    agrees(x, make_window(2, *window, 1, False), "exact")


@pytest.mark.usefixtures("kernels")
def test_large_strides_and_dilations_need_little_memory():
    x = randn(2, 150, 54)
    assert torch.equal(soft_pool1d(x, 1, 2**30), x[..., :1])
    x = randn(2, 9, 9, 5, 5)  # the window's second frame lies far behind the last
    far = 10**9
    out = soft_pool3d(x, (2, 1, 1), (far, 1, 1), 0, (far, 1, 1), ceil_mode=True)
    torch.testing.assert_close(out, x[:, :, :1])


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding", "dilation"),
    [
        ((2, 3, 9), 9, 1, 0, 2**61),
        ((2, 3, 9), 3, 1, 0, 2**63 - 1),
        ((2, 3, 9), 3, 1, 0, 2**31 - 1),
        ((2, 3, 9), 3, 2**63 - 1, 0, 1),
        ((2, 3, 9, 9, 9), (3, 1, 1), 1, 0, (2**63 - 1, 1, 1)),
        ((2, 3, 9, 9), (1, 2**62), 1, (0, 2**61), 1),
    ],
)
def test_absurd_sizes_are_errors(shape, kernel, stride, padding, dilation):
    with pytest.raises(RuntimeError):
        operator.soft_pool(
            randn(*shape),
            make_window(len(shape) - 2, kernel, stride, padding, dilation, False),
            "exact",
        )


@needs_kernels
def test_absurd_sizes_are_errors_of_the_operator():
    x = randn(2, 3, 9, 9, 9)
    for kernel, padding, dilation in [(2**22, 2**21, 1), (2**31, 2**30, 1), (3, 1, 2**62)]:
        with pytest.raises(RuntimeError, match=str(max(kernel, dilation))):
            torch.ops.vidpool.soft_pool(
                x, [kernel] * 3, [1] * 3, [padding] * 3, [dilation] * 3, False, "exact"
            )


@needs_kernels
def test_takes_a_lazy_copy():
    x = randn(4, 64, 56, 56)
    assert torch.equal(soft_pool2d(torch._lazy_clone(x), 3, 2, 1), soft_pool2d(x, 3, 2, 1))


@needs_kernels
@pytest.mark.filterwarnings("ignore:.*torch.jit|Converting a tensor")
def test_traces_and_differentiates_forwards(tmp_path):
    x, tangent = randn(1, 2, 8, 8), randn(1, 2, 8, 8, seed=1)
    traced = torch.jit.trace(lambda x: soft_pool2d(x, 2), x)
    torch.jit.save(traced, str(tmp_path / "pool.pt"))
    torch.testing.assert_close(torch.jit.load(str(tmp_path / "pool.pt"))(x), soft_pool2d(x, 2))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        out = torch.autograd.forward_ad.unpack_dual(soft_pool2d(dual, 2))
    expected = torch.func.jvp(lambda x: soft_pool2d(x, 2), (x,), (tangent,))
    torch.testing.assert_close((out.primal, out.tangent), expected)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_nan_reaches_no_other_window_of_a_narrow_map(bad, layout):
    # rows of 7 share vectors; 20 channels too
    x = randn(2, 20, 4, 14, 14)
    x[1, 3, 0, 13, 13] = x[1, 3, 1, 5, 13] = bad
    x = in_layout(x, layout).requires_grad_()
    out = operator.soft_pool(x, K3, "exact")
    clean = x.detach().nan_to_num(0, 0).requires_grad_()
    expected = operator.soft_pool(clean, K3, "exact")
    (touched,) = torch.autograd.grad(
        expected,
        clean,
        torch.zeros_like(expected).masked_fill(out.isnan(), 1),
        retain_graph=True,
    )
    assert out.isnan().sum() == 1 + 4  # the second lies in two windows in time and height
    torch.testing.assert_close(out[~out.isnan()], expected[~out.isnan()])
    (grad,) = torch.autograd.grad(out.sum(), x)
    (expected_grad,) = torch.autograd.grad(expected.sum(), clean)
    away = touched == 0
    torch.testing.assert_close(grad[away], expected_grad[away])
    assert grad[~away].isnan().any()


def samples():
    for ndim, shape in ((1, (2, 3, 9)), (2, (2, 3, 9, 8)), (3, (2, 3, 4, 9, 8)), (3, (3, 4, 9, 8))):
        x = randn(*shape)
        for layout in (
            ("contiguous", "channels_last") if len(shape) == ndim + 2 else ("contiguous",)
        ):
            yield in_layout(x, layout), make_window(ndim, 3, 2, 1, 1, False)


@needs_kernels
@pytest.mark.parametrize("gradient", ["exact", pytest.param("paper", marks=pytest.mark.slow)])
def test_opcheck(gradient):
    for x, window in samples():
        arguments = (*map(list, window[:-1]), window.ceil_mode, gradient)
        leaf = x.detach().requires_grad_()
        opcheck(torch.ops.vidpool.soft_pool.default, (leaf, *arguments))
        grad = torch.ops.vidpool.soft_pool(x, *arguments)
        opcheck(torch.ops.vidpool.soft_pool_backward.default, (grad, x, *arguments))


@pytest.mark.usefixtures("kernels")
def test_gradcheck():
    for x, window in samples():
        x = x.double().requires_grad_()
        assert torch.autograd.gradcheck(lambda x, w=window: operator.soft_pool(x, w, "exact"), x)
    x = randn(1, 2, 2, 3, 3).double().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: soft_pool3d(x, 2, 1), x)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saves_its_input_alone(dtype):
    saved = []
    x = randn(2, 3, 4, 8, 8).to(dtype).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        soft_pool3d(x, 3, 2, 1)
    assert [t.data_ptr() for t in saved] == [x.data_ptr()]


@needs_kernels
@pytest.mark.parametrize("shape", [(2, 3, 8, 56, 56), (1, 1, 2, 300, 200), (4, 64, 4, 14, 14)])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_backward_is_the_same_bit_for_bit_with_any_number_of_threads(shape, layout):
    x = in_layout(randn(*shape), layout).requires_grad_()
    results = []
    before = torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    try:
        for threads in (1, 2, 5, 2):
            torch.set_num_threads(threads)
            out = operator.soft_pool(x, K3, "exact")
            results.append((out, *torch.autograd.grad(out, x, torch.ones_like(out))))
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(before)
    for out, grad in results[1:]:
        assert torch.equal(out, results[0][0])
        assert torch.equal(grad, results[0][1])


@needs_kernels
def test_compiles_once_for_shapes_that_vary():
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

    @torch.compile(fullgraph=True, dynamic=True, backend=counter)
    def pool(x):
        return soft_pool3d(x, 3, 2, 1) * 2

    for size in (6, 9, 12, 15):
        x = randn(2, 3, 4, size, size + 1).requires_grad_()
        out = pool(x)
        torch.testing.assert_close(out, 2 * soft_pool3d(x, 3, 2, 1))
        out.sum().backward()
    assert counter.frame_count == 1


@needs_kernels
def test_exports_as_one_operator():
    class Pool(torch.nn.Module):
        def forward(self, x):
            return soft_pool2d(x, 2)

    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(Pool(), (randn(4, 3, 8, 8),), dynamic_shapes=({0: batch},))
    called = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert called == [torch.ops.vidpool.soft_pool.default]
    x = randn(7, 3, 8, 8)
    torch.testing.assert_close(program.module()(x), soft_pool2d(x, 2))


@needs_kernels
def test_vmap_of_the_gradient_pools_each_example():
    x = randn(3, 2, 5, 4, 9)  # mapped over dimension 2

    def gradient(x):
        return torch.func.grad(lambda x: soft_pool2d(x, 3, 2, 1).square().sum())(x)

    mapped = torch.vmap(gradient, in_dims=2, out_dims=2)(x)
    torch.testing.assert_close(mapped, torch.stack([gradient(e) for e in x.unbind(2)], 2))


@needs_kernels
@pytest.mark.parametrize("shape", [(2, 5, 4, 9), (2, 3, 5, 4, 9)], ids=["no batch", "batch"])
def test_vmap_of_the_operators(shape):
    options = ([3, 3], [2, 2], [1, 1], [1, 1], False, "exact")
    pool, backward = torch.ops.vidpool.soft_pool, torch.ops.vidpool.soft_pool_backward
    x = randn(*shape)
    out = torch.vmap(lambda x: pool(x, *options), in_dims=1)(x)
    assert torch.equal(out, torch.stack([pool(e, *options) for e in x.unbind(1)]))
    grad = randn(*out.shape[1:])
    mapped = torch.vmap(lambda x: backward(grad, x, *options), in_dims=1)(x)
    assert torch.equal(mapped, torch.stack([backward(grad, e, *options) for e in x.unbind(1)]))


@needs_kernels
def test_third_derivatives():
    def third(pool):
        x = y = randn(1, 2, 5, 5).double().requires_grad_()
        for _ in range(3):
            (y,) = torch.autograd.grad(pool(y).square().sum() + y.sum(), x, create_graph=True)
        return y

    window = make_window(2, 3, 2, 1, 1, False)
    actual = third(lambda x: operator.soft_pool(x, window, "exact"))
    torch.testing.assert_close(actual, third(lambda x: reference.soft_pool(x, window, "exact")))


@needs_kernels
def test_the_operator_called_directly_checks_its_arguments():
    x, one = randn(1, 2, 4, 4), [1, 1]
    for arguments, named in [
        ((x, [2, 2], [2], [0, 0], one, False, "exact"), r"\(2\)"),
        ((x, [2, 2], [2, 2], [2, 0], one, False, "exact"), "2 and 2"),
        ((x, [2, 2], [0, 2], [0, 0], one, False, "exact"), "2, 0 and 1"),
        ((x, [2, 2], [2, 2], [0, 0], one, False, "steep"), "steep"),
        ((x, [2] * 4, [2] * 4, [0] * 4, [1] * 4, False, "exact"), r"\(2, 2, 2, 2\)"),
        ((x.int(), [2, 2], [2, 2], [0, 0], one, False, "exact"), "float16"),
    ]:
        with pytest.raises(RuntimeError, match=named):
            torch.ops.vidpool.soft_pool(*arguments)
    with pytest.raises(RuntimeError, match=r"\(1, 2, 2, 2\).*\(1, 2, 4, 4\)"):
        torch.ops.vidpool.soft_pool_backward(x, x, [2, 2], [2, 2], [0, 0], one, False, "exact")


@needs_kernels
def test_unknown_instruction_set_is_named(monkeypatch):
    monkeypatch.setenv("VIDPOOL_CPU_CAPABILITY", "mmx")
    with pytest.raises(RuntimeError, match=r"mmx.*baseline"):
        soft_pool1d(randn(1, 1, 4), 2)


def test_a_library_that_cannot_be_loaded_is_told_of_once(tmp_path):
    (tmp_path / "_cpu.abi3.so").write_text("no library")
    with pytest.warns(UserWarning, match=r"_cpu\.abi3\.so.*plain PyTorch on cpu.*Build it again"):
        assert operator.load_libraries(tmp_path) == set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert operator.load_libraries(tmp_path / "empty") == set()


@pytest.mark.slow
@needs_kernels
def test_more_than_2_to_the_31_elements():
    side = 26_760
    x = torch.zeros(1, 3, side, side, dtype=torch.bfloat16)
    assert x.numel() > 2**31
    x[0, 2, -2:, -2:] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    window = make_window(2, 2, None, 0, 1, False)
    out = operator.soft_pool(x, window, "exact")
    last = x[:, 2:, -2:, -2:]
    assert torch.equal(out[:, 2:, -1:, -1:], operator.soft_pool(last, window, "exact"))
    assert out.count_nonzero() == 1
    arguments = (*window, "exact")
    grad = torch.zeros_like(out)
    grad[0, 2, -1, -1] = 1
    grad_x = torch.ops.vidpool.soft_pool_backward(grad, x, *arguments)
    expected = torch.ops.vidpool.soft_pool_backward(grad[:, 2:, -1:, -1:], last, *arguments)
    assert torch.equal(grad_x[:, 2:, -2:, -2:], expected)
    assert grad_x.count_nonzero() == 4


@pytest.mark.slow
@needs_kernels
def test_inductor_compiles_it():
    program = """
import torch
from vidpool.ops import soft_pool3d
pool = torch.compile(lambda x: soft_pool3d(x.relu(), 3, 2, 1) + 1, fullgraph=True, dynamic=True)
for size in (6, 9):
    x = torch.randn(2, 3, 4, size, size, requires_grad=True)
    expected = soft_pool3d(x.relu(), 3, 2, 1) + 1
    torch.testing.assert_close(pool(x), expected)
    a, b = (torch.autograd.grad(y.sum(), x)[0] for y in (pool(x), expected))
    torch.testing.assert_close(a, b)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
