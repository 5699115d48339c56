import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from seeing import colour_classifier

from vidpool.analysis.activations import (
    Settings,
    Target,
    activation_sheet,
    excite,
    noise,
    targets_by_weight,
)
from vidpool.data.views import Preprocessing
from vidpool.errors import ConfigError
from vidpool.train.classifier import VideoClassifier

SMALL = Preprocessing(4, 1, 16, 16, 1, 1, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
QUICK = Settings(iterations=30, side=16)


def test_each_kernel_gets_what_it_sees():
    targets = [Target(label, (label,)) for label in range(3)]
    excited = excite(colour_classifier(), SMALL, "mix", targets, QUICK)
    starts = ((noise(3, 4, 16, seed=0) * 0.25 + 0.5) * 255).permute(0, 2, 3, 4, 1)
    for target, made, start in zip(targets, excited, starts, strict=True):
        assert made.frames.shape == (4, 16, 16, 3)
        assert made.after > 4 * made.before
        assert made.probability > 0.4  # a third at the start
        moved = made.frames.float() - start
        others = [i for i in range(3) if i != target.label]
        assert moved[..., others].abs().max() <= 1
        # where it is brighter than grey: the rest is cut off by ReLU and has no gradient
        alive = start[..., target.label] > 130
        moved = moved[..., target.label]
        centre = moved[:, 6:10, 6:10][alive[:, 6:10, 6:10]].mean()
        corner = moved[:, :2, :2][alive[:, :2, :2]].mean()
        assert centre > 60
        assert 0 < corner < centre / 3  # the mask


@pytest.mark.parametrize("settings", [QUICK, Settings(iterations=5, side=16, blur=1, shift=2)])
def test_the_seed_decides(settings):
    def made(seed):
        chosen = Settings(**{**settings.__dict__, "seed": seed})
        (excited,) = excite(colour_classifier(), SMALL, "mix", [Target(0, (0,))], chosen)
        return excited.frames

    assert torch.equal(made(1), made(1))
    assert not torch.equal(made(1), made(2))


def test_a_blur_makes_smoother_pictures():
    def roughness(blur):
        chosen = Settings(iterations=30, side=16, blur=blur)
        (excited,) = excite(colour_classifier(), SMALL, "mix", [Target(0, (0,))], chosen)
        moved = excited.frames[..., 0].float()
        return (moved[:, 5:11, 6:11] - moved[:, 5:11, 5:10]).abs().mean()

    assert roughness(1.5) < roughness(0)


def test_kernels_by_weight_are_the_classifiers():
    classifier = VideoClassifier("r3d_18", num_classes=5, width=4).eval()
    targets = targets_by_weight(classifier, "layer4", [3, 1], noise(1, 8, 48, 0))
    for target, label in zip(targets, [3, 1], strict=True):
        assert target.label == label
        best = classifier.model.fc.weight[label].topk(10).indices
        assert target.kernels == tuple(best.tolist())


def test_a_network_of_few_kernels():
    targets = targets_by_weight(colour_classifier(), "mix", [2], noise(1, 4, 16, 0))
    assert targets[0].kernels[0] == 2
    assert len(targets[0].kernels) == 3


def test_the_papers_settings():
    s = Settings()
    assert (s.iterations, s.side, s.lr, s.last_lr) == (2000, 512, 0.1, 0.01)
    assert (s.weight_decay, s.blur, s.shift) == (1e-6, 0, 0)


@given(
    st.sampled_from(
        ["iterations", "side", "lr", "last_lr", "weight_decay", "blur", "shift"],
    ),
    st.sampled_from([-1, -1000, float("nan")]),
)
def test_settings_that_cannot_work(name, value):
    with pytest.raises(ConfigError, match=r"at least 1|rate|negative"):
        Settings(**{name: value})


def test_a_weight_decay_that_is_not_finite():
    with pytest.raises(ConfigError, match="must be finite"):
        Settings(weight_decay=float("inf"))


@pytest.mark.parametrize(
    "wrong", [{"blur": 8}, {"shift": 16}, {"lr": 0.01, "last_lr": 0.1}, {"lr": 0, "last_lr": 0}]
)
def test_settings_that_do_not_fit_each_other(wrong):
    with pytest.raises(ConfigError, match=r"16 pixels is too small|the last rate"):
        Settings(side=16, **wrong)


@pytest.mark.parametrize("frames", [1, 4])
def test_a_sheet_of_clips_or_pictures(frames):
    small = Preprocessing(**{**SMALL.__dict__, "frames": frames})
    example = torch.zeros(frames, 16, 16, 3, dtype=torch.uint8)
    targets = [Target(0, (0,), example), Target(1, (1,), example)]
    excited = excite(colour_classifier(), small, "mix", targets, Settings(iterations=1, side=16))
    sheet = activation_sheet(targets, excited, ["a$", "b", "c"], "t")
    assert len(sheet.axes) == 4 * frames
