"""Channels found by running a model: what is reached when, and what cannot be found."""

import pytest
import torch
from torch import nn

from vidpool.errors import ConfigError
from vidpool.nn.channels import find_channels


class Auxiliary(nn.Module):
    """Has a second pooling layer that only training reaches, and one that nothing does."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.first = nn.MaxPool2d(2)
        self.second = nn.MaxPool2d(2)
        self.unused = nn.MaxPool2d(2)

    def forward(self, x):
        x = self.first(self.norm(x))
        if self.training:
            self.second(torch.cat([x, x], 1))
            raise AssertionError("the pass has to end where everything is seen")
        return x


def test_what_only_training_reaches_is_found():
    model = Auxiliary().eval()
    model.second.train()
    layers = {name: getattr(model, name) for name in ("first", "second")}
    mean = model.norm.running_mean.clone()
    channels = find_channels(model, layers, torch.rand(4, 3, 6, 6))
    assert channels == {model.first: 3, model.second: 6}
    assert torch.equal(model.norm.running_mean, mean)
    assert [m.training for m in (model, model.norm, model.second)] == [False, False, True]
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_what_nothing_reaches_is_an_error():
    class Quiet(Auxiliary):
        def forward(self, x):
            return self.first(x)

    model = Quiet()
    layers = {"first": model.first, "unused": model.unused}
    with pytest.raises(ConfigError, match=r"does not reach unused: .*channels=\{'unused': 64\}"):
        find_channels(model, layers, (1, 3, 6, 6))


def test_different_channels_at_different_places_are_an_error():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.MaxPool2d(2)

        def forward(self, x):
            return self.pool(torch.cat([self.pool(x)] * 2, 1))

    model = Shared().train()
    with pytest.raises(ConfigError, match="pool pools 3 channels at one place and 6 at another"):
        find_channels(model, {"pool": model.pool}, (1, 3, 8, 8))
    assert model.training
    assert not model.pool._forward_pre_hooks


def test_without_a_batch():
    model = nn.Sequential(nn.MaxPool3d(2))
    assert find_channels(model, {"0": model[0]}, (5, 4, 4, 4)) == {model[0]: 5}


def test_an_example_can_be_what_the_model_is_called_with():
    class TwoPaths(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.MaxPool2d(2)

        def forward(self, paths):
            return paths[0].mean(), self.pool(paths[1])

    model = TwoPaths()
    paths = [torch.rand(1, 3, 4, 4), torch.rand(1, 7, 4, 4)]
    assert find_channels(model, {"pool": model.pool}, paths) == {model.pool: 7}
