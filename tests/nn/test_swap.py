"""Which layers are exchanged, that shapes and state-dict keys stay, and what cannot be done."""

from collections import Counter

import pytest
import torch
import torchvision
from torch import nn

from vidpool.errors import ConfigError
from vidpool.models import create_model
from vidpool.nn import (
    POOLING_METHODS,
    AdaptiveSoftPool1d,
    AdaptiveSoftPool2d,
    AdaptiveSoftPool3d,
    SoftPool1d,
    SoftPool2d,
    SoftPool3d,
    swap_pooling,
)


class SamePadding(nn.MaxPool2d):
    """Pads by itself, so that its arguments do not tell its geometry."""

    def forward(self, x):
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


class Renamed(nn.MaxPool2d):
    """Computes what its base class does."""


def names(swaps):
    return [swap.name for swap in swaps]


def output_shapes(model, x):
    """Output shapes of all leaf modules, by name."""
    shapes = {}

    def record(name):
        return lambda _module, _args, out: shapes.update({name: out.shape})

    leaves = [(name, module) for name, module in model.named_modules() if not [*module.children()]]
    handles = [module.register_forward_hook(record(name)) for name, module in leaves]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return shapes


@pytest.mark.parametrize(
    ("build", "options", "expected"),
    [
        (torchvision.models.resnet18, {}, {nn.MaxPool2d: 1}),
        (torchvision.models.googlenet, {"init_weights": False}, {nn.MaxPool2d: 13}),
        (torchvision.models.densenet121, {}, {nn.MaxPool2d: 1, nn.AvgPool2d: 3}),
    ],
)
def test_torchvision_networks_keep_shapes_and_keys(build, options, expected):
    model = build(weights=None, num_classes=5, **options).eval()
    x = torch.rand(1, 3, 75, 70)
    shapes, keys = output_shapes(model, x), list(model.state_dict())
    swaps = swap_pooling(model)
    assert Counter(type(swap.old) for swap in swaps) == expected
    assert all(type(swap.new) is SoftPool2d for swap in swaps)
    assert all(model.get_submodule(swap.name) is swap.new for swap in swaps)
    assert list(model.state_dict()) == keys
    assert output_shapes(model, x) == shapes


def test_pytorchvideo_networks():
    from pytorchvideo import models as builders

    slowfast = builders.create_slowfast(model_num_class=5)
    assert names(swap_pooling(slowfast)) == [
        "blocks.0.multipathway_blocks.0.pool",
        "blocks.0.multipathway_blocks.1.pool",
    ]
    csn = builders.create_csn(model_num_class=5, stem_pool=nn.MaxPool3d).eval()
    x = torch.rand(1, 3, 4, 33, 33)
    stem, keys = csn.blocks[0], list(csn.state_dict())
    shape = stem(x).shape
    assert names(swap_pooling(csn)) == ["blocks.0.pool"]
    assert stem(x).shape == shape
    assert list(csn.state_dict()) == keys


@pytest.mark.parametrize("to", ["soft", "max", "avg"])
@pytest.mark.parametrize(
    ("old", "size"),
    [
        (nn.MaxPool1d(3, 2, 1), (9,)),
        (nn.AvgPool1d(2), (9,)),
        (nn.MaxPool2d(3, 2, 1, ceil_mode=True), (8, 9)),
        (nn.AvgPool2d((3, 2), (2, 1), (1, 0), ceil_mode=True), (8, 9)),
        (Renamed(2), (8, 9)),
        (nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)), (3, 8, 9)),
        (nn.AvgPool3d(2, [1, 2, 2]), (3, 8, 9)),
        (SoftPool1d(2), (9,)),
        (SoftPool3d(2, gradient="paper"), (3, 8, 9)),
    ],
    ids=repr,
)
def test_geometry_is_kept_between_all_methods(old, size, to):
    x = torch.rand(1, 2, *size)
    model = nn.Sequential(old)
    expected = old(x)
    (swap,) = swap_pooling(model, to)
    assert swap.old is old
    assert type(swap.new).__name__.lower().startswith(to)
    assert model(x).shape == expected.shape


def test_dilation_is_kept():
    model = nn.Sequential(nn.MaxPool2d(3, 2, 1, dilation=2))
    expected = model(torch.rand(1, 2, 11, 11)).shape
    swap_pooling(model)
    assert model(torch.rand(1, 2, 11, 11)).shape == expected


def test_averages_leave_the_padding_out():
    model = nn.Sequential(nn.MaxPool2d(3, 2, 1))
    swap_pooling(model, "avg")
    assert torch.equal(model(torch.ones(1, 1, 5, 5)), torch.ones(1, 1, 3, 3))


def test_options_reach_the_new_layers():
    model = nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(2))
    swap_pooling(model, gradient="paper")
    assert [layer.gradient for layer in model] == ["paper", "paper"]
    swap_pooling(model, gradient="exact")
    assert [layer.gradient for layer in model] == ["exact", "exact"]
    with pytest.raises(TypeError, match="gradient"):
        swap_pooling(model, "max", gradient="paper")


def every_sort():
    return nn.ModuleDict(
        {
            "max": nn.MaxPool2d(2),
            "max_stride_1": nn.MaxPool2d(3, 1, 1),
            "average": nn.AvgPool2d((1, 2)),
            "soft": SoftPool2d(2),
            "subclass": Renamed(2),
            "own": SamePadding(2),
            "head": nn.AvgPool3d(7, stride=(1, 1, 1)),
            "list_head": nn.AvgPool2d(7, stride=[1, 1]),
            "int_head": nn.AvgPool2d(7, stride=1),
            "inside": nn.AvgPool2d(3, stride=1, padding=1),
            "adaptive": nn.AdaptiveAvgPool3d(1),
            "relu": nn.ReLU(),
        }
    )


def test_default_takes_all_but_heads_and_layers_with_their_own_forward():
    swaps = swap_pooling(every_sort())
    assert names(swaps) == ["max", "max_stride_1", "average", "soft", "subclass", "inside"]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("head", ["head"]),
        ("max*", ["max", "max_stride_1"]),
        (["soft", "*head"], ["soft", "head", "list_head", "int_head"]),
        (lambda name, layer: name != "own" and layer.kernel_size == 2, ["max", "soft", "subclass"]),
    ],
)
def test_where_selects(where, expected):
    model = every_sort()
    assert names(swap_pooling(model, where=where)) == expected


def test_patterns_see_dotted_names():
    model = nn.Sequential(nn.Sequential(nn.MaxPool2d(2)), nn.Sequential(nn.MaxPool2d(2)))
    assert names(swap_pooling(model, where="1.*")) == ["1.0"]
    assert isinstance(model[0][0], nn.MaxPool2d)


def test_a_pattern_for_a_module_selects_what_it_contains():
    pools = nn.Sequential(nn.MaxPool2d(2), nn.Sequential(nn.MaxPool2d(2)))
    model = nn.ModuleDict({"a": pools, "ab": nn.MaxPool2d(2), "b": nn.MaxPool2d(2)})
    assert names(swap_pooling(model, where="a")) == ["a.0", "a.1.0"]
    assert names(swap_pooling(model, where=["a.1", "b"])) == ["a.1.0", "b"]


def test_one_instance_under_several_names_stays_one_instance():
    pool = nn.MaxPool2d(2)
    block = nn.Sequential(pool)
    model = nn.ModuleDict({"a": pool, "b": pool, "c": block, "d": block})
    swaps = swap_pooling(model)
    assert names(swaps) == ["a", "b", "c.0", "d.0"]
    assert model["a"] is model["b"] is model["c"][0] is model["d"][0] is swaps[0].new


@pytest.mark.parametrize("training", [True, False])
def test_training_flag_is_kept(training):
    model = nn.Sequential(nn.MaxPool2d(2)).train(training)
    swap_pooling(model)
    assert model[0].training is training


@pytest.mark.parametrize(
    ("layer", "to", "named"),
    [
        (nn.MaxPool2d(2, return_indices=True), "soft", r"1 \(MaxPool2d\) returns indices"),
        (nn.AvgPool2d(2, divisor_override=3), "soft", r"1 \(AvgPool2d\).*divisor_override"),
        (nn.MaxPool2d(2, dilation=(1, 2)), "avg", r"1 \(MaxPool2d\).*dilation \(1, 2\)"),
        (SamePadding(2), "soft", r"1 \(SamePadding\) has a forward of its own"),
    ],
)
def test_layer_without_an_equivalent_is_an_error_and_the_model_stays(layer, to, named):
    first = nn.MaxPool2d(2)
    model = nn.Sequential(first, layer)
    with pytest.raises(ConfigError, match=named):
        swap_pooling(model, to, where="*")
    assert model[0] is first
    assert model[1] is layer


def test_unknown_method_is_an_error_that_lists_the_known():
    with pytest.raises(ConfigError, match=r"'softer'.*soft, max, avg"):
        swap_pooling(nn.Sequential(nn.MaxPool2d(2)), "softer")


def test_a_model_that_is_a_pooling_layer_is_an_error():
    with pytest.raises(ConfigError, match="itself a pooling layer"):
        swap_pooling(nn.MaxPool2d(2))


def test_nothing_to_replace_is_an_error_that_lists_what_there_is():
    model = torchvision.models.video.r3d_18(weights=None)
    with pytest.raises(ConfigError, match=r"VideoResNet.*avgpool \(AdaptiveAvgPool3d: adaptive\)"):
        swap_pooling(model)
    with pytest.raises(
        ConfigError, match=r"adaptive=True replaces .*'soft', 'max', 'avg': avgpool$"
    ):
        swap_pooling(model, where="avgpool")
    with pytest.raises(ConfigError, match=r"pooling layers are: none$"):
        swap_pooling(nn.Sequential(nn.ReLU()))
    with pytest.raises(
        ConfigError, match=r"'layer9\.\*'.*head \(AvgPool3d: average with stride 1\)"
    ):
        swap_pooling(every_sort(), where="layer9.*")


NETWORKS = {
    "r3d_18": (lambda: create_model("r3d_18", num_classes=3, width=8), (2, 3, 4, 20, 20)),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=3), (2, 3, 33, 40)),
    "densenet121": (lambda: torchvision.models.densenet121(num_classes=3), (2, 3, 33, 40)),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_every_method_fits_into_networks_and_out_again(network):
    build, shape = NETWORKS[network]
    model, x = build().eval(), torch.rand(shape)
    keys, shapes = list(model.state_dict()), output_shapes(model, x)
    with torch.no_grad():
        logits = model(x)
    for method in POOLING_METHODS:
        swaps = swap_pooling(model, method, example=shape)
        assert len(swaps) == (4 if network == "densenet121" else 1)
        assert all(type(swap.new) in POOLING_METHODS[method].layers.values() for swap in swaps)
        pooled = output_shapes(model, x)
        assert all(pooled[swap.name] == shapes[swap.name] for swap in swaps if swap.name in pooled)
        assert pooled.keys() >= shapes.keys() - {swap.name for swap in swaps}
    stem, *transitions = names(swaps)
    swap_pooling(model, "max", where=stem)
    if transitions:
        swap_pooling(model, "avg", where=transitions)
    assert list(model.state_dict()) == keys
    with torch.no_grad():
        assert torch.equal(model(x), logits)


@pytest.mark.parametrize("to", POOLING_METHODS)
@pytest.mark.parametrize("old", POOLING_METHODS)
def test_every_method_becomes_every_other(old, to):
    x = torch.rand(2, 3, 9, 8)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(3, 2, 1))
    shape = model(x).shape
    swap_pooling(model, old, channels=4)
    (swap,) = swap_pooling(model, to, channels={"1": 4})
    assert type(swap.old) in POOLING_METHODS[old].layers.values()
    assert type(swap.new) in POOLING_METHODS[to].layers.values()
    assert model(x).shape == shape


def learner():
    return nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4),
        nn.Dropout(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 1),
        nn.MaxPool2d(2),
    )


def test_channels_are_found_with_an_example_that_changes_nothing():
    model = learner()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    swaps = swap_pooling(model, "dpp", example=(1, 3, 8, 8))
    assert [(swap.name, swap.new.channels) for swap in swaps] == [("3", 4), ("5", 6)]
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in state.items())
    assert torch.equal(torch.get_rng_state(), random)
    assert model(torch.rand(1, 3, 8, 8)).shape == (1, 6, 2, 2)


def test_channels_can_be_given():
    model = learner()
    swaps = swap_pooling(model, "ordinal", channels={"3": 4, "5": 6})
    assert [swap.new.channels for swap in swaps] == [4, 6]
    # layers that know their channels hand them on
    assert [swap.new.channels for swap in swap_pooling(model, "lip")] == [4, 6]
    (swap,) = swap_pooling(learner(), "lift", where="5", channels=6)
    assert swap.new.channels == 6


def test_methods_that_can_do_without_channels_take_them_where_known():
    assert [swap.new.channels for swap in swap_pooling(learner(), "lp")] == [None, None]
    swaps = swap_pooling(learner(), "gated", example=(1, 3, 8, 8))
    assert [swap.new.channels for swap in swaps] == [4, 6]


def test_missing_channels_are_an_error_and_the_model_stays():
    model = learner()
    layers = [*model]
    with pytest.raises(
        ConfigError, match=r"LocalImportancePool2d learns.*3, 5.*example=\(1, 3.*channels=\{'3': 64"
    ):
        swap_pooling(model, "lip")
    with pytest.raises(ConfigError, match=r"LocalImportancePool2d learns.* 5 pool"):
        swap_pooling(model, "lip", channels={"3": 4})
    with pytest.raises(ConfigError, match=r"channels names '4'.*3, 5"):
        swap_pooling(model, "lip", channels={"4": 4})
    with pytest.raises(ConfigError, match=r"5 \(MaxPool2d\): channels must be at least 1"):
        swap_pooling(model, "lip", channels={"3": 4, "5": 0})
    assert [*model] == layers


def test_a_geometry_that_the_new_layer_refuses_is_an_error_with_its_name():
    model = nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(3, 1, 1))
    with pytest.raises(ConfigError, match=r"^1 \(MaxPool2d\): LiftPool halves"):
        swap_pooling(model, "lift", channels=3)
    assert isinstance(model[0], nn.MaxPool2d)
    model[1] = nn.MaxPool2d(2, padding=5)  # which PyTorch accepts until it has to pool
    with pytest.raises(ConfigError, match=r"^1 \(MaxPool2d\): padding should be .* at most half"):
        swap_pooling(model)
    assert isinstance(model[0], nn.MaxPool2d)


def test_new_layers_have_the_models_dtype():
    model = learner().double()
    swap_pooling(model, "lip", example=(1, 3, 8, 8))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert model(torch.rand(2, 3, 8, 8).double()).dtype == torch.float64


def test_the_authors_geometry_is_that_of_their_stem():
    model = create_model("r3d_18", num_classes=3, width=8).eval()
    stem_output = (1, 8, 8, 45, 45)
    (swap,) = swap_pooling(model, "soft", geometry="authors")
    assert (swap.new.kernel_size, swap.new.stride, swap.new.padding) == (2, 2, 0)
    # facts: 45 cells become 22 instead of 23
    assert swap.new(torch.rand(stem_output)).shape == (1, 8, 4, 22, 22)
    assert swap.old(torch.rand(stem_output)).shape == (1, 8, 4, 23, 23)


def test_the_authors_geometry_leaves_other_windows_alone():
    model = torchvision.models.densenet121(num_classes=3)
    swaps = swap_pooling(model, geometry="authors")
    assert [(swap.new.kernel_size, swap.new.padding) for swap in swaps] == [(2, 0)] * 4
    assert [swap.old.padding for swap in swaps] == [1, 0, 0, 0]
    with pytest.raises(ConfigError, match=r"'authors'.*none of these has: 0: .*'keep'"):
        swap_pooling(
            nn.Sequential(nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))), geometry="authors"
        )
    with pytest.raises(ConfigError, match=r"geometry 'theirs': choose from keep, authors"):
        swap_pooling(nn.Sequential(nn.MaxPool2d(2)), geometry="theirs")


class OwnHead(nn.AdaptiveAvgPool2d):
    """Computes what its arguments do not tell."""

    def forward(self, x):
        return super().forward(x) + 1


@pytest.mark.parametrize(
    ("build", "shape", "expected"),
    [
        (
            torchvision.models.resnet18,
            (2, 3, 65, 40),
            {"maxpool": SoftPool2d, "avgpool": AdaptiveSoftPool2d},
        ),
        (torchvision.models.video.r3d_18, (1, 3, 4, 33, 20), {"avgpool": AdaptiveSoftPool3d}),
    ],
)
def test_adaptive_replaces_heads_too(build, shape, expected):
    model, x = build(num_classes=3).eval(), torch.rand(shape)
    keys, shapes = list(model.state_dict()), output_shapes(model, x)
    with torch.no_grad():
        logits = model(x)
    swaps = swap_pooling(model, adaptive=True, gradient="paper")
    assert {swap.name: type(swap.new) for swap in swaps} == expected
    assert {swap.new.gradient for swap in swaps} == {"paper"}
    assert list(model.state_dict()) == keys
    assert output_shapes(model, x) == shapes
    with torch.no_grad():
        assert not torch.allclose(model(x), logits)
        swap_pooling(model, "avg", where="avgpool", adaptive=True)
        if "maxpool" in expected:
            swap_pooling(model, "max", where="maxpool")
        assert torch.equal(model(x), logits)


@pytest.mark.parametrize("to", ["soft", "max", "avg"])
@pytest.mark.parametrize(
    ("old", "size"),
    [
        (nn.AdaptiveAvgPool1d(3), (8,)),
        (AdaptiveSoftPool1d(1), (8,)),
        (nn.AdaptiveMaxPool2d((None, 2)), (8, 9)),
        (AdaptiveSoftPool2d(4, gradient="paper"), (8, 9)),
        (nn.AdaptiveAvgPool3d((1, None, 3)), (3, 8, 9)),
        (nn.AdaptiveMaxPool3d(2), (3, 8, 9)),
    ],
    ids=repr,
)
def test_output_size_is_kept_between_adaptive_layers(old, size, to):
    x = torch.rand(1, 2, *size)
    model = nn.Sequential(old).eval()
    expected = old(x)
    (swap,) = swap_pooling(model, to, adaptive=True)
    assert type(swap.new).__name__ == f"Adaptive{to.capitalize()}Pool{len(size)}d"
    assert not swap.new.training
    assert model(x).shape == expected.shape


def test_adaptive_layers_are_selected_like_others():
    model = every_sort()
    swaps = swap_pooling(model, adaptive=True)
    assert names(swaps) == [
        "max",
        "max_stride_1",
        "average",
        "soft",
        "subclass",
        "inside",
        "adaptive",
    ]
    assert names(swap_pooling(every_sort(), adaptive=True, where="adap*")) == ["adaptive"]
    shared = nn.AdaptiveAvgPool2d(1)
    model = nn.ModuleDict({"a": shared, "b": shared, "own": OwnHead(1)})
    assert names(swap_pooling(model, adaptive=True)) == ["a", "b"]
    assert model["a"] is model["b"]


@pytest.mark.parametrize(
    ("layer", "to", "argument", "named"),
    [
        (nn.AdaptiveMaxPool2d(1, return_indices=True), "soft", None, r"1 .*returns indices"),
        (OwnHead(1), "soft", None, r"1 \(OwnHead\) has a forward of its own"),
        (nn.AdaptiveAvgPool2d(1), "lp", "adaptive", r"1 \(Ada.*'lp' has no.*'soft', 'max', 'avg'"),
        (nn.AdaptiveAvgPool2d(1), nn.MaxPool2d, "adaptive", "MaxPool2d has no adaptive layers"),
        (nn.AdaptiveAvgPool2d((1, -1)), "soft", "to", r"1 .*output_size.*\(1, -1\)"),
    ],
)
def test_an_adaptive_layer_without_an_equivalent_is_an_error(layer, to, argument, named):
    first = nn.MaxPool2d(2)
    model = nn.Sequential(first, layer)
    with pytest.raises(ConfigError, match=named) as caught:
        swap_pooling(model, to, where="*", adaptive=True)
    assert caught.value.argument == argument
    assert model[0] is first
    assert model[1] is layer


def test_create_model_passes_adaptive_on():
    options = {"pooling_options": {"adaptive": True}, "num_classes": 3, "width": 8}
    model = create_model("r3d_18", pooling="soft", **options)
    assert (type(model.pool), type(model.avgpool)) == (SoftPool3d, AdaptiveSoftPool3d)
    with pytest.raises(ConfigError, match=r"pooling_options \{'adaptive': True\}.*'lip' has no ad"):
        create_model("r3d_18", pooling="lip", **options)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_is_refused():
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)))
    traced = torch.jit.trace(scripted, torch.randn(1, 3, 8, 8))
    for model in (scripted, traced, nn.Sequential(scripted, nn.MaxPool2d(2))):
        with pytest.raises(ConfigError, match="is a TorchScript module"):
            swap_pooling(model)
