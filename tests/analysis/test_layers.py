import pytest
import torch

from vidpool.analysis.layers import feature_maps, find_layers
from vidpool.errors import ConfigError
from vidpool.train.classifier import VideoClassifier

CLIP = torch.linspace(-1, 1, 3 * 8 * 64 * 64).view(1, 3, 8, 64, 64)


def network(name, **options):
    return VideoClassifier(name, num_classes=5, **options).eval()


@pytest.fixture(scope="module")
def r3d():
    return network("r3d_18", width=4)


@pytest.mark.parametrize(
    ("name", "clip", "expected"),
    [
        ("r3d_18", CLIP, ["layer4", "layer3", "layer2", "layer1", "stem"]),
        ("srtg_r2plus1d_18", CLIP, ["layer4", "layer3", "layer2", "layer1", "stem"]),
        ("i3d", CLIP, ["Mixed_5c", "Mixed_5b", "Mixed_4f", "Mixed_4e", "Mixed_4d"]),
        ("mfnet", CLIP, ["tail", "conv5", "conv4", "conv3", "conv2"]),
        ("torchvision/resnet18", CLIP[:, :, 0:1], ["layer4", "layer3", "layer2", "layer1", "bn1"]),
        (
            "torchvision/densenet121",
            CLIP[:, :, 0:1],
            [f"features.{name}" for name in ("norm5", "denseblock4", "transition3", "denseblock3")]
            + ["features.transition2"],
        ),
    ],
)
def test_the_last_stages_of_networks(name, clip, expected):
    width = {"r3d_18": 4, "srtg_r2plus1d_18": 4, "i3d": 4, "mfnet": 12}.get(name)
    classifier = network(name, width=width)
    assert find_layers(classifier, clip, depth=5) == expected
    _, (last, before) = feature_maps(classifier, clip, expected[:2])
    assert last.shape[2:].numel() > 1
    assert last.shape[2:].numel() <= before.shape[2:].numel()


def test_a_heads_own_convolutions_are_no_stage():
    pytest.importorskip("pytorchvideo")
    classifier = network("pytorchvideo/x3d_xs", pooling=None)
    assert find_layers(classifier, CLIP, depth=2) == ["blocks.4", "blocks.3"]


def test_a_layer_by_name_and_those_before_it(r3d):
    assert find_layers(r3d, CLIP, "layer2", 9) == ["layer2", "layer1", "stem"]
    assert find_layers(r3d, CLIP, "layer2.1.conv2", 2) == ["layer2.1.conv2", "layer2.1.conv1"]
    assert find_layers(r3d, CLIP, "pool") == ["pool"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("layer9", "layer 'layer9' is not in this network; did you mean layer"),
        ("fc", "layer 'fc' puts out no feature maps"),
        ("", "layer '' is not in this network"),
    ],
)
def test_a_wrong_name_lists_what_there_is(r3d, name, told):
    with pytest.raises(ConfigError, match=told) as error:
        find_layers(r3d, CLIP, name)
    assert "It has stem, layer1, layer2, layer3, layer4, and what is within" in str(error.value)


def test_transformers_and_too_small_clips_are_refused(r3d):
    with pytest.raises(ConfigError, match="mvit_v2_s is a transformer"):
        find_layers(network("torchvision/mvit_v2_s", pooling=None), CLIP)
    with pytest.raises(ConfigError, match="clips of 1x1x1 are too small"):
        find_layers(r3d, CLIP[:, :, :1, :1, :1])


@pytest.mark.parametrize(
    "options", [{}, {"gradient_checkpointing": True}, {"freeze": ["backbone"]}]
)
def test_maps_are_what_the_logits_are_made_of(options):
    classifier = network("r3d_18", width=4, **options)
    classifier.requires_grad_(False)
    # `stem` and `layer1.0.conv1` end in a ReLU that works in place, and so does what follows them
    names = ["layer4", "layer1.0.conv1", "layer1.0.conv1.1"]
    logits, (last, relu, norm) = feature_maps(classifier, CLIP, names)
    torch.testing.assert_close(logits, classifier(CLIP))
    torch.testing.assert_close(logits, classifier.model.fc(last.mean((2, 3, 4))))
    assert norm.min() < 0
    torch.testing.assert_close(relu, norm.relu())
    (gradient,) = torch.autograd.grad(logits[0, 1], last)
    places = last.shape[2:].numel()
    expected = classifier.model.fc.weight[1] / places
    torch.testing.assert_close(gradient.mean((0, 2, 3, 4)), expected)
    assert classifier.model.gradient_checkpointing == options.get("gradient_checkpointing", False)
