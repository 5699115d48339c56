"""The table of pooling methods: complete, consistent, and what it says of a layer."""

import inspect

import pytest
from torch import nn

from vidpool.nn import KINDS, SoftPool2d, pooling
from vidpool.nn.registry import has_own_forward, pooled_dimensions


def test_every_layer_of_the_package_is_listed():
    listed = {cls.__name__ for kind in KINDS.values() for cls in kind.layers}
    assert set(pooling.__all__) <= listed


@pytest.mark.parametrize("name", KINDS)
def test_channels_are_what_the_layers_take(name):
    kind = KINDS[name]
    for ndim, cls in enumerate(kind.layers, start=1):
        assert cls.__name__.endswith(f"{ndim}d")
        channels = inspect.signature(cls).parameters.get("channels")
        if channels is None:
            assert kind.channels == "none"
        else:
            required = channels.default is inspect.Parameter.empty
            assert kind.channels == ("needed" if required else "optional")


@pytest.mark.parametrize("name", KINDS)
def test_layers_are_recognised(name):
    kind = KINDS[name]
    options = {"channels": 2} if kind.channels == "needed" else {}
    for ndim, cls in enumerate(kind.layers, start=1):
        layer = cls(2, **options)
        assert pooled_dimensions(layer) == ndim
        assert not has_own_forward(layer)


def test_other_modules_are_not():
    class Own(SoftPool2d):
        def forward(self, x):
            return super().forward(x) + 1

    assert pooled_dimensions(nn.AdaptiveMaxPool2d(1)) == 0
    assert pooled_dimensions(Own(2)) == 2
    assert has_own_forward(Own(2))
