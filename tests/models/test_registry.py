"""Listing and building models by name; every registered model trains."""

import pytest
import torch
from torch import nn

from vidpool.errors import ConfigError
from vidpool.models import create_model, list_models, register_model, registry


@pytest.fixture
def scratch(monkeypatch):
    """Registry that a test may add to."""
    monkeypatch.setattr(registry, "_BUILDERS", dict(registry._BUILDERS))


@pytest.mark.parametrize("name", list_models())
def test_every_model_trains(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, width=4)
    logits = model(torch.randn(2, 3, 4, 32, 32))
    assert logits.shape == (2, 3)
    nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


def test_list_is_in_natural_order_and_takes_patterns():
    depths = (18, 34, 50, 101, 152, 200)
    assert list_models("r3d_*") == [f"r3d_{depth}" for depth in depths]
    assert set(list_models("*_50")) < set(list_models())
    assert list_models("nothing*") == []


def test_default_is_kinetics_400():
    with torch.device("meta"):
        assert create_model("r3d_18").fc.out_features == 400


@pytest.mark.parametrize(("name", "near"), [("r3d50", "r3d_50"), ("R2plus1d_50", "r2plus1d_50")])
def test_unknown_name_is_an_error_with_the_nearest(name, near):
    with pytest.raises(ConfigError, match=f"'{name}'.*{near}.*list_models"):
        create_model(name)


def test_name_like_no_other_is_an_error_that_says_how_to_list():
    with pytest.raises(ConfigError, match=r"unknown model 'xyz'.*list_models"):
        create_model("xyz")


def test_unknown_option_is_an_error_that_lists_the_known():
    with pytest.raises(
        ConfigError, match=r"r3d_18 does not take depht.*num_classes, width, in_channels, dropout"
    ):
        create_model("r3d_18", depht=50)


@pytest.mark.usefixtures("scratch")
def test_the_functions_name_is_the_models():
    @register_model
    def linear(*, num_classes: int, features: int = 2) -> nn.Linear:
        return nn.Linear(features, num_classes)

    assert "linear" in list_models()
    assert create_model("linear", 3, features=5).weight.shape == (3, 5)
    with pytest.raises(ConfigError, match="linear does not take width; it takes num_classes, feat"):
        create_model("linear", width=1)
    with pytest.raises(ValueError, match="linear is registered already"):
        register_model(linear)
