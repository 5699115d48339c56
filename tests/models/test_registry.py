"""Listing and building models by name; every registered model trains."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from vidpool.errors import ConfigError
from vidpool.models import (
    create_model,
    find_models,
    list_models,
    model_info,
    register_model,
    registry,
)
from vidpool.models.cost import pooling_layers
from vidpool.nn import swap_pooling


@pytest.fixture
def scratch(monkeypatch):
    """Registry that a test may add to."""
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))


OWN = [name for name in list_models() if "/" not in name]


@pytest.mark.parametrize("name", OWN)
def test_every_model_trains(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, width=4)
    logits = model(torch.randn(2, 3, 4, 32, 32))
    assert logits.shape == (2, 3)
    nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_models() if "/" in name])
def test_compiled_models_compute_the_same(name):
    torch._dynamo.reset()
    info = model_info(name)
    least = (4, 32, 32) if info.kind == "video" else (64, 64)
    size = info.size if info.fixed else tuple(map(max, info.smallest, least))
    x, labels = torch.randn(2, 3, *size), torch.tensor([0, 2])
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = create_model(name, num_classes=3)
        if any(layer.swapped for layer in pooling_layers(model, size)):
            swap_pooling(model)
        # dropout and stochastic depth draw other numbers when compiled
        run = torch.compile(model.eval(), backend="aot_eager") if compiled else model.eval()
        logits = run(x)
        nn.functional.cross_entropy(logits, labels).backward()
        results.append([logits.detach(), *(p.grad for p in model.parameters())])
    for eager, compiled in zip(*results, strict=True):
        assert (compiled - eager).abs().max() <= 1e-3 * eager.abs().max()


def test_list_is_in_natural_order_and_takes_patterns():
    depths = (18, 34, 50, 101, 152, 200)
    assert list_models("r3d_*") == [f"r3d_{depth}" for depth in depths]
    assert set(list_models("*_50")) < set(list_models())
    assert list_models()[: len(OWN)] == OWN
    assert list_models("nothing*") == []


def test_listing_imports_neither_pytorchvideo_nor_torchvision():
    code = """
import sys
from vidpool.models import list_models, model_info
infos = [model_info(name) for name in list_models()]
assert {"pytorchvideo/x3d_s", "torchvision/r3d_18"} <= {info.name for info in infos}
assert all("num_classes" in info.options for info in infos)
print({"torchvision", "pytorchvideo", "fvcore"} & set(sys.modules))
"""
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert run.stdout == "set()\n"


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


def test_facts_of_a_model():
    info = model_info("r3d_50")
    assert (info.kind, info.size, info.source) == ("video", (16, 224, 224), "vidpool")
    assert info.sizes == "any"
    assert info.options == ("num_classes", "width", "in_channels", "dropout", "checkpointing")
    with pytest.raises(ConfigError, match="unknown model 'r3d50'"):
        model_info("r3d50")


@pytest.mark.usefixtures("scratch")
def test_a_name_with_a_prefix_and_facts():
    @register_model(name="zoo/gnu_v2", kind="image", smallest=(15, 20), source="the zoo")
    def gnu(*, num_classes: int) -> nn.Linear:
        return nn.Linear(2, num_classes)

    assert list_models("zoo/*") == ["zoo/gnu_v2"] == list_models()[-1:]
    assert "gnu" not in list_models()
    assert create_model("zoo/gnu_v2", 7).out_features == 7
    info = model_info("zoo/gnu_v2")
    assert (info.kind, info.size, info.source) == ("image", (224, 224), "the zoo")
    assert info.sizes == "15x20 or larger"
    info.check_size((15, 20))
    for size in ((14, 20), (15, 19)):
        with pytest.raises(ConfigError, match=f"zoo/gnu_v2 .*{size[0]}x{size[1]}: 15x20 or larger"):
            info.check_size(size)
    with pytest.raises(ConfigError, match="images of size HxW, not 16x224x224"):
        info.check_size((16, 224, 224))
    with pytest.raises(ConfigError, match="did you mean one of zoo/gnu_v2"):
        create_model("gnu")


@pytest.mark.usefixtures("scratch")
def test_a_fixed_size():
    @register_model(size=(8, 64, 48), fixed=True)
    def rigid(*, num_classes: int) -> nn.Linear:
        return nn.Linear(2, num_classes)

    info = model_info("rigid")
    info.check_size([8, 64, 48])
    for size in ((8, 64, 49), (4, 64, 48), (16, 128, 96)):
        with pytest.raises(ConfigError, match=r"rigid does not take TxHxW = .*: 8x64x48 only"):
            info.check_size(size)


def test_several_patterns():
    assert find_models(["r3d_1?", "r3d_5?", "r3d_18"]) == ["r3d_18", "r3d_50"]
    assert find_models([]) == list_models()
    with pytest.raises(ConfigError, match=r"'r3d50\*'.*r3d_50"):
        find_models(["r3d_18", "r3d50*"])
    with pytest.raises(ConfigError, match=r"no model matches 'xyz'$"):
        find_models(["xyz"])
