"""Listing and building models by name; every registered model trains."""

import subprocess
import sys

import numpy as np
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
from vidpool.nn import LocalImportancePool3d, SoftPool3d, swap_pooling


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
    # of 5x32x32, PyTorch 2.15's own convolutions crash in s3d
    least = (8, 64, 64) if info.modality == "video" else (64, 64)
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


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in ("r3d_18", "srtg_r2plus1d_50", "ip_csn_50", "i3d", "mfnet")),
        *((f"pytorchvideo/{name}", {}) for name in ("slow_r50", "slowfast_r50_8x8", "x3d_xs")),
        *((f"torchvision/{name}", {}) for name in ("r3d_18", "s3d", "mvit_v2_s", "swin3d_t")),
        *((f"torchvision/{name}", {}) for name in ("resnet18", "densenet121", "googlenet")),
        *((f"torchvision/{name}", {"aux_logits": True}) for name in ("googlenet", "inception_v3")),
    ],
)
def test_heads_are_what_depends_on_the_number_of_classes(name, options):
    with torch.device("meta"):
        five, seven = (create_model(name, num_classes, **options) for num_classes in (5, 7))
    shapes = {key: value.shape for key, value in five.state_dict().items()}
    other = {key for key, value in seven.state_dict().items() if value.shape != shapes[key]}
    assert other == {f"{head}.{part}" for head in seven.heads for part in ("weight", "bias")}
    assert len(seven.heads) == (1 if not options else 3 if "googlenet" in name else 2)


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


@pytest.mark.parametrize(
    ("name", "option", "expected"),
    [
        ("r3d_18", {"width": "8"}, "a whole number, but is '8'"),
        ("i3d", {"width": 8.0}, "a whole number, but is 8.0"),
        ("mfnet", {"num_classes": 2.5}, "a whole number, but is 2.5"),
        ("r3d_18", {"num_classes": True}, "a whole number, but is True"),
        ("ip_csn_50", {"in_channels": None}, "a whole number, but is None"),
        ("r3d_18", {"dropout": "x"}, "a number, but is 'x'"),
        ("torchvision/s3d", {"dropout": [0.5]}, r"a number, but is \[0.5\]"),
        ("r3d_18", {"gradient_checkpointing": 3}, "true or false, but is 3"),
        ("pytorchvideo/x3d_xs", {"gradient_checkpointing": "no"}, "true or false, but is 'no'"),
        ("srtg_r3d_18", {"gate": "off"}, "true or false, but is 'off'"),
        ("torchvision/googlenet", {"aux_logits": 1}, "true or false, but is 1"),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error_that_says_what_is_expected(name, option, expected):
    (key,) = option
    with pytest.raises(ConfigError, match=f"^{name}: {key} must be {expected}$"):
        create_model(name, **option)


def test_numbers_of_other_types_than_pythons():
    with torch.device("meta"):
        model = create_model("r3d_18", np.int64(7), width=np.int32(4), dropout=np.float32(0.5))
        assert create_model("r3d_18", width=4, dropout=0).dropout.p == 0
    assert (model.fc.out_features, model.fc.in_features, model.dropout.p) == (7, 32, 0.5)


@pytest.mark.usefixtures("scratch")
def test_the_functions_name_is_the_models():
    @register_model
    def linear(*, num_classes: int, features: int = 2) -> nn.Linear:
        return nn.Linear(features, num_classes)

    assert "linear" in list_models()
    assert create_model("linear", 3, features=5).weight.shape == (3, 5)
    with pytest.raises(ConfigError, match="linear does not take width; it takes num_classes, feat"):
        create_model("linear", width=1)
    with pytest.raises(ConfigError, match="linear: features must be a whole number, but is '2'"):
        create_model("linear", features="2")


@pytest.mark.usefixtures("scratch")
def test_registering_again_replaces_but_not_what_others_registered():
    def net(*, num_classes: int) -> nn.Linear:
        return nn.Linear(2, num_classes)

    def wider(*, num_classes: int) -> nn.Linear:
        return nn.Linear(3, num_classes)

    assert register_model(net) is net
    register_model(net)
    register_model(name="net", size=(4, 8, 8))(wider)
    assert create_model("net", 5).in_features == 3
    assert model_info("net").size == (4, 8, 8)
    with pytest.raises(
        ConfigError, match=r"'r3d_18' is registered already, by vidpool\.models\.resnet3d"
    ) as caught:
        register_model(name="r3d_18")(net)
    assert caught.value.argument == "name"
    assert create_model("r3d_18", 5, width=4).fc.out_features == 5


@pytest.mark.parametrize(
    ("arguments", "message", "argument"),
    [
        ({"modality": "audio"}, "modality must be 'video' or 'image', but is 'audio'", "modality"),
        ({"size": (8, 8)}, r"size must be \(T, H, W\), but is \(8, 8\)", "size"),
        (
            {"modality": "image", "smallest": (1, 8, 8)},
            r"smallest must be \(H, W\), but is \(1, 8, 8\)",
            "smallest",
        ),
        ({"name": ""}, "has no name: give name", "name"),
    ],
)
def test_facts_that_cannot_be_are_errors_when_registered(arguments, message, argument):
    with pytest.raises(ConfigError, match=message) as caught:
        register_model(**arguments)(lambda num_classes: nn.Linear(2, num_classes))
    assert caught.value.argument == argument


class Own(nn.Module):
    """A network as users write them: no keyword-only arguments, no attributes."""

    def __init__(self, num_classes: int, width: int = 8, outputs: int | None = None):
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(3, width, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2))
        self.fc = nn.Linear(width, outputs or num_classes)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3, 4)))


@pytest.mark.usefixtures("scratch")
def test_a_class_is_a_builder():
    register_model(Own)
    assert model_info("Own").options == ("num_classes", "width", "outputs")
    assert create_model("Own", 4, width=2)(torch.rand(2, 3, 4, 8, 8)).shape == (2, 4)
    with pytest.raises(ConfigError, match="Own: width must be a whole number, but is '2'") as error:
        create_model("Own", width="2")
    assert error.value.argument == "width"


@pytest.mark.usefixtures("scratch")
def test_a_network_with_other_logits_is_an_error_when_built():
    register_model(Own)
    with pytest.raises(
        ConfigError, match=r"Own has 9 logits for num_classes = 4: its last torch.nn.Linear is 'fc'"
    ) as error:
        create_model("Own", 4, outputs=9)
    assert error.value.argument == "num_classes"


@pytest.mark.usefixtures("scratch")
def test_what_is_no_module_is_an_error_when_built():
    register_model(name="own")(lambda num_classes: [num_classes])
    with pytest.raises(ConfigError, match=r"own built list, which is no torch.nn.Module"):
        create_model("own")


@pytest.mark.parametrize("pooling", ["soft", SoftPool3d, "lip"])
def test_pooling_is_replaced_when_built(pooling):
    model = create_model("r3d_18", 3, width=4, pooling=pooling)
    named = {"soft": SoftPool3d, "lip": LocalImportancePool3d}
    assert type(model.pool) is named.get(pooling, pooling)
    assert type(create_model("r3d_18", 3, width=4).pool) is nn.MaxPool3d


def test_options_of_the_pooling_and_other_input_channels():
    model = create_model(
        "r3d_18", 3, pooling="lip", pooling_options={"logit_kernel": 1}, width=4, in_channels=2
    )
    assert model.pool.conv.weight.shape == (4, 4, 1, 1, 1)
    assert model.eval()(torch.rand(1, 2, 4, 16, 16)).shape == (1, 3)


def test_a_name_that_is_no_string_is_an_error():
    with pytest.raises(ConfigError, match=r"name must be a string.* of type Identity") as caught:
        create_model(nn.Identity())
    assert caught.value.argument == "name"


def test_facts_of_a_model():
    info = model_info("r3d_50")
    assert (info.modality, info.size, info.source) == ("video", (16, 224, 224), "vidpool")
    assert info.sizes == "any"
    assert info.options == (
        "num_classes",
        "width",
        "in_channels",
        "dropout",
        "gradient_checkpointing",
    )
    with pytest.raises(ConfigError, match="unknown model 'r3d50'"):
        model_info("r3d50")


@pytest.mark.usefixtures("scratch")
def test_a_name_with_a_prefix_and_facts():
    @register_model(name="zoo/gnu_v2", modality="image", smallest=(15, 20), source="the zoo")
    def gnu(*, num_classes: int) -> nn.Linear:
        return nn.Linear(2, num_classes)

    assert list_models("zoo/*") == ["zoo/gnu_v2"] == list_models()[-1:]
    assert "gnu" not in list_models()
    assert create_model("zoo/gnu_v2", 7).out_features == 7
    info = model_info("zoo/gnu_v2")
    assert (info.modality, info.size, info.source) == ("image", (224, 224), "the zoo")
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
