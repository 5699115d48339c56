"""PyTorchVideo's networks against PyTorchVideo's own, as its hub builds them."""

import pytest
import torch
from pytorchvideo.models import hub, slowfast
from torch import nn

from vidpool.errors import ConfigError
from vidpool.models import PyTorchVideoNet, create_model, list_models, model_info
from vidpool.models.cost import measure_cost, pooling_layers
from vidpool.models.pytorchvideo_models import split_pathways
from vidpool.nn import swap_pooling


def slowfast_4x16(**options):
    """As in SlowFast's SLOWFAST_4x16_R50.yaml; the hub has no function for it."""
    return slowfast.create_slowfast(
        slowfast_fusion_conv_kernel_size=(5, 1, 1),
        slowfast_fusion_conv_stride=(8, 1, 1),
        head_pool_kernel_sizes=((4, 7, 7), (32, 7, 7)),
        **options,
    )


ORIGINALS = {
    "pytorchvideo/ir_csn_101": hub.csn_r101,
    "pytorchvideo/r2plus1d_r50": hub.r2plus1d_r50,
    "pytorchvideo/slow_r50": hub.slow_r50,
    "pytorchvideo/slowfast_r50_4x16": slowfast_4x16,
    "pytorchvideo/slowfast_r50_8x8": hub.slowfast_r50,
    "pytorchvideo/x3d_xs": hub.x3d_xs,
    "pytorchvideo/x3d_s": hub.x3d_s,
    "pytorchvideo/x3d_m": hub.x3d_m,
    "pytorchvideo/x3d_l": hub.x3d_l,
}
ALPHA = {"pytorchvideo/slowfast_r50_4x16": 8, "pytorchvideo/slowfast_r50_8x8": 4}
each = pytest.mark.parametrize("name", ORIGINALS)
# the others differ from these in depth or in the size of the window; the slow tests have all
some = pytest.mark.parametrize(
    "name", [name for name in ORIGINALS if name.rpartition("_")[2] not in ("s", "m", "l", "8x8")]
)


def on_meta(build, *args, **options):
    with torch.device("meta"):
        return build(*args, **options)


def randomised(model):
    """The model in evaluation mode and float64, with batch norms that do something."""
    generator = torch.Generator().manual_seed(0)
    for module in model.double().modules():
        if isinstance(module, nn.BatchNorm3d):
            for tensor in (module.weight, module.running_var):
                tensor.data.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias, module.running_mean):
                tensor.data.normal_(0, 0.1, generator=generator)
    return model.eval()


def compute(original, name, clip):
    """What PyTorchVideo's network computes of a clip; two pathways as its tutorial makes them."""
    if name not in ALPHA:
        return original(clip)
    frames = clip.shape[2]
    index = torch.linspace(0, frames - 1, frames // ALPHA[name]).long()
    return original([torch.index_select(clip, 2, index), clip])


def assert_same(logits, expected, original):
    if original.blocks[-1].activation is not None:  # a softmax, which ours leave out
        logits = logits.softmax(1)
    assert logits.shape == expected.shape
    assert (logits - expected).abs().max() <= 1e-8 * expected.abs().max()


def test_all_are_listed():
    assert set(list_models("pytorchvideo/*")) == set(ORIGINALS)


@some
def test_state_dict_is_pytorchvideos(name):
    ours, theirs = on_meta(create_model, name), on_meta(ORIGINALS[name])
    shapes = [{k: v.shape for k, v in model.state_dict().items()} for model in (ours, theirs)]
    assert shapes[0] == shapes[1]


def test_computes_what_pytorchvideos_does_from_its_weights():
    name = "pytorchvideo/x3d_xs"
    original = randomised(hub.x3d_xs())
    model = create_model(name).double().eval()
    model.load_state_dict(original.state_dict())
    clip = torch.randn(1, 3, 4, 160, 160, dtype=torch.float64)
    with torch.no_grad():
        assert_same(model(clip), original(clip), original)


def test_slowfast_splits_its_pathways():
    adaptive = {"head_pool": nn.AdaptiveAvgPool3d, "head_output_size": ((1, 1, 1), (1, 1, 1))}
    original = randomised(hub.slowfast_r50(model_num_class=5, **adaptive))
    model = create_model("pytorchvideo/slowfast_r50_8x8", num_classes=5).double().eval()
    model.load_state_dict(original.state_dict())
    clip = torch.randn(2, 3, 8, 40, 32, dtype=torch.float64)
    before = clip.clone()
    with torch.no_grad():
        assert_same(model(clip), compute(original, "pytorchvideo/slowfast_r50_8x8", clip), original)
        assert torch.equal(clip, before)
        # frames that alpha does not divide: the connections round up, and so do the pathways
        assert model(clip[:, :, :7]).isfinite().all()


@some
def test_head_at_the_size_it_was_designed_for(name):
    """The only part that differs, on feature maps as a clip of that size gives them."""
    heads = 2 if name in ALPHA else 1  # SlowFast's has its pooling in a block of its own
    original, shapes = on_meta(ORIGINALS[name]).eval(), []

    def record(_, inputs):
        shapes.extend(x.shape for x in (inputs[0] if name in ALPHA else inputs))

    original.blocks[-heads].register_forward_pre_hook(record)
    with torch.no_grad():
        compute(original, name, torch.empty(1, 3, *model_info(name).size, device="meta"))
    theirs = randomised(original.blocks[-heads:].to_empty(device="cpu"))
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.1)
    blocks = on_meta(create_model, name).blocks[-heads:].to_empty(device="cpu").double()
    model = PyTorchVideoNet(blocks, dropout=0.0).eval()
    model.blocks.load_state_dict(theirs.state_dict())
    maps = [torch.randn(2, *shape[1:], dtype=torch.float64) for shape in shapes]
    with torch.no_grad():
        if name in ALPHA:
            expected = theirs[1](theirs[0](list(maps)))
            logits = model.blocks[1].proj(model.blocks[0](list(maps)).flatten(1))
        else:
            expected, logits = theirs[0](maps[0]), model(maps[0])
    assert_same(logits, expected, original)


@pytest.mark.slow
@each
def test_whole_network_at_the_size_it_was_designed_for(name):
    original = randomised(ORIGINALS[name]())
    model = create_model(name).double().eval()
    model.load_state_dict(original.state_dict())
    clip = torch.randn(1, 3, *model_info(name).size, dtype=torch.float64)
    with torch.no_grad():
        assert_same(model(clip), compute(original, name, clip), original)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("pytorchvideo/ir_csn_101", (7, 33, 45)),
        ("pytorchvideo/r2plus1d_r50", (1, 1, 1)),
        ("pytorchvideo/slow_r50", (3, 224, 160)),
        ("pytorchvideo/slowfast_r50_4x16", (17, 33, 45)),
        ("pytorchvideo/slowfast_r50_4x16", (1, 1, 1)),
        ("pytorchvideo/x3d_xs", (7, 33, 45)),
        ("pytorchvideo/x3d_xs", (1, 1, 1)),
    ],
)
def test_any_clip_size(name, size):
    model = on_meta(create_model, name, num_classes=7).eval()
    clips = torch.empty(2, 3, *size, device="meta")
    features = model.forward_features(clips)
    assert features.shape == (2, model.blocks[-1].proj.in_features)
    assert model.blocks[-1].proj(features).shape == (2, 7)
    model_info(name).check_size(size)


@pytest.mark.parametrize(
    ("frames", "alpha", "picked"),
    [(32, 8, [0, 10, 20, 31]), (16, 4, [0, 5, 10, 15]), (9, 4, [0, 4, 8]), (1, 8, [0])],
)
def test_split_pathways(frames, alpha, picked):
    clip = torch.arange(frames).reshape(1, 1, -1, 1, 1).expand(2, 3, -1, 2, 2)
    slow, fast = split_pathways(clip, alpha)
    assert slow[1, 2, :, 1, 0].tolist() == picked
    assert fast is clip


def test_dropout():
    model = create_model("pytorchvideo/x3d_xs", num_classes=3, dropout=0.9).eval()
    clips = torch.randn(2, 3, 2, 32, 32)
    features = model.forward_features(clips)
    assert torch.equal(model(clips), model.blocks[-1].proj(features))
    model.dropout.train()
    assert not torch.equal(model(clips), model(clips))


def test_cost():
    """In 10^9 multiply-adds: SlowFast's is within 0.7 % of the paper's 36.71."""
    model = on_meta(create_model, "pytorchvideo/slowfast_r50_4x16")
    cost = measure_cost(model, (32, 224, 224))
    assert cost.conv_linear / 1e9 == pytest.approx(27.64, rel=1e-3)
    assert cost.parameters / 1e6 == pytest.approx(34.48, rel=1e-3)
    assert measure_cost(model, (32, 256, 256)).paper / 1e9 == pytest.approx(36.44, rel=1e-3)
    cost = measure_cost(on_meta(create_model, "pytorchvideo/ir_csn_101"), (32, 224, 224))
    assert cost.parameters / 1e6 == pytest.approx(22.21, rel=1e-3)
    assert cost.fvcore / 1e9 == pytest.approx(57.0, rel=1e-3)


def test_pooling_is_swapped():
    model = on_meta(create_model, "pytorchvideo/slowfast_r50_4x16").eval()
    listed = {layer.name: layer for layer in pooling_layers(model, (16, 64, 64))}
    names = [f"blocks.0.multipathway_blocks.{i}.pool" for i in (0, 1)]
    assert [name for name, layer in listed.items() if layer.swapped] == names
    assert [listed[name].sizes[0] for name in names] == [(2, 32, 32), (16, 32, 32)]
    assert [swap.name for swap in swap_pooling(model)] == names
    assert model(torch.empty(1, 3, 16, 64, 64, device="meta")).shape == (1, 400)


@pytest.mark.parametrize("option", [{"num_classes": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_bad_option_is_an_error_that_names_it(option):
    ((name, value),) = option.items()
    with pytest.raises(ConfigError, match=f"{name} must be .*{value}"):
        on_meta(create_model, "pytorchvideo/x3d_s", **option)


def test_clip_of_the_wrong_rank_is_an_error_that_names_its_shape():
    model = on_meta(create_model, "pytorchvideo/slowfast_r50_4x16")
    with pytest.raises(ValueError, match=r"\(3, 4, 16, 16\)"):
        model(torch.empty(3, 4, 16, 16, device="meta"))
