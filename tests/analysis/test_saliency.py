import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from seeing import colour_classifier, red_and_blue
from torch import nn

from vidpool.analysis import images
from vidpool.analysis.saliency import (
    METHODS,
    class_feature_pyramid,
    find_saliency,
    grad_cam,
    overlay,
    saliency_sheet,
    saliency_video,
)

# the clips of this file are red and blue, 0 and 1
pytestmark = pytest.mark.filterwarnings("ignore:all values of the floating-point clips")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("label", "corner"), [(0, slice(0, 4)), (2, slice(4, 8))])
def test_heat_lies_where_the_class_is(method, label, corner):
    found = find_saliency(
        colour_classifier(), red_and_blue(), label, ["mix", "look"], methods=[method]
    )
    expected = torch.zeros(4, 8, 8)
    expected[2, corner, corner] = 1
    assert [each.layer for each in found] == ["mix", "look"]
    for each in found:
        torch.testing.assert_close(each.heat, expected)
        assert each.places == (4, 8, 8)
        assert each.kernels == ((label,) if method == "pyramid" else ())


def test_a_class_that_is_not_there_has_no_heat():
    for each in find_saliency(colour_classifier(), red_and_blue(), 1, ["mix", "look"]):
        assert each.heat.abs().max() == 0
        assert each.kernels == ()


def test_maps_of_other_sizes_are_spread_over_the_clip():
    classifier = colour_classifier()
    classifier.model.mix.append(nn.AvgPool3d((4, 2, 2)))
    (found,) = find_saliency(classifier, red_and_blue(), 0, ["mix"], ["gradcam"])
    assert found.places == (1, 4, 4)
    assert found.heat.shape == (4, 8, 8)
    assert found.heat.max() == 1
    assert (found.heat[0] - found.heat[3]).abs().max() == 0
    assert found.heat[:, :4, :4].mean() > 4 * found.heat[:, 4:, 4:].mean()


@pytest.mark.parametrize("size", [1, 3])
def test_weights_of_a_convolution_are_those_of_its_averaged_kernels(size):
    generator = torch.Generator().manual_seed(size)
    conv = nn.Conv3d(6, 4, size, padding=size // 2, padding_mode="circular", bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator))
    before = torch.rand(1, 6, 3, 4, 5, generator=generator).requires_grad_()
    behind = conv(before)
    # the authors': averaged kernel times averaged activation, scaled, for each kernel chosen before
    contributions = conv.weight.mean((2, 3, 4)) * before.mean((0, 2, 3, 4))
    low, high = contributions.amin(1, keepdim=True), contributions.amax(1, keepdim=True)
    expected = ((contributions - low) / (high - low) >= 0.5) & (contributions > 0)
    for kernel in range(4):
        weights = torch.zeros(4)
        weights[kernel] = 1 if behind[0, kernel].mean() > 0 else -1
        logit = (behind.mean((0, 2, 3, 4)) * weights).sum()
        chosen = class_feature_pyramid(logit, [behind, before], 0.5)
        assert chosen[0].tolist() == [kernel]
        assert chosen[1].tolist() == expected[kernel].nonzero().flatten().tolist()


@example(0.0, 1.0, 8)  # least + 1 * (largest - least) is rounded to more than the largest
@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 50))
def test_a_higher_threshold_chooses_fewer(one, other, seed):
    maps = torch.randn(1, 12, 2, 2, 2, generator=torch.Generator().manual_seed(seed))
    maps.requires_grad_()
    weights = torch.linspace(-1, 1, 12)
    logit = (maps.mean((0, 2, 3, 4)) * weights).sum()
    low, high = sorted([one, other])
    (many,), (few,) = (class_feature_pyramid(logit, [maps], value) for value in (low, high))
    assert set(few.tolist()) <= set(many.tolist())
    assert len(few) >= 1


def test_a_layer_of_another_path_ends_the_pyramid():
    maps = torch.rand(1, 3, 2, 2, 2, requires_grad=True)
    other = torch.rand(1, 3, 2, 2, 2, requires_grad=True)
    assert len(class_feature_pyramid(maps.sum(), [maps, other])) == 1


def test_progress_counts_every_kernel():
    told = []
    classifier = colour_classifier()
    find_saliency(
        classifier, red_and_blue(), 0, ["mix", "look"], ["pyramid"], 0, lambda *n: told.append(n)
    )
    assert told == [(1, 1)]


def test_grad_cam_of_pictures():
    maps = torch.zeros(1, 2, 3, 3)
    maps[0, 0, 1, 1], maps[0, 1, 2, 2] = 1.0, 1.0
    maps.requires_grad_()
    heat = grad_cam((maps[:, 0] - maps[:, 1]).sum(), maps)
    assert heat.shape == (1, 3, 3)
    assert heat[0].nonzero().tolist() == [[1, 1]]


def test_overlays(monkeypatch):
    frames = torch.randint(0, 255, (4, 8, 8, 3), generator=torch.Generator().manual_seed(0)).byte()
    drawn = overlay(frames, torch.zeros(4, 8, 8))
    assert torch.equal(drawn[..., 0], drawn[..., 2])  # grey
    hot = overlay(frames, torch.ones(4, 8, 8))
    assert (hot[..., 0].float() - hot[..., 2].float()).mean() > 60  # red
    found = find_saliency(colour_classifier(), red_and_blue(), 0, ["mix", "look"])
    monkeypatch.setattr(images, "MIN_SIDE", 9)
    video = saliency_video(frames, found)
    assert video.shape == (4, 32, 48, 3)  # two methods below each other, the clip and two layers
    assert torch.equal(video[:, :16:2, :16:2], frames)
    sheet = saliency_sheet(frames, [0, 2, 4, 6], found, "costs 1$ and 2$")
    assert len(sheet.axes) == 5 * 4
