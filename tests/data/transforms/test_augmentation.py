"""What transforms do to pixels: seen on gradients, and beside float64 for the normalisation."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vidpool.data.transforms.augmentation import Augmentation
from vidpool.data.views import crop_views, normalize
from vidpool.errors import ConfigError

MODES = ("resized", "short_side")
MEAN, STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)


def gradient(height, width, frames=2):
    """A clip that says where its pixels are: red is the column, green the row, blue 100."""
    picture = torch.empty(3, height, width, dtype=torch.uint8)
    picture[0] = torch.arange(width)
    picture[1] = torch.arange(height)[:, None]
    picture[2] = 100
    return picture.repeat(frames, 1, 1, 1)


def noise(height, width, frames=3):
    """The same random picture in every frame."""
    return torch.randint(256, (3, height, width), dtype=torch.uint8).repeat(frames, 1, 1, 1)


def augmentations():
    amount = st.floats(0, 0.5)
    return st.builds(
        Augmentation,
        crop=st.sampled_from(MODES),
        scale=st.tuples(st.floats(0.1, 0.5), st.floats(0.5, 1)),
        flip=st.sampled_from([0.0, 0.5, 1.0]),
        brightness=amount,
        contrast=amount,
        saturation=amount,
        hue=amount,
        authors=amount,
        rand_augment=st.integers(0, 3),
        magnitude=st.integers(0, 30),
        erase=amount,
    )


@settings(max_examples=40)
@given(
    augment=augmentations(),
    seed=st.integers(0, 2**32),
    crop=st.integers(1, 24),
    height=st.integers(24, 40),
    width=st.integers(24, 40),
)
@example(augment=Augmentation(scale=(1, 1), ratio=(1, 1)), seed=0, crop=1, height=24, width=24)
@example(augment=Augmentation(authors=1.0), seed=0, crop=1, height=24, width=24)
@example(augment=Augmentation(authors=1.0), seed=3, crop=1, height=24, width=24)
def test_frames_are_treated_alike(augment, seed, crop, height, width):
    torch.manual_seed(seed)
    clip = noise(height, width)
    out = augment.change(augment.cut(clip, crop), seed)
    assert out.dtype == torch.uint8
    assert out.shape == (3, 3, crop, crop)
    for frame in out[1:]:
        assert torch.equal(frame, out[0])


@pytest.mark.parametrize("mode", MODES)
def test_draws_differ_and_the_seed_decides(mode):
    augment = Augmentation(crop=mode)
    clip = noise(32, 40)

    def draw(seed):
        torch.manual_seed(seed)
        return augment.reading_short_side(20), augment.cut(clip, 20)

    draws = [draw(seed) for seed in range(8)]
    for seed, (short_side, out) in enumerate(draws):
        again_side, again = draw(seed)
        assert again_side == short_side
        assert torch.equal(again, out)
        assert sum(torch.equal(out, other) for _, other in draws) == 1
    if mode == "short_side":
        assert len({short_side for short_side, _ in draws}) > 2


def cut_of(out):
    """Left, top, width and height of the part of a gradient that fills a picture.

    Reckoned from within: at the border, a picture scaled down has only half of what it averages.
    """
    size = out.shape[-1]
    first, last = size // 10, size - 1 - size // 10
    cut = []
    for line in (out[0, 0].double().mean(0), out[0, 1].double().mean(1)):
        step = float(line[last] - line[first]) / (last - first)
        cut.append((float(line[first]) + 0.5 - (first + 0.5) * step, size * step))
    (left, width), (top, height) = cut
    return left, top, width, height


@settings(max_examples=30)
@given(
    share=st.floats(0.2, 0.55),
    ratio=st.floats(0.75, 1.3),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_resized_cuts_the_share_and_ratio_it_is_told(share, ratio, seed, data):
    height, width = data.draw(st.sampled_from([(240, 240), (200, 250)]))
    augment = Augmentation(scale=(share, share), ratio=(ratio, ratio), flip=0)
    torch.manual_seed(seed)
    left, top, across, down = cut_of(augment.cut(gradient(height, width), 50))
    # half a pixel of the cut's rounding, and a grey level over four fifths of the picture
    assert across == pytest.approx(math.sqrt(share * height * width * ratio), abs=2)
    assert down == pytest.approx(math.sqrt(share * height * width / ratio), abs=2)
    assert -2 <= left <= width - across + 2
    assert -2 <= top <= height - down + 2


def test_resized_cuts_range_over_shares_and_places():
    augment = Augmentation(scale=(0.3, 0.8), flip=0)
    torch.manual_seed(0)
    cuts = torch.tensor([cut_of(augment.cut(gradient(240, 240), 60)) for _ in range(200)])
    left, top, across, down = cuts.T
    share = across * down / 240**2
    assert 0.27 < share.min() < 0.35
    assert 0.7 < share.max() < 0.83
    assert share.mean() == pytest.approx(0.55, abs=0.05)
    assert 0.7 < (across / down).min() < 0.8
    assert 1.25 < (across / down).max() < 1.4
    for place, extent in ((left, across), (top, down)):
        assert place.min() < 10
        assert (place + extent).max() > 230


def test_resized_can_take_the_whole_picture():
    augment = Augmentation(scale=(1, 1), ratio=(2, 2), flip=0)
    left, top, across, down = cut_of(augment.cut(gradient(100, 200), 50))
    assert (left, top, across, down) == pytest.approx((0, 0, 200, 100), abs=2)


def test_short_side_cuts_a_square_without_scaling_it():
    clip = gradient(70, 90)
    augment = Augmentation(crop="short_side", flip=0)
    torch.manual_seed(0)
    places = set()
    for _ in range(300):
        out = augment.cut(clip, 64)
        left, top = int(out[0, 0, 0, 0]), int(out[0, 1, 0, 0])
        assert torch.equal(out, clip[:, :, top : top + 64, left : left + 64])
        places.add((left, top))
    assert {left for left, _ in places} == set(range(27))
    assert {top for _, top in places} == set(range(7))


def test_temporal_stride_is_drawn_from_its_range():
    torch.manual_seed(0)
    authors = Augmentation(stride=(0.8, 1.2))
    strides = [authors.temporal_stride(5) for _ in range(3000)]
    for stride in (4, 5, 6):
        assert strides.count(stride) == pytest.approx(1000, abs=104)  # 4 standard deviations
    assert {authors.temporal_stride(1) for _ in range(20)} == {1}  # never 0
    state = torch.get_rng_state()
    assert Augmentation().temporal_stride(5) == 5
    assert torch.equal(torch.get_rng_state(), state)


def test_reading_short_side_is_drawn_from_its_range():
    augment = Augmentation(crop="short_side", short_side=(1.0, 1.5))
    torch.manual_seed(0)
    sides = [augment.reading_short_side(100) for _ in range(2000)]
    assert set(sides) == set(range(100, 151))
    assert sum(sides) / 2000 == pytest.approx(125, abs=1.5)  # 4 standard errors
    assert Augmentation(crop="short_side", short_side=(1, 1)).reading_short_side(64) == 64


@given(
    share=st.floats(0.05, 1), crop=st.integers(1, 256), stretch=st.floats(1, 3), tall=st.booleans()
)
def test_reading_short_side_suffices_for_square_cuts(share, crop, stretch, tall):
    """The least cut, if square, has at least the crop's pixels, and one pixel less would not do."""
    short = Augmentation(scale=(share, 1)).reading_short_side(crop)
    height, width = (short * stretch, short) if tall else (short, short * stretch)
    assert math.sqrt(share * height * width) >= crop * (1 - 1e-9)
    assert math.sqrt(share) * (short - 1) < crop


def flipped(augment, seed):
    """Whether the columns of a clip come out the other way round."""
    torch.manual_seed(seed)
    red = augment.cut(gradient(40, 40), 24)[0, 0].float().mean(0)
    return bool(red[0] > red[-1])


@pytest.mark.parametrize("mode", MODES)
def test_flip_is_a_probability(mode):
    count = {
        p: sum(flipped(Augmentation(crop=mode, flip=p), seed) for seed in range(100))
        for p in (0.0, 0.25, 0.5, 1.0)
    }
    assert count[0.0] == 0
    assert count[1.0] == 100
    assert 12 <= count[0.25] <= 38  # 3 standard deviations
    assert 35 <= count[0.5] <= 65


def grey(clip):
    red, green, blue = clip.double().unbind(1)
    return 0.2989 * red + 0.587 * green + 0.114 * blue


KEPT = {  # what each kind of jitter does not change: functions of (before, after), nearly equal
    "brightness": lambda before, after: (after / before, (after / before).mean()),
    "contrast": lambda before, after: (
        (after - after.mean()) / after.std(),
        (before - before.mean()) / before.std(),
    ),
    "saturation": lambda before, after: (grey(after), grey(before)),
    "hue": lambda before, after: (
        torch.stack([after.amax(1), after.amin(1)]),
        torch.stack([before.amax(1), before.amin(1)]),
    ),
}
ROUNDING = {"brightness": 0.02, "contrast": 0.2, "saturation": 1.5, "hue": 1.5}


@pytest.mark.parametrize("name", KEPT)
def test_colour_jitter_changes_what_it_says_and_only_when_told(name):
    torch.manual_seed(0)
    clip = torch.randint(80, 160, (1, 3, 40, 40), dtype=torch.uint8).repeat(3, 1, 1, 1)
    assert Augmentation().change(clip, 0) is clip
    jittered = Augmentation(**{name: 0.5})
    changes = []
    for seed in range(8):
        before, after = clip.double(), jittered.change(clip, seed).double()
        changes.append(float((after - before).abs().mean()))
        one, other = KEPT[name](before, after)
        assert (one - other).abs().max() < ROUNDING[name]
    assert max(changes) > 5


def scene(frames=2):
    """A clip with edges, colours and shades; its frames are the same."""
    clip = gradient(48, 64, frames)
    clip[:, 2, 10:30, 20:40] = 220
    return clip


CHANGES = {
    "jitter": {"brightness": 0.4, "hue": 0.2},
    "authors": {"authors": 1.0},
    "rand_augment": {"rand_augment": 2, "magnitude": 15},
    "erase": {"erase": 1.0},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_clips_seed_decides_its_changes(name):
    augment = Augmentation(**CHANGES[name])
    clip = scene()
    torch.manual_seed(1)
    first = [augment.change(clip, seed) for seed in range(10)]
    state = torch.get_rng_state()
    again = [augment.change(clip, seed) for seed in range(10)]
    assert torch.equal(torch.get_rng_state(), state)
    for seed, out in enumerate(first):
        assert out.dtype == torch.uint8
        assert out.shape == clip.shape
        assert torch.equal(out, again[seed])
    # RandAugment and the authors' group may by chance do nothing
    assert len({out.numpy().tobytes() for out in first}) >= 8
    assert torch.equal(clip, scene())


@pytest.mark.parametrize("name", CHANGES)
def test_nothing_is_drawn_from_the_pixels(name):
    """Another clip, read on another device, would get the same draws."""
    augment = Augmentation(**CHANGES[name])
    one, both = augment.change(scene(), 5), augment.change(scene(5), 5)
    assert torch.equal(both[:2], one)


def test_changes_do_not_follow_the_cut():
    """Clips cut on the left are not those that get darker: the two draw from unlike seeds."""
    augment = Augmentation(crop="short_side", flip=0, brightness=0.5)
    lefts, shades = [], []
    for seed in range(200):
        torch.manual_seed(seed)
        cut = augment.cut(gradient(64, 200), 64)
        lefts.append(float(cut[0, 0, 0, 0]))
        shades.append(float(augment.change(torch.full_like(cut, 100), seed).float().mean()))
    correlation = torch.corrcoef(torch.tensor([lefts, shades]))[0, 1]
    assert abs(correlation) < 0.25  # 3.5 standard errors


def test_authors_is_the_probability_of_the_group():
    augment = Augmentation(authors=0.5)
    clip = scene()
    changed = sum(not torch.equal(augment.change(clip, seed), clip) for seed in range(200))
    # 3 % of the groups are empty
    assert changed == pytest.approx(200 * 0.5 * (1 - 0.6**7), abs=21)


def test_erase_paints_one_rectangle():
    clip = torch.full((2, 3, 40, 40), 7, dtype=torch.uint8)
    areas = []
    for seed in range(30):
        out = Augmentation(erase=1).change(clip, seed)
        painted = (out != clip).all(1)
        rows, columns = painted[0].any(1).sum(), painted[0].any(0).sum()
        assert painted.sum() == 2 * rows * columns
        assert out[0, :, painted[0]].unique(dim=1).flatten().tolist() == [110, 101, 96]
        areas.append(float(rows * columns) / 1600)
    assert 0.01 < min(areas) < 0.1
    assert 0.2 < max(areas) < 0.36


def batch_of_shades(count=6):
    """Float clips that are their own label everywhere."""
    labels = torch.arange(count)
    return labels.float().view(-1, 1, 1, 1, 1).expand(-1, 3, 2, 20, 20).contiguous(), labels


@pytest.mark.parametrize("way", ["mixup", "cutmix"])
def test_targets_are_the_shares_of_what_is_in_the_clip(way):
    clips, labels = batch_of_shades()
    augment = Augmentation(**{way: 1.0})
    drawn = set()
    for seed in range(20):
        mixed, targets = augment.mix(clips, labels, 8, [seed, 1, 2, 3, 4, 5])
        assert type(mixed) is torch.Tensor
        assert targets.shape == (6, 8)
        torch.testing.assert_close(targets.sum(1), torch.ones(6))
        share = targets.diagonal()
        torch.testing.assert_close(share, share[:1].expand(6))
        drawn.add(float(share[0]))
        mean = (targets @ torch.arange(8.0)).view(-1, 1, 1, 1, 1)
        if way == "mixup":
            torch.testing.assert_close(mixed, mean.expand_as(mixed))
        else:
            assert set(mixed[2].unique().tolist()) <= {1.0, 2.0}
            torch.testing.assert_close(mixed.mean((1, 2, 3, 4)), mean.flatten())
            assert torch.equal(mixed[:, 0, 0], mixed[:, 2, 1])  # the same rectangle in all frames
        again, _ = augment.mix(clips, labels, 8, [seed, 1, 2, 3, 4, 5])
        assert torch.equal(mixed, again)
    assert len(drawn) > 10
    assert torch.equal(clips, batch_of_shades()[0])


def test_mixup_and_cutmix_take_turns():
    clips, labels = batch_of_shades()
    augment = Augmentation(mixup=1, cutmix=1)
    whole = 0
    for seed in range(100):
        mixed, _ = augment.mix(clips, labels, 6, [seed])
        whole += len(mixed[1].unique()) == 1 and not torch.equal(mixed, clips)
    assert 30 <= whole <= 70  # 4 standard deviations


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"scale": (0.0, 1.0)}, r"scale .*\(0\.0, 1\.0\)"),
        ({"scale": (0.5, 1.1)}, r"scale .*\(0\.5, 1\.1\)"),
        ({"scale": (0.8, 0.4)}, r"scale .*\(0\.8, 0\.4\)"),
        ({"scale": (math.nan, 1.0)}, r"scale .*\(nan, 1\.0\)"),
        ({"ratio": (0.0, 1.0)}, r"ratio .*\(0\.0, 1\.0\)"),
        ({"ratio": (-1.0, 1.0)}, r"ratio .*\(-1\.0, 1\.0\)"),
        ({"ratio": (2.0, 1.0)}, r"ratio .*\(2\.0, 1\.0\)"),
        ({"short_side": (0.9, 1.2)}, r"short_side .*\(0\.9, 1\.2\)"),
        ({"short_side": (1.5, 1.2)}, r"short_side .*\(1\.5, 1\.2\)"),
        ({"stride": (0.0, 1.0)}, r"stride .*\(0\.0, 1\.0\)"),
        ({"stride": (2.0, 1.0)}, r"stride .*\(2\.0, 1\.0\)"),
        ({"flip": -0.1}, r"flip .*-0\.1"),
        ({"flip": 1.5}, r"flip .*1\.5"),
        ({"flip": math.nan}, "flip .*nan"),
        ({"brightness": -1.0}, r"brightness .*-1\.0"),
        ({"contrast": 1.2}, r"contrast .*1\.2"),
        ({"saturation": -0.5}, r"saturation .*-0\.5"),
        ({"hue": 0.6}, r"hue .*0\.6"),
        ({"authors": 1.5}, r"authors .*1\.5"),
        ({"erase": math.nan}, "erase .*nan"),
        ({"rand_augment": -1}, "rand_augment .*-1"),
        ({"magnitude": 31}, r"magnitude .*\[0, 30\], got 31"),
        ({"mixup": -0.1}, r"mixup .*-0\.1"),
        ({"cutmix": math.inf}, "cutmix .*inf"),
    ],
)
def test_settings_that_cannot_work_are_named(values, named):
    with pytest.raises(ConfigError, match=rf"^{named}$"):
        Augmentation(**values)


@given(height=st.integers(8, 60), width=st.integers(8, 60), crop=st.integers(1, 8))
def test_crop_views_are_at_the_edges_and_in_the_middle(height, width, crop):
    clip = gradient(height, width)
    one = crop_views(clip, crop, 1)
    three = crop_views(clip, crop, 3)
    assert one.shape == (1, 2, 3, crop, crop)
    assert three.shape == (3, 2, 3, crop, crop)
    assert one.dtype == three.dtype == torch.uint8
    assert torch.equal(three[1], one[0])
    lefts, tops = three[:, 0, 0, 0, 0].tolist(), three[:, 0, 1, 0, 0].tolist()
    for view, left, top in zip(three, lefts, tops, strict=True):
        assert torch.equal(view, clip[:, :, top : top + crop, left : left + crop])
    along, across = (tops, lefts) if height > width else (lefts, tops)
    assert along[0] == 0
    assert along[2] == max(height, width) - crop
    assert abs(along[1] - (max(height, width) - crop) / 2) <= 0.5
    assert len(set(across)) == 1
    assert abs(across[0] - (min(height, width) - crop) / 2) <= 0.5


def test_crop_views_by_hand():
    wide = crop_views(gradient(10, 20), 8, 3)
    assert [(int(v[0, 0, 0, 0]), int(v[0, 1, 0, 0])) for v in wide] == [(0, 1), (6, 1), (12, 1)]
    tall = crop_views(gradient(20, 10), 8, 3)
    assert [(int(v[0, 0, 0, 0]), int(v[0, 1, 0, 0])) for v in tall] == [(1, 0), (1, 6), (1, 12)]


@pytest.mark.parametrize("crops", [0, 2, 4, -1])
def test_other_numbers_of_crops_are_named(crops):
    with pytest.raises(ConfigError, match=f"crops={crops}$"):
        crop_views(gradient(10, 20), 8, crops)


def test_normalize_beside_float64():
    values = torch.arange(256, dtype=torch.uint8)
    clips = torch.stack([values, values.flip(0), values.roll(9)]).view(1, 3, 4, 8, 8)
    clips = torch.cat([clips, clips.flip(2)])
    before = clips.clone()
    out = normalize(clips, MEAN, STD)
    assert out.dtype == torch.float32
    assert out.shape == clips.shape
    for channel in range(3):
        exact = (clips[:, channel].double() / 255 - MEAN[channel]) / STD[channel]
        assert (out[:, channel].double() - exact).abs().max() < 1e-6
    assert torch.equal(clips, before)


def test_normalize_by_hand():
    clips = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1, 1)
    out = normalize(clips, (0.5, 0.2, 0.0), (0.5, 0.1, 0.25))
    assert out.flatten().tolist() == pytest.approx([-1, 0, 4], abs=1e-6)
