"""torchvision's networks against torchvision's own."""

from collections import Counter

import pytest
import torch
import torchvision
from torch import nn

from vidpool.errors import ConfigError
from vidpool.models import create_model, list_models, model_info
from vidpool.models.cost import measure_cost, pooling_layers
from vidpool.nn import swap_pooling

VIDEO = ("r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v2_s", "swin3d_t")
IMAGE = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("densenet121", "densenet161", "densenet169"),
    *("resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2"),
    *("googlenet", "inception_v3"),
)
# one of each class that builds and runs in no time; the slow tests have all
SMALL = {
    "r2plus1d_18": (3, 20, 24),
    "s3d": (9, 33, 40),
    "swin3d_t": (4, 33, 40),
    "resnet18": (33, 40),
    "densenet121": (33, 40),
    "googlenet": (33, 40),
    "inception_v3": (75, 80),
}


def original(name, **options):
    """torchvision's network, whose batch norms do something, in evaluation mode and float64."""
    package = torchvision.models.video if name in VIDEO else torchvision.models
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True} | options
    model = getattr(package, name)(weights=None, **options).double()
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.running_mean.normal_(0, 0.1, generator=generator)
    return model.eval()


def ours(name, **options):
    return create_model(f"torchvision/{name}", **options)


def on_meta(build, *args, **options):
    with torch.device("meta"):
        return build(*args, **options)


def assert_same(model, reference, size):
    model.double().eval().load_state_dict(reference.state_dict())
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected, logits = reference(x), model(x)
    assert logits.shape == expected.shape
    assert (logits - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_all_are_listed():
    assert set(list_models("torchvision/*")) == {f"torchvision/{n}" for n in (*VIDEO, *IMAGE)}
    modalities = {name: model_info(f"torchvision/{name}").modality for name in (*VIDEO, *IMAGE)}
    assert modalities == dict.fromkeys(VIDEO, "video") | dict.fromkeys(IMAGE, "image")


@pytest.mark.parametrize("name", ["mvit_v2_s", "mc3_18", "resnext50_32x4d"])
def test_state_dict_is_torchvisions(name):
    models = on_meta(ours, name, num_classes=7), on_meta(original, name, num_classes=7)
    shapes = [{k: v.shape for k, v in model.state_dict().items()} for model in models]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", SMALL)
def test_computes_what_torchvisions_does_from_its_weights(name):
    reference = original(name, num_classes=5)
    if name == "s3d":  # its head takes 16x224x224 and more
        reference.avgpool = nn.AdaptiveAvgPool3d(1)
    assert_same(ours(name, num_classes=5), reference, SMALL[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [*VIDEO, *IMAGE])
def test_computes_the_same_at_the_size_it_was_designed_for(name):
    size = (2, 112, 112) if name == "mc3_18" else model_info(f"torchvision/{name}").size
    assert_same(ours(name, num_classes=5), original(name, num_classes=5), size)


def test_s3ds_head_is_the_same_at_the_size_it_was_designed_for():
    maps = torch.randn(2, 1024, 2, 7, 7, dtype=torch.float64)
    reference = original("s3d", num_classes=5)
    model = ours("s3d", num_classes=5).double().eval()
    model.load_state_dict(reference.state_dict())
    model.features = reference.features = nn.Identity()
    with torch.no_grad():
        features = model.avgpool(maps).flatten(1)
        logits = model.classifier(features[..., None, None, None]).flatten(1)
        assert torch.allclose(logits, reference(maps), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["r3d_18", "mvit_v2_s", "swin3d_t", "s3d", "resnet50", "densenet121", "inception_v3"]
)
def test_features_and_sizes(name):
    model = on_meta(ours, name, num_classes=7).eval()
    info = model_info(f"torchvision/{name}")
    for size in {info.size, info.smallest}:
        x = torch.empty(2, 3, *size, device="meta")
        features = model.forward_features(x)
        assert model(x).shape == (2, 7)
        (layer,) = [m for m in model.modules() if getattr(m, "out_features", 0) == 7] or [
            m for m in model.modules() if getattr(m, "out_channels", 0) == 7
        ]
        assert features.shape == (2, getattr(layer, "in_features", 1024))


@pytest.mark.parametrize(
    ("name", "size", "takes"),
    [
        ("s3d", (4, 17, 17), "5x17x17 or larger"),
        ("s3d", (5, 16, 17), "5x17x17 or larger"),
        ("mvit_v2_s", (8, 224, 224), "16x224x224 only"),
        ("mvit_v2_s", (16, 256, 256), "16x224x224 only"),
        ("densenet121", (28, 40), "29x29 or larger"),
        ("googlenet", (14, 15), "15x15 or larger"),
        ("inception_v3", (75, 74), "75x75 or larger"),
    ],
)
def test_a_size_that_it_cannot_take_is_an_error_that_says_what_it_takes(name, size, takes):
    model = on_meta(ours, name).eval()
    x = torch.empty(1, 3, *size, device="meta")
    text = "x".join(map(str, size))
    with pytest.raises(ConfigError, match=f"torchvision/{name} does not take .*{text}: {takes}"):
        model(x)
    reference = on_meta(original, name)
    if name == "s3d":
        reference.avgpool = nn.AdaptiveAvgPool3d(1)
    with pytest.raises((RuntimeError, ValueError)):  # so the limit is not too strict
        reference(x.double())


@pytest.mark.parametrize(
    ("name", "shape", "axes"),
    [
        ("resnet18", (1, 3, 4, 32, 32), r"\(N, C, H, W\)"),
        ("s3d", (3, 32, 32), r"\(N, C, T, H, W\)"),
    ],
)
def test_the_wrong_rank_is_an_error_that_names_the_axes(name, shape, axes):
    with pytest.raises(ConfigError, match=f"torchvision/{name} takes .*{axes}.*{shape[0]}, 3"):
        on_meta(ours, name)(torch.empty(shape, device="meta"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", {"MaxPool2d": 1}),
        ("wide_resnet50_2", {"MaxPool2d": 1}),
        ("densenet121", {"MaxPool2d": 1, "AvgPool2d": 3}),
        ("googlenet", {"MaxPool2d": 13}),
        ("inception_v3", {"MaxPool2d": 2}),
        ("s3d", {"MaxPool3d": 13}),
    ],
)
def test_what_is_swapped(name, expected):
    model = on_meta(ours, name).eval()
    info = model_info(f"torchvision/{name}")
    layers = pooling_layers(model, info.size)
    assert Counter(layer.kind for layer in layers if layer.swapped) == expected
    sizes = {layer.name: layer.sizes for layer in layers}
    swap_pooling(model)
    after = {layer.name: layer.sizes for layer in pooling_layers(model, info.size)}
    assert after.items() <= sizes.items()
    assert model(torch.empty(1, 3, *info.size, device="meta")).shape == (1, 400)


@pytest.mark.parametrize("name", ["r3d_18", "mc3_18", "r2plus1d_18", "swin3d_t"])
def test_networks_without_pooling_say_so(name):
    with pytest.raises(ConfigError, match=r"no pooling layer to replace; .*AdaptiveAvgPool3d"):
        swap_pooling(on_meta(ours, name))


def test_functions_are_listed_after_layers():
    layers = pooling_layers(on_meta(ours, "inception_v3"), (299, 299))
    called = [layer for layer in layers if layer.called]
    assert Counter(layer.kind for layer in called) == {"MaxPool2d": 2, "AvgPool2d": 9}
    first = called[0]
    assert first.name == "Mixed_5b.avg_pool2d"
    assert first.geometry == {"kernel_size": 3, "stride": 1, "padding": 1}
    assert first.sizes == ((35, 35), (35, 35))
    assert layers[-1].called
    assert not layers[0].called


def test_table_6_can_be_repeated_on_inception_v3():
    """Table 6 replaces pool1, pool2, mixed 5b-d, 6a, 6b-e, 7a and 7b-d, one after the other."""
    model = on_meta(ours, "inception_v3")
    steps = {"maxpool*": 2, "Mixed_5*": 3, "Mixed_6a*": 1, "Mixed_6[b-e]*": 4, "Mixed_7a*": 1}
    steps["Mixed_7[bc]*"] = 2
    for where, count in steps.items():
        assert len(swap_pooling(model, where=where, functional=True)) == count
    assert model.eval()(torch.empty(1, 3, 299, 299, device="meta")).shape == (1, 400)


@pytest.mark.parametrize(("name", "heads"), [("googlenet", 2), ("inception_v3", 1)])
def test_auxiliary_heads(name, heads):
    reference = on_meta(original, name, aux_logits=True, num_classes=5)
    model = on_meta(ours, name, aux_logits=True, num_classes=5)
    x = torch.empty(2, 3, 299, 299, device="meta")
    assert model.state_dict().keys() == reference.state_dict().keys()
    assert [logits.shape for logits in model(x)] == [(2, 5)] * (1 + heads)
    assert model.eval()(x).shape == (2, 5)
    # a network without them takes the checkpoint all the same
    plain = on_meta(ours, name, num_classes=5)
    plain.load_state_dict(reference.state_dict())
    assert plain(x).shape == (2, 5)
    with pytest.raises(RuntimeError, match="aux9"):
        plain.load_state_dict(reference.state_dict() | {"aux9.weight": torch.zeros(1)})


def test_auxiliary_heads_see_what_torchvisions_see():
    reference = original("googlenet", aux_logits=True, num_classes=5, dropout=0.0, dropout_aux=0.0)
    model = ours("googlenet", aux_logits=True, num_classes=5, dropout=0.0).double()
    model.load_state_dict(reference.state_dict())
    for head in (model.aux1, model.aux2):
        head.dropout.p = 0.0
    x = torch.randn(2, 3, 33, 40, dtype=torch.float64)
    with torch.no_grad():
        for logits, expected in zip(model.train()(x), reference.train()(x), strict=True):
            assert torch.allclose(logits, expected, rtol=1e-10, atol=1e-12)


def test_inception_v3_with_auxiliary_head_trains_on_large_pictures_only():
    model = on_meta(ours, "inception_v3", aux_logits=True)
    x = torch.empty(2, 3, 298, 299, device="meta")
    assert model.eval()(x).shape == (2, 400)
    with pytest.raises(ConfigError, match="not on 298x299; smaller pictures need aux_logits=False"):
        model.train()(x)


def test_dropout():
    model = ours("resnet18", num_classes=3, dropout=0.9).eval()
    x = torch.randn(2, 3, 32, 32)
    features = model.forward_features(x)
    assert torch.equal(model(x), model.fc(features))
    model.dropout.train()
    assert not torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    ("name", "millions", "billions"),
    # Table 2 of the paper, which has both rounded, and counts more than this convention
    [("resnet18", 11.7, 1.83), ("resnet50", 25.6, 4.14), ("densenet121", 8.0, 2.90)],
)
def test_cost_is_table_2s(name, millions, billions):
    cost = measure_cost(on_meta(ours, name, num_classes=1000), (224, 224))
    assert cost.parameters / 1e6 == pytest.approx(millions, abs=0.06)
    assert cost.paper / 1e9 == pytest.approx(billions, rel=1e-2)


@pytest.mark.parametrize("option", [{"num_classes": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_bad_option_is_an_error_that_names_it(option):
    ((name, value),) = option.items()
    with pytest.raises(ConfigError, match=f"{name} must be .*{value}"):
        ours("resnet18", **option)
