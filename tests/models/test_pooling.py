"""Replacing the pooling of networks: examples, options, errors."""

import pytest
import torch
from torch import nn

from vidpool.errors import ConfigError
from vidpool.models import create_model, replace_pooling


def image_net():
    return nn.Sequential(nn.Conv2d(4, 6, 3), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(2))


def test_the_example_is_guessed_from_the_first_convolution():
    model = nn.Sequential(nn.Conv3d(2, 6, 3), nn.MaxPool3d(2))
    (swap,) = replace_pooling(model, "lip")
    assert swap.new.channels == 6
    (swap,) = replace_pooling(image_net(), "lip")
    assert swap.new.channels == 6
    with pytest.raises(ConfigError, match=r"^pooling 'lip' of Sequential: LocalImportancePool1d"):
        replace_pooling(nn.Sequential(nn.MaxPool1d(2)), "lip")


def test_none_keeps_the_pooling():
    model = nn.Sequential(nn.MaxPool2d(2))
    assert replace_pooling(model, None) == []
    assert type(model[0]) is nn.MaxPool2d
    with pytest.raises(ConfigError, match=r"pooling_options .* need a pooling") as caught:
        replace_pooling(model, None, {"gradient": "paper"})
    assert caught.value.argument == "pooling_options"


@pytest.mark.parametrize(
    ("pooling", "options", "message", "argument"),
    [
        ("sofd", {}, "pooling 'sofd' of r3d_18: .*unknown pooling 'sofd'.*pooling=None", "pooling"),
        ("soft", {"gradient": "papre"}, "pooling_options .*gradient must be", "pooling_options"),
        (
            "soft",
            {"gardient": "paper"},
            "pooling_options .*unexpected.*'gardient'",
            "pooling_options",
        ),
        ("soft", {"geometry": "theirs"}, "pooling_options .*unknown geometry", "pooling_options"),
    ],
)
def test_errors_name_what_is_wrong(pooling, options, message, argument):
    with pytest.raises(ConfigError, match=message) as caught:
        create_model("r3d_18", 3, width=4, pooling=pooling, pooling_options=options)
    assert caught.value.argument == argument


def test_a_network_without_pooling_is_an_error():
    with pytest.raises(ConfigError, match=r"of torchvision/r3d_18: .*keeps the network's own"):
        create_model("torchvision/r3d_18", 3, pooling="soft")


def test_it_is_the_only_pooling_that_is_replaced():
    torch.manual_seed(0)
    plain = create_model("r3d_18", 3, width=4)
    torch.manual_seed(0)
    soft = create_model("r3d_18", 3, width=4, pooling="soft")
    assert plain.state_dict().keys() == soft.state_dict().keys()
    assert all(
        torch.equal(a, b) for a, b in zip(plain.parameters(), soft.parameters(), strict=True)
    )
