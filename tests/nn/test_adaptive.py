"""The layers against the functions, and against the adaptive layers that they replace."""

import copy
import pickle

import pytest
import torch
from torch import fx, nn

from vidpool import ops
from vidpool.errors import ConfigError
from vidpool.nn import AdaptiveSoftPool1d, AdaptiveSoftPool2d, AdaptiveSoftPool3d

LAYERS = [
    (AdaptiveSoftPool1d, nn.AdaptiveMaxPool1d, ops.adaptive_soft_pool1d),
    (AdaptiveSoftPool2d, nn.AdaptiveMaxPool2d, ops.adaptive_soft_pool2d),
    (AdaptiveSoftPool3d, nn.AdaptiveMaxPool3d, ops.adaptive_soft_pool3d),
]


def maps(layer):
    return torch.randn(2, 3, *(7, 6, 5)[: layer.ndim])


@pytest.mark.parametrize("output_size", [1, 3])
@pytest.mark.parametrize(("soft", "hard", "function"), LAYERS)
def test_stands_in_for_adaptive_max_pooling(soft, hard, function, output_size):
    x = maps(soft)
    layer = soft(output_size, False)
    assert layer(x).shape == hard(output_size, False)(x).shape
    assert torch.equal(layer(x), function(x, output_size))
    per_dimension = soft((output_size,) * soft.ndim)
    assert torch.equal(per_dimension(x), layer(x))
    assert torch.equal(soft(None)(x), x)


@pytest.mark.parametrize("output_size", [1, 2, 3])
@pytest.mark.parametrize(("soft", "_hard", "function"), LAYERS)
def test_gradient_is_passed_on(soft, _hard, function, output_size):
    gradients = []
    x = maps(soft)
    for pool in (
        soft(output_size, gradient="paper"),
        lambda x: function(x, output_size, gradient="paper"),
        soft(output_size),
    ):
        leaf = x.clone().requires_grad_()
        pool(leaf).sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(gradients[0], gradients[1])
    assert not torch.allclose(gradients[0], gradients[2])


def test_has_no_state_and_copies():
    layer = AdaptiveSoftPool3d((None, 1, 3), gradient="paper")
    assert not layer.state_dict()
    assert repr(layer) == "AdaptiveSoftPool3d(output_size=(None, 1, 3), gradient='paper')"
    x = maps(layer)
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(again) == repr(layer)
        assert torch.equal(again(x), layer(x))


@pytest.mark.parametrize("layer", [AdaptiveSoftPool1d, AdaptiveSoftPool2d, AdaptiveSoftPool3d])
def test_wrong_arguments_are_errors_when_the_layer_is_made(layer):
    for error, message, arguments in [
        (RuntimeError, "output_size should be greater than zero", {"output_size": 0}),
        (RuntimeError, "output_size must be an int, None or", {"output_size": (1,) * 4}),
        (TypeError, "output_size must be an int, None or", {"output_size": 0.5}),
        (ConfigError, "gradient must be one of", {"output_size": 1, "gradient": "papre"}),
        (ConfigError, "only max pooling", {"output_size": 1, "return_indices": True}),
    ]:
        with pytest.raises(error, match=message):
            layer(**arguments)


def test_an_output_size_that_is_set_later_counts():
    layer, x = AdaptiveSoftPool2d(1), torch.randn(1, 8, 8)
    layer.output_size = 3
    assert torch.equal(layer(x), ops.adaptive_soft_pool2d(x, 3))
    layer.output_size = 0
    with pytest.raises(RuntimeError, match="greater than zero"):
        layer(x)


def test_is_a_leaf_of_fx_and_the_function_a_call():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), AdaptiveSoftPool2d(3))
    traced = fx.symbolic_trace(model)
    assert [node.op for node in traced.graph.nodes][1:-1] == ["call_module"] * 2
    function = fx.symbolic_trace(lambda x: ops.adaptive_soft_pool2d(x, 3))
    for x in (torch.rand(2, 3, 7, 7), torch.rand(1, 3, 8, 10)):
        assert torch.equal(traced(x), model(x))
        assert torch.equal(pickle.loads(pickle.dumps(function))(x), model[1](x))


@pytest.mark.parametrize("output_size", [1, 3])
def test_is_refused_by_the_exporter_based_on_torchscript(monkeypatch, output_size):
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    with pytest.raises(ConfigError, match="dynamo=False"):
        torch.jit.trace(AdaptiveSoftPool2d(output_size), torch.rand(2, 3, 7, 7))
