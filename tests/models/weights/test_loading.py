"""Published files in the networks, and weights that do not fit."""

from pathlib import Path

import pytest
import torch
from tiny_networks import assert_same_logits, randomised, tiny
from torch import nn

from vidpool.errors import CheckpointError, ConfigError
from vidpool.models import create_model, load_weights
from vidpool.models.weights import MismatchError, Weights, count_classes


def unchanged(model, call):
    """Check that a call that raises leaves the model alone; returns what it raised."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        call()
    for key, value in model.state_dict().items():
        assert torch.equal(before[key], value), key
    return caught.value


@pytest.mark.parametrize(
    ("name", "ours", "wrap"),
    [
        (
            "srtg_r3d_50",
            "srtg_r3d_50",
            lambda state: {
                "epoch": 7,
                "state_dict": {f"module.{key}": value for key, value in state.items()},
                "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
            },
        ),
        ("i3d_inception", "i3d", dict),
    ],
)
def test_published_files_compute_what_they_did(name, ours, wrap, reference, tmp_path):
    expected = reference(name)
    torch.save(wrap(expected.weights), tmp_path / "theirs.pth")
    model = create_model(ours, num_classes=expected.logits.shape[1]).double()
    report = load_weights(model, tmp_path / "theirs.pth")
    assert set(report.matched) == expected.shapes.keys()
    assert not report.fresh
    assert not report.unexpected
    if name.startswith("srtg"):
        assert report.prefix == "module."
        assert report.other_entries == ("epoch", "optimizer")
    with torch.no_grad():
        logits = model.train(expected.training)(expected.clip)
    assert (logits - expected.logits).abs().max() <= 1e-8 * expected.logits.abs().max()


def test_pytorchvideo_hub_file(tmp_path):
    hub = pytest.importorskip("pytorchvideo.models.hub")
    theirs = randomised(hub.x3d_xs(model_num_class=7, head_activation=None))
    torch.save({"model_state": theirs.state_dict()}, tmp_path / "X3D_XS.pyth")
    ours = create_model("pytorchvideo/x3d_xs", num_classes=7).double().eval()
    report = load_weights(ours, tmp_path / "X3D_XS.pyth")
    assert set(report.matched) == theirs.state_dict().keys()
    assert_same_logits(theirs, ours, torch.randn(1, 3, 4, 160, 160, dtype=torch.float64))


def test_torchvision_file(tmp_path):
    from torchvision.models.video import r3d_18

    theirs = randomised(r3d_18(num_classes=7))
    torch.save(theirs.state_dict(), tmp_path / "r3d_18.pth")
    ours = create_model("torchvision/r3d_18", num_classes=7).double().eval()
    assert not load_weights(ours, tmp_path / "r3d_18.pth").fresh
    assert_same_logits(theirs, ours, torch.randn(1, 3, 4, 32, 32, dtype=torch.float64))


def test_auxiliary_heads_that_the_network_lacks_are_told_but_no_error():
    from torchvision.models import googlenet

    theirs = googlenet(num_classes=3, init_weights=False, aux_logits=True)
    ours = create_model("torchvision/googlenet", num_classes=3)
    report = load_weights(ours, Weights(Path("g.pth"), theirs.state_dict(), {}))
    assert not report.fresh
    assert report.unexpected
    assert all(key.startswith("aux") for key in report.unexpected)


@pytest.mark.parametrize("name", ["r2plus1d_18", "i3d", "mfnet"])
def test_bgr_gives_on_rgb_clips_what_the_original_gives_on_bgr_clips(name, tmp_path):
    theirs, ours = randomised(tiny(name)), tiny(name)
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    report = load_weights(ours, tmp_path / "a.pth", bgr=True)
    (first,) = report.swapped
    assert ours.state_dict()[first].shape[1] == 3
    clip = torch.randn(2, 3, 4, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(clip.flip(1))
        assert (ours(clip) - expected).abs().max() <= 1e-8 * expected.abs().max()
        assert (ours(clip.flip(1)) - expected).abs().max() > 1e-3 * expected.abs().max()


def test_bgr_swaps_both_pathways_of_slowfast():
    pytest.importorskip("pytorchvideo")
    model = create_model("pytorchvideo/slowfast_r50_8x8", num_classes=3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = load_weights(model, Weights(Path("a.pyth"), before, {}), bgr=True)
    assert len(report.swapped) == 2
    for key, value in model.state_dict().items():
        expected = before[key].flip(1) if key in report.swapped else before[key]
        assert torch.equal(value, expected), key
        if value.ndim == 5 and value.shape[1] == 3:
            assert key in report.swapped


def test_bgr_needs_three_channels():
    model = tiny(in_channels=2)
    weights = Weights(Path("a.pth"), tiny(in_channels=2).state_dict(), {})
    error = unchanged(model, lambda: load_weights(model, weights, bgr=True))
    assert "this network's has 2" in str(error)


def test_a_resnet_whose_bottlenecks_expand_is_of_another_family():
    from torchvision.models import resnet50

    with torch.device("meta"):
        state = resnet50().state_dict()
    ours = create_model("r3d_50", num_classes=3)
    for partial in (False, True):
        error = unchanged(
            ours,
            lambda partial=partial: load_weights(
                ours, Weights(Path("a.pth"), state, {}), inflate=True, partial=partial
            ),
        )
        assert "bottlenecks expand by 4 (layer1.0.conv3.0.weight makes 256 planes of 64)" in str(
            error
        )


def test_an_srtg_file_of_expansion_four_is_of_another_family():
    ours = tiny("srtg_r3d_50")
    state = {f"module.{key}": value for key, value in ours.state_dict().items()}
    state["module.layer1.0.conv3.0.weight"] = torch.zeros(16, 4, 1, 1, 1)
    error = unchanged(ours, lambda: load_weights(ours, Weights(Path("a.pth"), state, {})))
    assert "bottlenecks expand by 4 (layer1.0.conv3.0.weight makes 16 planes of 4)" in str(error)


def test_everything_that_differs_is_listed(tmp_path):
    theirs, ours = tiny().state_dict(), tiny()
    theirs["stem.0.weight"] = theirs["stem.0.weight"][:, :, :1]
    theirs["extra.weight"] = torch.zeros(3)
    del theirs["layer1.0.conv1.0.0.weight"]
    torch.save({"model": theirs, "epoch": 3}, tmp_path / "a.pth")
    error = unchanged(ours, lambda: load_weights(ours, tmp_path / "a.pth"))
    assert isinstance(error, MismatchError)
    assert "does not fit this model in 3 of 122 weights; the first is extra.weight: present" in str(
        error
    )
    report = error.report
    assert report.unexpected == ("extra.weight",)
    assert report.missing == ("layer1.0.conv1.0.0.weight",)
    assert report.shape_mismatches == (("stem.0.weight", (4, 3, 1, 7, 7), (4, 3, 3, 7, 7)),)
    assert report.other_entries == ("epoch",)
    assert load_weights(ours, tmp_path / "a.pth", partial=True) == report
    assert torch.equal(ours.layer1[1].conv1[0][0].weight, theirs["layer1.1.conv1.0.0.weight"])


@pytest.mark.parametrize("partial", [False, True])
def test_another_network_is_refused(partial):
    ours = tiny()
    weights = Weights(Path("a.pth"), tiny("i3d").state_dict(), {})
    error = unchanged(ours, lambda: load_weights(ours, weights, partial=partial))
    assert not error.report.matched
    assert set(error.report.missing) == ours.state_dict().keys()


def test_counts_of_batches_that_old_files_lack():
    theirs, ours = randomised(tiny()), tiny()
    state = {k: v for k, v in theirs.state_dict().items() if "num_batches" not in k}
    report = load_weights(ours, Weights(Path("a.pth"), state, {}))
    assert all(key.endswith("num_batches_tracked") for key in report.missing)
    assert_same_logits(theirs, ours, torch.randn(1, 3, 4, 32, 32, dtype=torch.float64))


@pytest.mark.parametrize(
    "name", ["r3d_18", "i3d", "mfnet", "torchvision/s3d", "torchvision/swin3d_t"]
)
def test_the_classifier_of_other_classes_stays_fresh(name):
    with torch.device("meta"):
        state = create_model(name, num_classes=5).state_dict()
    state = {key: torch.zeros_like(value, device="cpu") for key, value in state.items()}
    ours = create_model(name, num_classes=7)
    weights = Weights(Path("a.pth"), state, {})
    assert count_classes(ours, weights) == 5
    layer = ours.get_submodule(ours.heads[0])
    before = layer.weight.clone()
    assert before.shape[0] == 7
    report = load_weights(ours, weights)
    assert torch.equal(layer.weight, before)
    assert len(report.fresh) == 2
    assert report.fresh == report.fresh_classifier


def test_a_network_without_heads_takes_whole_files_only():
    ours = nn.Sequential(nn.Conv3d(3, 4, 1), nn.Conv3d(4, 7, 1))
    state = nn.Sequential(nn.Conv3d(3, 4, 1), nn.Conv3d(4, 5, 1)).state_dict()
    weights = Weights(Path("a.pth"), state, {})
    assert count_classes(ours, weights) is None
    error = unchanged(ours, lambda: load_weights(ours, weights))
    assert "1.bias: (5,) in the checkpoint, (7,) in the model" in str(error)
    ours.heads = ("1",)
    assert count_classes(ours, weights) == 5
    assert load_weights(ours, weights).fresh_classifier == ("1.bias", "1.weight")
    assert torch.equal(ours[0].weight, state["0.weight"])


def test_the_last_linear_layer_is_the_classifier_of_a_network_that_names_none():
    ours = nn.Sequential(nn.Conv3d(3, 4, 1), nn.Linear(4, 7))
    state = nn.Sequential(nn.Conv3d(3, 4, 1), nn.Linear(4, 5)).state_dict()
    weights = Weights(Path("a.pth"), state, {})
    assert count_classes(ours, weights) == 5
    assert load_weights(ours, weights).fresh_classifier == ("1.bias", "1.weight")
    assert torch.equal(ours[0].weight, state["0.weight"])


def test_a_classifier_of_other_features_is_no_classifier_of_other_classes():
    ours, state = tiny(), tiny().state_dict()
    state["fc.weight"] = torch.zeros(5, 31)
    error = unchanged(ours, lambda: load_weights(ours, Weights(Path("a.pth"), state, {})))
    assert "the first is fc.weight: (5, 31) in the checkpoint, (5, 32) in the model" in str(error)
