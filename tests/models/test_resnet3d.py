"""The residual networks against the public implementation's outputs, keys, sizes and costs."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vidpool.errors import ConfigError
from vidpool.models import create_model
from vidpool.nn import swap_pooling

NAMES = [f"{kind}_{depth}" for kind in ("r3d", "r2plus1d") for depth in (18, 34, 50, 101)]


def tiny(name, **options):
    return create_model(name, **{"num_classes": 5, "width": 4} | options)


@pytest.mark.parametrize("name", ["r3d_34", "r3d_50", "r2plus1d_50"])
def test_computes_what_the_public_implementation_does(name, reference):
    expected = reference(name)
    model = create_model(name, num_classes=expected.logits.shape[1]).double()
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == expected.shapes
    assert sum(p.numel() for p in model.parameters()) == expected.parameters
    model.load_state_dict(expected.weights)
    with torch.no_grad():
        logits = model.train(expected.training)(expected.clip)
    assert (logits - expected.logits).abs().max() <= 1e-8 * expected.logits.abs().max()


@pytest.mark.parametrize(
    ("name", "millions"),
    [("r3d_50", 36.73), ("r3d_101", 69.06), ("r2plus1d_50", 34.86), ("r2plus1d_101", 67.22)],
)
def test_parameters(name, millions):
    with torch.device("meta"):
        model = create_model(name)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=1e-3)


CLIPS = [(32, 224), (16, 224), (8, 224), (8, 160), (16, 112)]
COSTS = {
    "r3d_50": (52.93, 26.47, 13.79, 7.04, 6.70),
    "r3d_101": (78.27, 39.13, 20.12, 10.27, 9.87),
    "r2plus1d_50": (49.66, 24.83, 12.83, 6.55, 6.30),
}


@pytest.mark.parametrize("name", COSTS)
def test_multiply_adds_of_convolutions_and_classifier(name):
    with torch.device("meta"):
        model = create_model(name)
        for (frames, side), billions in zip(CLIPS, COSTS[name], strict=True):
            with FlopCounterMode(display=False) as counter:
                model(torch.empty(1, 3, frames, side, side))
            assert counter.get_total_flops() / 2e9 == pytest.approx(billions, rel=1e-3)


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 32, 32), (3, 17, 45), (7, 33, 9), (8, 16, 16)])
@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_50"])
@torch.no_grad()
def test_takes_any_clip_size(name, size):
    model = tiny(name).eval()
    clips = torch.randn(2, 3, *size)
    assert model.forward_features(clips).shape == (2, 32)
    assert model(clips).shape == (2, 5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [1, 12])
def test_width_and_channels(name, width):
    with torch.device("meta"):
        model = create_model(name, num_classes=7, width=width, in_channels=2).eval()
        features = model.forward_features(torch.empty(1, 2, 4, 32, 32))
    assert features.shape == (1, 8 * width)
    assert model.fc.weight.shape == (7, 8 * width)


def test_the_2plus1d_stem_has_45_middle_planes_for_64():
    with torch.device("meta"):
        assert create_model("r2plus1d_18").stem[0].out_channels == 45
        assert create_model("r2plus1d_18", width=128).stem[0].out_channels == 90


def test_logits_are_the_classifiers_of_the_features():
    model = tiny("r3d_18", dropout=0.5).eval()
    clips = torch.randn(2, 3, 4, 16, 16)
    assert torch.equal(model(clips), model.fc(model.forward_features(clips)))


def test_dropout_acts_in_training_only_and_adds_no_keys():
    model = tiny("r3d_18", dropout=0.9)
    assert list(model.state_dict()) == list(tiny("r3d_18").state_dict())
    clips = torch.randn(2, 3, 4, 32, 32)
    assert not torch.equal(model(clips), model(clips))
    model.eval()
    assert torch.equal(model(clips), model(clips))


def test_initial_weights():
    torch.manual_seed(0)
    model = create_model("r3d_18", width=16).requires_grad_(False)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv3d):
            fan_out = module.weight[:, 0].numel()
            assert module.weight.std() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1), name
        elif isinstance(module, nn.BatchNorm3d):
            assert torch.all(module.weight == 1)
            assert torch.all(module.bias == 0)
    assert model.fc.weight.std() == pytest.approx(0.01, rel=0.1)
    assert torch.all(model.fc.bias == 0)


@pytest.mark.parametrize("to", ["soft", "avg"])
@pytest.mark.parametrize("name", NAMES)
def test_pooling_can_be_swapped(name, to):
    model = tiny(name).eval()
    keys = list(model.state_dict())
    clips = torch.randn(1, 3, 5, 31, 40)
    with torch.no_grad():
        shape = model.pool(model.stem(clips)).shape
        assert [swap.name for swap in swap_pooling(model, to)] == ["pool"]
        assert model.pool(model.stem(clips)).shape == shape
        assert model(clips).shape == (1, 5)
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize("shape", [(3, 4, 16, 16), (3, 16, 16), (1, 1, 3, 4, 16, 16)])
def test_clip_of_the_wrong_rank_is_an_error_that_names_its_shape(shape):
    model = tiny("r3d_18")
    with pytest.raises(ValueError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        model(torch.zeros(shape))


@pytest.mark.parametrize(
    "option",
    [
        {"num_classes": 0},
        {"width": 0},
        {"width": -64},
        {"in_channels": 0},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"dropout": float("nan")},
    ],
)
def test_bad_option_is_an_error_that_names_it(option):
    ((name, value),) = option.items()
    with pytest.raises(ConfigError, match=f"{name} must be .*{value}"):
        create_model("r3d_18", **option)
