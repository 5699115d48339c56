"""The heads of networks of any origin, what enters them, and how many logits they compute."""

import pytest
import torch
import torchvision
from torch import nn

from vidpool.errors import ConfigError
from vidpool.models import create_model, features_of, heads_of, register_model
from vidpool.models.heads import check_network
from vidpool.train.classifier import VideoClassifier


class Net(nn.Module):
    """A network of a user, which names nothing."""

    def __init__(self, num_classes=5):
        super().__init__()
        self.gate = nn.Linear(4, 4)
        self.body = nn.Conv3d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x):
        return self.fc(self.gate(self.body(x).mean((2, 3, 4))))


class Folded(Net):
    """Classifies every frame, and averages."""

    def forward(self, x):
        frames = self.body(x).mean((3, 4)).transpose(1, 2)
        return self.fc(frames.flatten(0, 1)).unflatten(0, (len(x), -1)).mean(1)


class WithHeads(Net):
    """Names a head that is not the last linear layer."""

    heads = ("gate",)


class ByKeyword(Net):
    """Calls its head with a keyword."""

    def forward(self, x):
        return self.fc(input=self.body(x).mean((2, 3, 4)))


class Functional(Net):
    """Uses its head's weights without calling it."""

    def forward(self, x):
        return nn.functional.linear(self.body(x).mean((2, 3, 4)), self.fc.weight)


class ConvolutionalHead(nn.Sequential):
    """Has no linear layer."""

    def __init__(self, num_classes=5):
        super().__init__(nn.Conv3d(3, num_classes, 1), nn.AdaptiveAvgPool3d(1), nn.Flatten())


class NamedConvolutionalHead(ConvolutionalHead):
    """Names its head."""

    heads = ["0"]  # noqa: RUF012 - as users write it


CLIP = torch.rand(2, 3, 4, 8, 8)


@pytest.mark.parametrize(
    ("model", "heads"),
    [
        (Net(), ("fc",)),
        (nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))), ("1.1",)),
        (WithHeads(), ("gate",)),
        (NamedConvolutionalHead(), ("0",)),
        (ConvolutionalHead(), ()),
        (nn.Linear(2, 2), ()),
        (create_model("i3d", 3, width=8), ("logits.conv3d",)),
        (torchvision.models.vit_b_32(num_classes=3), ("heads.head",)),  # `heads` is a module
        (torchvision.models.video.mvit_v2_s(num_classes=3), ("head.1",)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_heads(model, heads):
    assert heads_of(model) == heads


def test_heads_that_are_not_there_are_an_error():
    model = Net()
    model.heads = ("fc", "classifier")
    with pytest.raises(ConfigError, match=r"Net.heads names 'classifier', but the network has no"):
        heads_of(model)


@pytest.mark.parametrize("build", [Net, WithHeads, ByKeyword, NamedConvolutionalHead])
def test_features_are_the_input_of_the_head(build):
    torch.manual_seed(0)
    model = build().eval()
    head = model.get_submodule(heads_of(model)[0])
    features = features_of(model, CLIP)
    if build is NamedConvolutionalHead:
        assert torch.equal(features, CLIP.flatten(1))
        return
    assert features.shape == (2, 4)
    assert features.requires_grad
    if build is not WithHeads:
        assert torch.equal(head(features), model(CLIP))
    assert not head._forward_pre_hooks


def test_features_of_frames_lie_side_by_side():
    model = Folded()
    features = features_of(model, CLIP)
    assert features.shape == (2, 4 * 4)
    assert torch.equal(model.fc(features.view(2, 4, 4)).mean(1), model(CLIP))


def test_features_of_vidpools_networks_are_what_forward_features_returns():
    model = create_model("r3d_18", 3, width=4).eval()
    assert torch.equal(features_of(model, CLIP), model.forward_features(CLIP))


def test_forward_features_that_returns_maps_is_not_used():
    class Maps(Net):
        def forward_features(self, x):
            return self.body(x)

    assert features_of(Maps(), CLIP).shape == (2, 4)


def test_features_of_a_compiled_network():
    torch._dynamo.reset()
    model = Net().eval()
    expected = features_of(model, CLIP)
    model.compile(backend="eager")
    model(CLIP)
    assert torch.equal(features_of(model, CLIP), expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (ConvolutionalHead, "ConvolutionalHead has no features: it has no torch.nn.Linear"),
        (Functional, "Functional has no features: its forward pass does not call the head 'fc'"),
    ],
)
def test_a_network_without_features_is_an_error_in_words(build, message):
    with pytest.raises(ConfigError, match=message) as caught:
        features_of(build(), CLIP)
    assert caught.value.argument == "model"


@pytest.mark.parametrize("build", [Net, ConvolutionalHead, NamedConvolutionalHead, Functional])
def test_logits_are_counted(build):
    example = tuple(CLIP.shape)
    check_network(build(5), 5, "own", example)
    with pytest.raises(ConfigError, match=r"^own (has 5 logits|returns .*\(2, 5\)).*num_classes"):
        check_network(build(5), 7, "own", example)


def test_a_network_that_cannot_run_on_the_meta_device_is_not_checked_further():
    class Odd(ConvolutionalHead):
        def forward(self, x):
            return super().forward(x * x.sum().item())

    check_network(Odd(5), 7, "own", CLIP.shape)


def test_the_check_leaves_the_network_as_it_is():
    model = nn.Sequential(nn.Conv3d(3, 5, 1), nn.BatchNorm3d(5), ConvolutionalHead(5))
    model[2][0] = nn.Conv3d(5, 5, 1)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    check_network(model, 5, "own", CLIP.shape)
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_head_of_a_users_network_is_its_classifier_in_training():
    @register_model
    def net(num_classes):
        return Net(num_classes)

    rates = VideoClassifier("net", num_classes=4, pooling=None, backbone_lr=0.1).lr_scales
    assert {name for name, rate in rates.items() if rate == 1} == {"fc.weight", "fc.bias"}
    assert rates["gate.weight"] == rates["body.weight"] == 0.1
    decayed = VideoClassifier("net", num_classes=4, pooling=None, layer_decay=0.5).lr_scales
    assert [decayed[f"{name}.weight"] for name in ("gate", "body", "fc")] == [0.25, 0.5, 1]
    frozen = VideoClassifier("net", num_classes=4, pooling=None, freeze=["backbone"]).model
    trained = [name for name, parameter in frozen.named_parameters() if parameter.requires_grad]
    assert trained == ["fc.weight", "fc.bias"]
