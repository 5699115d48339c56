"""The table of pooling methods: complete, consistent, and what it says of a layer."""

import inspect

import pytest
from torch import nn

from vidpool.nn import POOLING_METHODS, SoftPool2d, pooling
from vidpool.nn.registry import overrides_forward, pooled_dimensions


def test_every_layer_of_the_package_is_listed():
    listed = {cls.__name__ for method in POOLING_METHODS.values() for cls in method.layers}
    assert set(pooling.__all__) <= listed


@pytest.mark.parametrize("name", POOLING_METHODS)
def test_channels_are_what_the_layers_take(name):
    method = POOLING_METHODS[name]
    for ndim, cls in enumerate(method.layers, start=1):
        assert cls.__name__.endswith(f"{ndim}d")
        channels = inspect.signature(cls).parameters.get("channels")
        if channels is None:
            assert method.channels == "none"
        else:
            required = channels.default is inspect.Parameter.empty
            assert method.channels == ("needed" if required else "optional")


@pytest.mark.parametrize("name", POOLING_METHODS)
def test_layers_are_recognised(name):
    method = POOLING_METHODS[name]
    options = {"channels": 2} if method.channels == "needed" else {}
    for ndim, cls in enumerate(method.layers, start=1):
        layer = cls(2, **options)
        assert pooled_dimensions(layer) == ndim
        assert not overrides_forward(layer)


def test_other_modules_are_not():
    class Own(SoftPool2d):
        def forward(self, x):
            return super().forward(x) + 1

    assert pooled_dimensions(nn.AdaptiveMaxPool2d(1)) == 0
    assert pooled_dimensions(Own(2)) == 2
    assert overrides_forward(Own(2))
