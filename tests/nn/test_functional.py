"""Pooling functions that modules call: which are found, what replacing them keeps, refusals."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from vidpool.errors import ConfigError
from vidpool.nn import SoftPool1d, SoftPool2d, SoftPool3d, swap_pooling
from vidpool.nn.functional import find_blocks


class Calls(nn.Module):
    """Calls a function of its input."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Two(nn.Module):
    """Calls two functions and a submodule between them; has more than that uses."""

    size = 2

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.unused = nn.Linear(1, 1)
        self.register_buffer("scale", torch.tensor(2.0))
        self.out_channels = 4

    def forward(self, x):
        x = F.max_pool2d(x, self.size)
        return F.max_pool2d(self.conv(x) * self.scale, kernel_size=3, stride=2, padding=1)


def only_call(function):
    ((name, block),) = find_blocks(nn.Sequential(Calls(function)))
    assert name == "0"
    (call,) = block.calls
    return call


@pytest.mark.parametrize(
    ("function", "layer", "name"),
    [
        (lambda x: F.max_pool1d(x, 2), nn.MaxPool1d(2), "max_pool1d"),
        (lambda x: F.max_pool2d(x, 3, 2, 1), nn.MaxPool2d(3, 2, 1), "max_pool2d"),
        (
            lambda x: F.max_pool2d(x, 3, 1, 1, 2, True),
            nn.MaxPool2d(3, 1, 1, 2, ceil_mode=True),
            "max_pool2d",
        ),
        (lambda x: torch.max_pool2d(x, [2, 3], [1, 2]), nn.MaxPool2d((2, 3), (1, 2)), "max_pool2d"),
        (lambda x: F.max_pool3d(input=x, kernel_size=2), nn.MaxPool3d(2), "max_pool3d"),
        (lambda x: torch.max_pool3d(x, 2), nn.MaxPool3d(2), "max_pool3d"),
        (lambda x: F.avg_pool1d(x, 2, 1), nn.AvgPool1d(2, 1), "avg_pool1d"),
        (
            lambda x: F.avg_pool2d(x, 3, 1, 1, True, False),
            nn.AvgPool2d(3, 1, 1, True, False),
            "avg_pool2d",
        ),
        (
            lambda x: F.avg_pool2d(x, 2, divisor_override=3),
            nn.AvgPool2d(2, divisor_override=3),
            "avg_pool2d",
        ),
        (lambda x: F.avg_pool3d(x, (1, 2, 2)), nn.AvgPool3d((1, 2, 2)), "avg_pool3d"),
    ],
)
def test_calls_become_the_layers_that_do_the_same(function, layer, name):
    call = only_call(function)
    assert call.name == name
    assert type(call.layer) is type(layer)
    x = torch.rand(2, 2, *(7, 8, 6)[: int(name[-2])])
    assert torch.equal(call.layer(x), function(x))


@pytest.mark.parametrize(
    ("function", "layer"),
    [
        (lambda x: F.adaptive_max_pool1d(x, 2), nn.AdaptiveMaxPool1d(2)),
        (lambda x: F.adaptive_max_pool2d(x, (None, 2)), nn.AdaptiveMaxPool2d((None, 2))),
        (lambda x: F.adaptive_max_pool3d(x, [1, 1, 2]), nn.AdaptiveMaxPool3d((1, 1, 2))),
        (lambda x: torch.adaptive_avg_pool1d(x, 2), nn.AdaptiveAvgPool1d(2)),
        (lambda x: F.adaptive_avg_pool2d(x, output_size=1), nn.AdaptiveAvgPool2d(1)),
        (lambda x: F.adaptive_avg_pool3d(x, (1, 1, 1)), nn.AdaptiveAvgPool3d((1, 1, 1))),
    ],
)
def test_calls_of_adaptive_functions(function, layer):
    model = nn.Sequential(Calls(function))
    assert not dict(find_blocks(model))
    (call,) = dict(find_blocks(model, adaptive=True))["0"].calls
    assert repr(call.layer) == repr(layer)
    assert call.name == call.node.name


def test_heads_that_call_a_function():
    model = torchvision.models.mobilenet_v2(num_classes=3, width_mult=0.25).eval()
    with pytest.raises(ConfigError, match="no pooling layer to replace"):
        swap_pooling(model, functional=True)
    (swap,) = swap_pooling(model, functional=True, adaptive=True)
    assert swap.name == "adaptive_avg_pool2d"
    assert repr(swap.new) == "AdaptiveSoftPool2d(output_size=(1, 1), gradient='exact')"
    assert model(torch.rand(1, 3, 40, 33)).shape == (1, 3)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda x: F.avg_pool2d(x, x.shape[2:]),
        lambda x: F.avg_pool2d(x, kernel_size=(x.shape[2], 2)),
        lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
        lambda x: F.relu(x),
    ],
)
def test_other_calls_stay(function):
    model = nn.Sequential(Calls(function), nn.MaxPool2d(2))
    blocks = dict(find_blocks(model))
    assert not any(block.calls for block in blocks.values())
    assert [swap.name for swap in swap_pooling(model, functional=True)] == ["1"]


def test_only_blocks_that_call_something_are_touched():
    model = nn.Sequential(Two(), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()))
    assert [name for name, _ in find_blocks(model)] == ["0"]


def test_replaced_calls_are_named_submodules_and_all_else_stays():
    model = nn.Sequential(Two(), nn.ReLU()).eval()
    block, x = model[0], torch.rand(2, 3, 12, 12)
    seen = []
    block.register_forward_hook(lambda *_: seen.append(1))
    expected, keys = model(x), list(model.state_dict())
    swaps = swap_pooling(model, "max", functional=True)
    assert [swap.name for swap in swaps] == ["0.max_pool2d", "0.max_pool2d_1"]
    assert [swap.new.kernel_size for swap in swaps] == [2, 3]
    assert all(model.get_submodule(swap.name) is swap.new for swap in swaps)
    assert torch.equal(model(x), expected)
    assert len(seen) == 2
    assert model[0] is block
    assert isinstance(block, Two)
    assert block.out_channels == 4
    assert list(model.state_dict()) == keys
    assert not any(module.training for module in model.modules())


def test_replaced_calls_are_replaced_again_like_any_layer():
    model, x = nn.Sequential(Two()), torch.rand(2, 3, 12, 12)
    expected = model(x)
    assert len(swap_pooling(model, where="*_1", functional=True)) == 1
    assert isinstance(model[0].max_pool2d_1, SoftPool2d)
    assert not torch.equal(model(x), expected)
    swaps = swap_pooling(model, "max", functional=True)
    assert [(swap.name, type(swap.old)) for swap in swaps] == [
        ("0.max_pool2d", nn.MaxPool2d),
        ("0.max_pool2d_1", SoftPool2d),
    ]
    assert torch.equal(model(x), expected)


def test_copies_are_independent():
    model, x = nn.Sequential(Two()), torch.rand(2, 3, 12, 12)
    swap_pooling(model, "lp", functional=True)
    copied = copy.deepcopy(model)
    assert torch.equal(copied(x), model(x))
    copied[0].max_pool2d.rho.data.add_(1)
    assert not torch.equal(copied(x), model(x))


def test_parameters_of_the_new_layers_are_the_models():
    model = nn.Sequential(Two())
    swaps = swap_pooling(model, "lip", functional=True, example=(1, 3, 12, 12))
    assert [swap.new.channels for swap in swaps] == [3, 4]
    model(torch.rand(2, 3, 12, 12)).sum().backward()
    assert model[0].max_pool2d_1.conv.weight.grad is not None
    assert "0.max_pool2d.conv.weight" in model.state_dict()


def test_the_model_itself_may_call():
    model, x = Two(), torch.rand(2, 3, 12, 12)
    expected = model(x)
    swaps = swap_pooling(model, "avg", functional=True)
    assert [swap.name for swap in swaps] == ["max_pool2d", "max_pool2d_1"]
    assert model(x).shape == expected.shape
    assert not torch.equal(model(x), expected)


def test_one_block_under_two_names():
    block = Calls(lambda x: F.max_pool3d(x, 2))
    model = nn.Sequential(block, nn.ReLU(), block)
    swaps = swap_pooling(model, functional=True)
    assert [swap.name for swap in swaps] == ["0.max_pool3d", "2.max_pool3d"]
    assert swaps[0].new is swaps[1].new
    assert isinstance(swaps[0].new, SoftPool3d)
    assert model(torch.rand(1, 1, 4, 4, 4)).shape == (1, 1, 1, 1, 1)


def test_blocks_inside_blocks():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Calls(lambda x: F.max_pool1d(x, 2))

        def forward(self, x):
            return F.avg_pool1d(self.inner(x), 2)

    model, x = nn.Sequential(Outer()), torch.rand(1, 1, 8)
    swaps = swap_pooling(model, functional=True)
    assert [swap.name for swap in swaps] == ["0.avg_pool1d", "0.inner.max_pool1d"]
    pool = SoftPool1d(2)
    assert torch.equal(model(x), pool(pool(x)))


def test_a_taken_name_is_not_lost():
    model = nn.Sequential(Calls(lambda x: F.max_pool2d(x, 2)))
    model[0].max_pool2d = nn.Conv2d(1, 1, 1)
    (swap,) = swap_pooling(model, functional=True)
    assert swap.name == "0.max_pool2d_"
    assert isinstance(model[0].max_pool2d, nn.Conv2d)


class Optional(nn.Module):
    def forward(self, x, mask=None):
        return F.max_pool2d(x if mask is None else x * mask, 2)


class Branches(nn.Module):
    def forward(self, x):
        return F.max_pool2d(x, 2) if x.sum() > 0 else x


class Types(nn.Module):
    def forward(self, x):
        return F.max_pool2d(x if isinstance(x, torch.Tensor) else torch.cat(x), 2)


class Trains(nn.Module):
    def forward(self, x):
        return F.dropout(F.max_pool2d(x, 2), training=self.training)


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.constants = [torch.ones(1)]

    def forward(self, x):
        return F.max_pool2d(x * self.constants[0] * torch.ones(1), 2)


def on_the_instance():
    model = Branches()
    model.forward = lambda x: F.max_pool2d(x, 2)
    return model


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Optional, "optional argument 'mask'"),
        (Branches, "cannot be traced"),
        (Types, "types of its arguments"),
        (Trains, r"depends on self\.training"),
        (Constant, "tensor that is no buffer"),
        (on_the_instance, "set on the instance"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_what_cannot_be_traced_is_an_error_unless_left_out(make, reason, training):
    module = make()
    attributes = dict(vars(module))
    model = nn.Sequential(module, nn.MaxPool2d(2)).train(training)
    for where in (None, "0", "0.*", "*"):
        with pytest.raises(ConfigError, match=rf"^0 \({type(module).__name__}\) calls.*{reason}"):
            swap_pooling(model, where=where, functional=True)
    assert isinstance(model[1], nn.MaxPool2d)
    assert [swap.name for swap in swap_pooling(model, where="1", functional=True)] == ["1"]
    assert vars(module).keys() == attributes.keys()
    assert module.training is training


def test_untraceable_modules_that_pool_nothing_do_not_matter():
    class Branch(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    model = nn.Sequential(Branch(), nn.MaxPool2d(2))
    assert [swap.name for swap in swap_pooling(model, functional=True)] == ["1"]


def test_an_error_leaves_the_calls_as_they_were():
    model = nn.Sequential(Two(), nn.MaxPool2d(3, 1))
    with pytest.raises(ConfigError, match="LiftPool halves"):
        swap_pooling(model, "lift", functional=True, example=(1, 3, 16, 16))
    assert type(model[0]) is Two
    assert [name for name, _ in model[0].named_children()] == ["conv", "unused"]
    assert model(torch.rand(1, 3, 16, 16)).shape == (1, 4, 2, 2)


def test_without_functional_the_error_says_what_there_is_more():
    with pytest.raises(
        ConfigError,
        match=r"none; functional=True replaces calls too: 0.max_pool2d, 0.max_pool2d_1$",
    ):
        swap_pooling(nn.Sequential(Two()))
    for model, functional in [(nn.Sequential(nn.ReLU()), False), (nn.Sequential(Two()), True)]:
        with pytest.raises(ConfigError) as error:
            swap_pooling(model, where="nothing", functional=functional)
        assert "functional" not in str(error.value)
