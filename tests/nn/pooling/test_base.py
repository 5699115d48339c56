"""What holds for every pooling method: shapes, dtypes, gradients, training, state."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import MAX, METHODS, make, maps
from torch import nn

from vidpool.errors import ConfigError
from vidpool.nn import pooling

RANDOM = ["Stochastic", "S3"]
LEARNED = ["LearnedNorm", "Gated", "DetailPreserving", "LocalImportance", "Ordinal", "Lift"]
STEM = {"kernel_size": 3, "stride": 2, "padding": 1}
every_method = pytest.mark.parametrize("method", METHODS)


@st.composite
def windows(draw, method):
    ndim = draw(st.integers(1, 3))
    kernel = draw(st.integers(1, 3))
    arguments = {
        "kernel_size": kernel,
        "stride": draw(st.integers(1, 3)),
        "padding": draw(st.integers(0, kernel // 2)),
        "dilation": draw(st.integers(1, 2)),
        "ceil_mode": draw(st.booleans()),
    }
    if method == "Lift":
        arguments |= {"stride": 2, "dilation": 1}
    extent = (kernel - 1) * arguments["dilation"] + 1
    sizes = draw(st.tuples(*[st.integers(extent, 7)] * ndim))
    return ndim, arguments, sizes


@every_method
@settings(max_examples=25)
@given(data=st.data())
def test_shapes_are_max_poolings(method, data):
    ndim, arguments, sizes = data.draw(windows(method))
    x = maps(ndim, sizes=sizes)
    expected = MAX[ndim](**arguments)(x).shape
    for training in (True, False):
        layer = make(method, ndim, **arguments).train(training)
        with torch.no_grad():
            out = layer(x)
        assert out.shape == expected
        assert out.isfinite().all()


@every_method
def test_arguments_a_dimension_and_no_batch(method):
    x = maps(3)
    layer = make(method, 3, kernel_size=(1, 2, 3), stride=(1, 2, 2), padding=(0, 1, 1))
    expected = nn.MaxPool3d((1, 2, 3), (1, 2, 2), (0, 1, 1))(x)
    out = layer(x)
    assert out.shape == expected.shape
    torch.testing.assert_close(layer(x[1]), out[1])
    assert layer(x[:0]).shape == expected[:0].shape


@every_method
def test_gradients(method, ndim):
    x = maps(ndim, sizes=(5, 4, 3)[:ndim])[:1].requires_grad_()
    layer = make(method, ndim, **STEM)

    def pool(x, *_parameters):
        return layer(x)

    inputs = (x, *layer.parameters())
    assert torch.autograd.gradcheck(pool, inputs, fast_mode=ndim == 3)


@pytest.mark.parametrize("method", LEARNED)
def test_learns(method):
    torch.manual_seed(0)
    layer = getattr(pooling, f"{method}Pool2d")(**METHODS[method] | STEM)
    x = torch.randn(8, 3, 8, 8)
    target = make(method, 2, seed=5, **STEM).float()(x).detach()
    before = copy.deepcopy(layer.state_dict())
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.05)
    losses = []
    for _ in range(25):
        loss = (layer(x) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    for name, parameter in layer.named_parameters():
        assert (parameter != before[name]).all(), name


@pytest.mark.parametrize("method", RANDOM)
def test_training_is_random_and_follows_the_seed(method, ndim):
    layer, x = make(method, ndim, **STEM).train(), maps(ndim)
    torch.manual_seed(1)
    first, second = layer(x), layer(x)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(layer(x), first)
    assert torch.equal(layer.eval()(x), layer(x))


@pytest.mark.parametrize("method", RANDOM)
def test_a_generator_takes_the_place_of_the_seed(method):
    layer, x = make(method, 2, **STEM).train(), maps(2)
    before = torch.get_rng_state()
    first, again = (layer(x, torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("method", RANDOM)
def test_draws_average_to_what_evaluation_gives(method):
    torch.manual_seed(0)
    layer, x = make(method, 2, **STEM), maps(2, sizes=(4, 4))
    draws = torch.stack([layer.train()(x) for _ in range(1000)])
    error = (draws.mean(0) - layer.eval()(x)).abs()
    assert (error <= 5 * draws.std(0) / 1000**0.5 + 1e-12).all()


@every_method
def test_state_dict_round_trip(method):
    layer, other = (make(method, 3, seed, **STEM) for seed in (0, 1))
    x = maps(3)
    assert torch.equal(layer(x), other(x)) is (method not in LEARNED)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), other(x))
    assert bool(layer.state_dict()) is (method in LEARNED)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


@every_method
@pytest.mark.parametrize("training", [True, False])
def test_half_precision_stays(method, training, ndim):
    x = maps(ndim).bfloat16()
    whole = make(method, ndim, **STEM)
    half = copy.deepcopy(whole).bfloat16().train(training)
    out = half(x.requires_grad_())
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert x.grad.dtype == torch.bfloat16
    assert x.grad.isfinite().all()
    if not training:
        torch.testing.assert_close(out.double(), whole(x.double()), rtol=0.05, atol=0.1)


@every_method
def test_under_autocast(method):
    x = maps(2).float()
    layer = make(method, 2, **STEM).float()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x.bfloat16())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), layer(x), rtol=0.05, atol=0.1)


@every_method
def test_a_window_of_padding_alone_does_no_harm(method):
    if method == "Lift":
        pytest.skip("LiftPool has no dilation, without which there is no such window")
    x = torch.ones(1, 3, 1, dtype=torch.float64, requires_grad=True)
    out = make(method, 1, kernel_size=2, padding=1, dilation=2)(x)  # reads cells -1 and 1
    assert torch.equal(out, torch.full_like(out, float("-inf") if method == "S3" else 0))
    if method != "S3":
        out.sum().backward()
        assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("method", LEARNED)
def test_another_number_of_channels_is_an_error(method):
    layer = make(method, 2, kernel_size=2, channels=4).float()
    with pytest.raises(ConfigError, match=r"made for 4 channels, but the input has 3.*channels=3"):
        layer(torch.rand(1, 3, 4, 4))
    with pytest.raises(ConfigError, match="channels must be at least 1, but is 0"):
        make(method, 2, kernel_size=2, channels=0)


@every_method
def test_wrong_sizes_are_errors_when_the_layer_is_made(method):
    with pytest.raises(RuntimeError, match="kernel_size should be greater than zero"):
        make(method, 2, kernel_size=0)
    with pytest.raises(RuntimeError, match="at most half of kernel_size"):
        make(method, 2, kernel_size=2, padding=2)


def test_repr_shows_every_argument():
    assert repr(pooling.LearnedNormPool2d(3, 2, 1, channels=8)) == (
        "LearnedNormPool2d(kernel_size=3, stride=2, padding=1, dilation=1, ceil_mode=False, "
        "channels=8)"
    )
    assert "grid=(2, 2)" in repr(pooling.S3Pool2d(2))
