"""The layers against the functions, and against the max pooling layers that they replace."""

import copy
import pickle

import pytest
import torch
from torch import nn

from vidpool import ops
from vidpool.errors import ConfigError
from vidpool.nn import SoftPool1d, SoftPool2d, SoftPool3d

LAYERS = [
    (SoftPool1d, nn.MaxPool1d, ops.soft_pool1d),
    (SoftPool2d, nn.MaxPool2d, ops.soft_pool2d),
    (SoftPool3d, nn.MaxPool3d, ops.soft_pool3d),
]
ARGUMENTS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 2, "stride": 3, "dilation": 2, "ceil_mode": True},
]


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize(("soft", "hard", "function"), LAYERS)
def test_stands_in_for_max_pooling(soft, hard, function, arguments):
    x = torch.randn(2, 3, *(8,) * int(soft.__name__[-2]))
    layer, replaced = soft(**arguments), hard(**arguments)
    assert not isinstance(layer, hard)
    for name in ("kernel_size", "stride", "padding", "dilation", "ceil_mode"):
        assert getattr(layer, name) == getattr(replaced, name)
    assert layer(x).shape == replaced(x).shape
    assert torch.equal(layer(x), function(x, **arguments))


@pytest.mark.parametrize(("soft", "_hard", "function"), LAYERS)
def test_gradient_is_passed_on(soft, _hard, function):
    x = torch.randn(1, 1, *(4,) * int(soft.__name__[-2]))
    gradients = []
    for pool in (soft(2, gradient="paper"), lambda x: function(x, 2, gradient="paper")):
        leaf = x.clone().requires_grad_()
        pool(leaf).sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


def test_has_no_state_and_copies():
    layer = SoftPool3d((1, 2, 2), padding=(0, 1, 1))
    assert not layer.state_dict()
    x = torch.randn(2, 3, 4, 5)
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(again) == repr(layer)
        assert torch.equal(again(x), layer(x))


@pytest.mark.parametrize("layer", [SoftPool1d, SoftPool2d, SoftPool3d])
def test_wrong_arguments_are_errors_when_the_layer_is_made(layer):
    for error, message, arguments in [
        (RuntimeError, "kernel_size should be greater than zero", {"kernel_size": 0}),
        (RuntimeError, "stride should be greater than zero", {"kernel_size": 2, "stride": 0}),
        (RuntimeError, "at most half of kernel_size", {"kernel_size": 2, "padding": 5}),
        (RuntimeError, "dilation must be an int or", {"kernel_size": 2, "dilation": (1,) * 4}),
        (TypeError, "padding must be an int or", {"kernel_size": 2, "padding": 0.5}),
        (ValueError, "gradient must be one of", {"kernel_size": 2, "gradient": "papre"}),
    ]:
        with pytest.raises(error, match=message):
            layer(**arguments)


def test_geometry_that_is_set_later_counts():
    layer, x = SoftPool2d(2), torch.randn(1, 8, 8)
    layer.stride = 1
    assert torch.equal(layer(x), ops.soft_pool2d(x, 2, 1))
    layer.padding = 5
    with pytest.raises(RuntimeError, match="at most half of kernel_size"):
        layer(x)


@pytest.mark.parametrize("kernel_size", [2, (1, 2, 2), [1, 2, 2]])
def test_compiles_to_one_graph(kernel_size):
    torch._dynamo.reset()
    layer, x = SoftPool3d(kernel_size, 2), torch.randn(1, 2, 4, 6, 6)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))


def test_repr_shows_every_argument():
    assert repr(SoftPool2d(3, 2, 1, gradient="paper")) == (
        "SoftPool2d(kernel_size=3, stride=2, padding=1, dilation=1, ceil_mode=False, "
        "gradient='paper')"
    )


@pytest.mark.parametrize(("soft", "hard", "function"), LAYERS)
def test_positional_arguments_are_in_torchs_order(soft, hard, function):
    x = torch.randn(2, 3, *(8,) * int(soft.__name__[-2]))
    geometry = (3, 2, 1, 1)
    layer = soft(*geometry, False, True)
    assert layer.ceil_mode is True
    assert layer(x).shape == hard(*geometry, False, True)(x).shape
    functional = getattr(nn.functional, hard.__name__.replace("MaxPool", "max_pool"))
    assert function(x, *geometry, True, False).shape == functional(x, *geometry, True).shape
    assert torch.equal(function(x, *geometry, True), layer(x))


@pytest.mark.parametrize(("soft", "_hard", "function"), LAYERS)
def test_return_indices_is_an_error_that_says_why(soft, _hard, function):
    x = torch.randn(2, 3, *(8,) * int(soft.__name__[-2]))
    for pool in (
        lambda: soft(2, return_indices=True),
        lambda: soft(2, 2, 0, 1, True),
        lambda: function(x, 2, return_indices=True),
        lambda: function(x, 2, 2, 0, 1, False, True),
    ):
        with pytest.raises(ConfigError, match=r"only max pooling.*one cell") as caught:
            pool()
        assert caught.value.argument == "return_indices"


def test_own_arguments_are_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        SoftPool2d(2, 2, 0, 1, False, True, "paper")
    with pytest.raises(TypeError, match="positional"):
        ops.soft_pool2d(torch.rand(1, 4, 4), 2, 2, 0, 1, False, False, "paper")
    with pytest.raises(ConfigError, match="gradient must be one of") as caught:
        SoftPool2d(2, gradient="papre")
    assert caught.value.argument == "gradient"
