"""The protocol of pooling layers, and that registered layers are recognised."""

import copy
import inspect
import pickle
from functools import partial

import pytest
import torch
from torch import nn

from vidpool.errors import ConfigError
from vidpool.nn import POOLING_METHODS, SoftPool2d, pooling, register_pooling, swap_pooling
from vidpool.nn.registry import overrides_forward, pooled_dimensions


class MinPool2d(nn.MaxPool2d):
    """A method of a user."""

    def forward(self, x):
        return -super().forward(-x)


class MinPool3d(nn.MaxPool3d):
    """The same for clips."""

    def forward(self, x):
        return -super().forward(-x)


class Bare2d(nn.Module):
    """Takes what it has to, keeps nothing."""

    def __init__(self, kernel_size, stride):
        super().__init__()
        self.pool = nn.AvgPool2d(kernel_size, stride)

    def forward(self, x):
        return self.pool(x)


class PerChannel2d(nn.MaxPool2d):
    """Learns a factor for each channel."""

    def __init__(self, kernel_size, stride, padding, dilation, ceil_mode, channels, scale=1.0):
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)
        self.factor = nn.Parameter(torch.full((channels, 1, 1), scale))

    def forward(self, x):
        return self.factor * super().forward(x)


def stem():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(3, 2, 1))


def test_all_layers_are_registered():
    listed = {cls.__name__ for method in POOLING_METHODS.values() for cls in method.layers.values()}
    assert set(pooling.__all__) <= listed


@pytest.mark.parametrize("name", POOLING_METHODS)
def test_channels_are_what_the_layers_take(name):
    for ndim, cls in POOLING_METHODS[name].layers.items():
        assert cls.__name__.endswith(f"{ndim}d")
        factory = POOLING_METHODS[name].factory(ndim)
        channels = inspect.signature(cls).parameters.get("channels")
        if channels is None:
            assert factory.channels == "none"
        else:
            required = channels.default is inspect.Parameter.empty
            assert factory.channels == ("needed" if required else "optional")


@pytest.mark.parametrize("name", POOLING_METHODS)
def test_layers_are_recognised(name):
    for ndim, factory in POOLING_METHODS[name].factories.items():
        options = {"channels": 2} if factory.channels == "needed" else {}
        layer = factory(kernel_size=2, **options)
        assert pooled_dimensions(layer) == ndim
        assert not overrides_forward(layer)
        assert repr(copy.deepcopy(layer)) == repr(pickle.loads(pickle.dumps(layer))) == repr(layer)


def test_other_modules_are_not():
    class Own(SoftPool2d):
        def forward(self, x):
            return super().forward(x) + 1

    assert pooled_dimensions(nn.AdaptiveMaxPool2d(1)) == 0
    assert pooled_dimensions(Own(2)) == 2
    assert overrides_forward(Own(2))


def test_a_registered_class_is_swapped_in_and_out():
    register_pooling("min", pool2d=MinPool2d)
    model, x = stem(), torch.rand(1, 3, 9, 9)
    expected = -nn.functional.max_pool2d(-model[0](x), 3, 2, 1)
    (swap,) = swap_pooling(model, to="min")
    assert type(swap.new) is MinPool2d
    assert torch.equal(model(x), expected)
    (swap,) = swap_pooling(model, to="soft")
    assert type(swap.old) is MinPool2d
    assert type(model[1]) is SoftPool2d


def test_a_decorator_registers_one_dimension_after_another():
    assert register_pooling("min", ndim=2)(MinPool2d) is MinPool2d
    with pytest.raises(
        ConfigError, match=r"^0 \(MaxPool3d\): pooling 'min' has no 3D layer, only 2D: .*pool3d="
    ) as caught:
        swap_pooling(nn.Sequential(nn.MaxPool3d(2)), to="min")
    assert caught.value.argument == "to"
    register_pooling("min", ndim=3)(MinPool3d)
    assert POOLING_METHODS["min"].layers == {2: MinPool2d, 3: MinPool3d}
    assert type(swap_pooling(nn.Sequential(nn.MaxPool3d(2)), to="min")[0].new) is MinPool3d


def test_what_a_layer_lacks_it_cannot_replace():
    register_pooling("bare", pool2d=Bare2d)
    model = nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1))
    with pytest.raises(
        ConfigError, match=r"^1 \(MaxPool2d\): Bare2d has no padding, so .* padding 1$"
    ):
        swap_pooling(model, to="bare")
    assert type(model[0]) is nn.MaxPool2d
    swap_pooling(model, to="bare", where="0")
    assert model(torch.rand(1, 3, 8, 8)).shape == (1, 3, 2, 2)
    # its attributes do not tell its geometry
    with pytest.raises(ConfigError, match=r"0 \(Bare2d\) has no attributes kernel_size and stride"):
        swap_pooling(model, where="0")
    assert [swap.name for swap in swap_pooling(model)] == ["0.pool", "1"]


def test_channels_are_found_for_own_layers_too():
    register_pooling("factor", pool2d=PerChannel2d)
    model = stem()
    with pytest.raises(ConfigError, match="PerChannel2d learns something for every channel"):
        swap_pooling(model, to="factor")
    (swap,) = swap_pooling(model, to="factor", example=(1, 3, 8, 8), scale=2.0)
    assert swap.new.factor.shape == (4, 1, 1)
    assert (swap.new.factor == 2).all()


@pytest.mark.parametrize("to", [MinPool2d, partial(PerChannel2d, channels=4)])
def test_swap_takes_classes_and_factories(to):
    model = stem()
    (swap,) = swap_pooling(model, to=to)
    assert isinstance(swap.new, getattr(to, "func", to))
    assert (swap.new.kernel_size, swap.new.stride, swap.new.padding) == (3, 2, 1)
    assert model(torch.rand(1, 3, 9, 9)).shape == (1, 4, 5, 5)


def test_swap_takes_functions():
    def average(kernel_size, stride, padding, dilation, ceil_mode, factor=1):
        assert dilation == 1
        return nn.AvgPool2d(factor * kernel_size, stride, factor * padding, ceil_mode)

    (swap,) = swap_pooling(stem(), to=average, factor=2)
    assert (swap.new.kernel_size, swap.new.padding) == (6, 2)


@pytest.mark.parametrize(
    ("to", "message"),
    [
        (nn.LPPool2d, "LPPool2d needs norm_type"),
        (lambda kernel_size, **_: kernel_size, "made 2, which is no torch.nn.Module"),
        (lambda size: nn.MaxPool2d(size), "does not take the argument kernel_size and stride"),
        (dict, "dict is not a pooling layer: it is no torch.nn.Module"),
        (3, "3 is neither a class nor a function"),
        (nn.MaxPool3d, "pooling 'MaxPool3d' has no 2D layer, only 3D$"),
    ],
)
def test_what_is_no_pooling_is_an_error_and_the_model_stays(to, message):
    model = nn.Sequential(nn.MaxPool2d(2))
    with pytest.raises(ConfigError, match=message) as caught:
        swap_pooling(model, to=to)
    assert caught.value.argument == "to"
    assert type(model[0]) is nn.MaxPool2d


@pytest.mark.parametrize(
    ("arguments", "message", "argument"),
    [
        ({"pool2d": lambda size: nn.MaxPool2d(size)}, "'own': .*kernel_size and stride", "pool2d"),
        ({"pool3d": nn.LPPool3d}, "'own': LPPool3d needs norm_type.*functools.partial", "pool3d"),
        ({"pool1d": int}, "'own': int is not a pooling layer", "pool1d"),
        ({"pool1d": 5}, "'own': 5 is neither", "pool1d"),
        ({"pool2d": Bare2d, "pool3d": Bare2d}, "Bare2d is given for several", "pool2d"),
        ({}, "'own' has no layers: give pool1d, pool2d or pool3d, or ndim", None),
        ({"ndim": 4}, "ndim must be 1, 2 or 3, but is 4", "ndim"),
        ({"ndim": 2, "pool2d": MinPool2d}, "either ndim or layers", "ndim"),
    ],
)
def test_what_does_not_meet_the_protocol_is_refused_when_registered(arguments, message, argument):
    with pytest.raises(ConfigError, match=message) as caught:
        register_pooling("own", **arguments)
    assert caught.value.argument == argument
    assert "own" not in POOLING_METHODS


def test_a_name_that_is_none_is_an_error():
    with pytest.raises(ConfigError, match="name must be a string such as 'median', but is") as err:
        register_pooling(MinPool2d)
    assert err.value.argument == "name"


def test_registering_again_replaces_but_not_what_others_registered():
    register_pooling("min", pool2d=MinPool2d)
    register_pooling("min", pool2d=Bare2d)
    assert POOLING_METHODS["min"].layers == {2: Bare2d}
    for layer in (MinPool2d, nn.MaxPool2d):
        with pytest.raises(ConfigError, match=r"'max' is registered already, by vidpool\.nn"):
            register_pooling("max", pool2d=layer)
    assert POOLING_METHODS["max"].layers[2] is nn.MaxPool2d
