"""Prefixes of wrappers, and image networks whose kernels are inflated."""

from pathlib import Path

import pytest
import torch
from tiny_networks import assert_same_logits, randomised, tiny

from vidpool.models import create_model, load_weights
from vidpool.models.weights import MismatchError, Weights


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "model._orig_mod.", "module.model."])
def test_prefixes(prefix, tmp_path):
    theirs, ours = randomised(tiny()), tiny()
    state = {prefix + key: value for key, value in theirs.state_dict().items()}
    torch.save({"state_dict": state, "pytorch-lightning_version": "2.6"}, tmp_path / "a.ckpt")
    report = load_weights(ours, tmp_path / "a.ckpt")
    assert report.prefix == prefix
    assert report.matched == tuple(ours.state_dict())
    assert_same_logits(theirs, ours, torch.randn(1, 3, 4, 32, 32, dtype=torch.float64))


def middle_frame(layer, picture):
    """What a layer makes of the middle of a clip that repeats a picture, far from its ends."""
    clip = picture[:, :, None].repeat(1, 1, 11, 1, 1)
    return layer(clip)[:, :, 5]


@torch.no_grad()
def test_resnet_inflates():
    from torchvision.models import resnet18

    theirs = randomised(resnet18())
    ours = create_model("r3d_18", num_classes=9).double().eval()
    weights = Weights(Path("resnet18.pth"), theirs.state_dict(), {})
    report = load_weights(ours, weights, inflate=True)
    assert report.fresh == report.fresh_classifier == ("fc.bias", "fc.weight")
    assert len(report.matched) == len(ours.state_dict()) - 2
    assert len(report.inflated) == 20  # 17 convolutions and three shortcuts
    assert not report.unexpected
    picture = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    expected = theirs.relu(theirs.bn1(theirs.conv1(picture)))
    torch.testing.assert_close(middle_frame(ours.stem, picture), expected, rtol=1e-8, atol=1e-8)
    block = middle_frame(ours.layer1[0], expected)
    torch.testing.assert_close(block, theirs.layer1[0](expected), rtol=1e-8, atol=1e-8)
    kernel = ours.layer4[0].downsample[0].weight.sum(2)
    torch.testing.assert_close(kernel, theirs.layer4[0].downsample[0].weight)


@torch.no_grad()
def test_googlenet_inflates():
    from torchvision.models import googlenet

    theirs = randomised(googlenet(num_classes=9, init_weights=False, aux_logits=True))
    ours = create_model("i3d", num_classes=9).double().eval()
    weights = Weights(Path("googlenet.pth"), theirs.state_dict(), {})
    report = load_weights(ours, weights, inflate=True)
    assert not report.fresh
    assert all(key.startswith("aux") for key in report.unexpected)
    for here, there, channels in (
        ("Mixed_3b", "inception3a", 192),
        ("Mixed_4f", "inception4e", 528),
        ("Mixed_5c", "inception5b", 832),
    ):
        picture = torch.randn(1, channels, 7, 7, dtype=torch.float64)
        expected = theirs.get_submodule(there)(picture)
        made = middle_frame(ours.get_submodule(here), picture)
        torch.testing.assert_close(made, expected, rtol=1e-8, atol=1e-8)
    features = torch.randn(1, 1024, dtype=torch.float64)
    logits = ours.logits(features[..., None, None, None]).flatten(1)
    torch.testing.assert_close(logits, theirs.fc(features))


def test_two_dimensional_kernels_are_not_inflated_unasked():
    ours = tiny("i3d")
    state = {k: v.mean(2) if v.ndim == 5 else v for k, v in ours.state_dict().items()}
    with pytest.raises(MismatchError, match="inflate them"):
        load_weights(ours, Weights(Path("a.pth"), state, {}))
    report = load_weights(ours, Weights(Path("a.pth"), state, {}), inflate=True)
    assert not report.fresh
