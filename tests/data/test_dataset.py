"""Batches of clips: the right frames, whoever reads them, and what happens to broken videos."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numbered_set import LABELS, LENGTHS
from numbered_video import numbers, write_video

from vidpool.data.catalogue.table import LabelledVideo
from vidpool.data.dataset import EvaluationViews, TrainingClips
from vidpool.data.schedule import ClipRequest, ConstantSchedule, ScheduledSampler
from vidpool.data.transforms.augmentation import Augmentation
from vidpool.data.views import ClipShape, Preprocessing, clip_positions, read_views
from vidpool.errors import ConfigError, VideoError
from vidpool.video import open_video

WHOLE = Augmentation(scale=(1, 1), ratio=(1, 1), flip=0)  # all of a square picture
VARIED = Augmentation(brightness=0.4, hue=0.1)
SHAPE = ClipShape(frames=4, stride=3, crop=64)
SIX_VIEWS = Preprocessing(
    frames=4, stride=2, short_side=64, crop=64, clips=2, crops=3, mean=(0.5,) * 3, std=(0.2,) * 3
)


def request(index, seed=0, shape=SHAPE, **more):
    return ClipRequest(index, shape, seed, **more)


def shown(batch):
    """The numbers of the frames of each clip."""
    return [numbers(clip) for clip in batch["clip"].transpose(1, 2)]


def same(one, other):
    def equal(key):
        if isinstance(one[key], torch.Tensor):
            return torch.equal(one[key], other[key])
        return one[key] == other[key]

    return one.keys() == other.keys() and all(map(equal, one))


def test_training_batch(numbered):
    dataset = TrainingClips(numbered, WHOLE)
    assert len(dataset) == 5
    batch = dataset[[request(3), request(0, counted=False), request(1)]]
    assert batch["clip"].shape == (3, 3, 4, 64, 64)
    assert batch["clip"].dtype == torch.uint8
    assert batch["clip"].is_contiguous()
    assert batch["label"].tolist() == [LABELS[3], LABELS[0], LABELS[1]]
    assert batch["video"].tolist() == [3, 0, 1]
    assert batch["counted"].tolist() == [True, False, True]
    assert (batch["requested"], batch["bad"]) == (len(batch["video"]), [])
    for key in ("label", "video"):
        assert batch[key].dtype == torch.int64


def test_clips_are_changed_by_their_seeds_unless_the_device_is_to(numbered):
    requests = [request(3, 5), request(0, 6), request(0, 2**63 - 1)]
    augment = Augmentation(authors=1, erase=1, brightness=0.3)
    plain = TrainingClips(numbered, Augmentation())[requests]
    there = TrainingClips(numbered, replace(augment, on_device=True))[requests]
    here = TrainingClips(numbered, augment)[requests]
    assert plain["seed"] == [5, 6, 2**63 - 1]
    assert there.pop("augment").on_device
    assert same(there, plain)
    assert not torch.equal(here["clip"], plain["clip"])
    for clip, seed, changed in zip(plain["clip"], plain["seed"], here["clip"], strict=True):
        assert torch.equal(augment.change(clip.transpose(0, 1), seed).transpose(0, 1), changed)


def test_training_clips_show_the_frames_asked_for(numbered):
    dataset = TrainingClips(numbered, WHOLE)
    for index, length in enumerate(LENGTHS):
        clips = shown(dataset[[request(index, seed) for seed in range(12)]])
        room = max(0, length - 10)  # four frames, three apart
        for clip in clips:
            assert 0 <= clip[0] <= room
            assert clip == [min(clip[0] + 3 * i, length - 1) for i in range(4)]
        assert len({clip[0] for clip in clips}) >= min(room + 1, 5)


def test_strides_are_varied_clip_by_clip(numbered):
    dataset = TrainingClips(numbered, replace(WHOLE, stride=(1, 2)))
    found = set()
    for seed in range(20):
        (frames,) = shown(dataset[[request(int(np.argmax(LENGTHS)), seed)]])
        (stride,) = set(np.diff(frames))
        found.add(int(stride))
    assert found == {3, 4, 5, 6}


def test_videos_shorter_than_the_clip_repeat_their_last_frame(numbered):
    shape = ClipShape(6, 4, 64)
    assert shown(TrainingClips(numbered, WHOLE)[[request(4, shape=shape)]]) == [[0, 4, 8, 8, 8, 8]]


def test_the_request_decides_the_shape(numbered):
    dataset = TrainingClips(numbered, VARIED)
    for shape in (ClipShape(1, 1, 16), ClipShape(7, 2, 50)):
        clip = dataset[[request(0, shape=shape), request(2, shape=shape)]]["clip"]
        assert clip.shape == (2, 3, shape.frames, shape.crop, shape.crop)


@pytest.mark.parametrize("mode", ["resized", "short_side"])
def test_a_request_gives_one_clip_whatever_is_around_it(numbered, mode):
    dataset = TrainingClips(numbered, replace(VARIED, crop=mode))
    torch.manual_seed(1)
    (alone,) = dataset[[request(3, 77)]]["clip"]
    torch.manual_seed(2)
    state = torch.get_rng_state()
    together = dataset[[request(0, 5), request(3, 77), request(3, 78)]]["clip"]
    assert torch.equal(
        torch.get_rng_state(), state
    )  # nothing outside has an influence, nor feels one
    assert torch.equal(together[1], alone)
    assert not torch.equal(together[2], alone)


def test_epochs_and_seeds_differ(numbered):
    dataset = TrainingClips(numbered, VARIED)

    def epoch(number, seed=0):
        sampler = ScheduledSampler(dataset, ConstantSchedule(SHAPE, 2), seed=seed)
        sampler.set_epoch(number)
        clips = {}
        for requests in sampler:
            batch = dataset[requests]
            clips |= dict(zip(batch["video"].tolist(), batch["clip"], strict=True))
        return clips

    first = epoch(0)
    assert sorted(first) == [0, 1, 2, 3, 4]
    for other in (epoch(1), epoch(0, seed=1)):
        for video, clip in first.items():
            assert not torch.equal(other[video], clip)
    for video, clip in epoch(0).items():
        assert torch.equal(first[video], clip)


@pytest.mark.parametrize("size", [(1, 1), (9, 1), (1, 9)])
def test_tiny_pictures_are_enlarged(tmp_path, size):
    path = write_video(tmp_path / "a.mov", 3, codec="png", size=size, pix_fmt="rgb24", b_frames=0)
    videos = [LabelledVideo(str(path), 0)]
    for mode in ("resized", "short_side"):
        batch = TrainingClips(videos, Augmentation(crop=mode))[[request(0)]]
        assert batch["clip"].shape == (1, 3, 4, 64, 64)
    assert read_views(str(path), SIX_VIEWS).shape == (6, 3, 4, 64, 64)


def test_a_video_that_cannot_be_decoded_is_named(numbered, broken):
    for video in broken:
        with pytest.raises(VideoError, match=f"^{video.path}: "):
            TrainingClips([numbered[0], video], WHOLE)[[request(0), request(1)]]
        with pytest.raises(VideoError, match=f"^{video.path}: "):
            EvaluationViews([video], SIX_VIEWS)[[request(0)]]
        with pytest.raises(VideoError, match=f"^{video.path}: "):
            read_views(video.path, SIX_VIEWS)


def test_videos_that_cannot_be_decoded_are_replaced_and_counted(numbered, broken):
    videos = [*broken, *numbered]
    dataset = TrainingClips(videos, WHOLE, on_bad_video="substitute")
    requests = [request(index, seed=10 + index) for index in range(8)]
    batch = dataset[requests]
    assert batch["requested"] == 8
    for message, video in zip(batch["bad"], broken, strict=True):
        assert message.startswith(f"{video.path}: ")
    assert batch["video"].tolist()[3:] == [3, 4, 5, 6, 7]
    assert all(index >= 3 for index in batch["video"].tolist())
    assert batch["label"].tolist() == [videos[i].label for i in batch["video"].tolist()]
    for video, clip in zip(batch["video"].tolist(), shown(batch), strict=True):
        length = LENGTHS[video - 3]
        assert clip == [min(clip[0] + 3 * i, length - 1) for i in range(4)]
    assert same(dataset[requests], batch)
    # the others are as if nothing had happened
    undisturbed = TrainingClips(videos, WHOLE)[requests[3:]]
    assert torch.equal(undisturbed["clip"], batch["clip"][3:])
    assert undisturbed["bad"] == []


def test_videos_that_cannot_be_read_are_left_out_and_counted(numbered, broken):
    videos = [*broken, *numbered]
    dataset = TrainingClips(videos, WHOLE, on_bad_video="skip")
    requests = [request(index, seed=10 + index) for index in (3, 0, 4, 1, 2)]
    batch = dataset[requests]
    assert batch["video"].tolist() == [3, 4]
    assert batch["clip"].shape[0] == len(batch["seed"]) == len(batch["counted"]) == 2
    assert batch["requested"] == 5
    for message, video in zip(batch["bad"], broken, strict=True):
        assert message.startswith(f"{video.path}: ")
    undisturbed = TrainingClips(videos, WHOLE)[[requests[0], requests[2]]]
    assert torch.equal(undisturbed["clip"], batch["clip"])


def test_a_batch_of_nothing_but_bad_videos_has_one_clip_of_another(numbered, broken):
    dataset = TrainingClips([*broken, *numbered], WHOLE, on_bad_video="skip")
    for seed in range(5):
        batch = dataset[[request(0, seed), request(1, seed)]]
        assert len(batch["video"]) == 1
        assert batch["video"].item() >= 3
        assert (batch["requested"], len(batch["bad"])) == (2, 2)


@pytest.mark.parametrize("policy", ["skip", "substitute"])
def test_evaluation_does_not_count_bad_videos(numbered, broken, policy):
    dataset = EvaluationViews([broken[0], numbered[0]], SIX_VIEWS, on_bad_video=policy)
    batch = dataset[[request(index) for index in range(4)]]
    assert batch["counted"].tolist() == [False] * 6 + [True] * 6
    assert (batch["requested"], len(batch["bad"])) == (4, 2)


def test_spans_of_a_video(numbered):
    """25 frames a second: frames 10 to 29 of 41, 0 to 4, and beyond the end."""
    path = numbered[0].path
    spans = [LabelledVideo(path, 0, 0.4, 1.2), LabelledVideo(path, 0, 0.0, 0.2)]
    preprocessing = replace(SIX_VIEWS, clips=2, crops=1)
    views = EvaluationViews(spans, preprocessing)[[request(index) for index in range(4)]]
    assert shown(views) == [[10, 12, 14, 16], [23, 25, 27, 29], [0, 2, 4, 4], [0, 2, 4, 4]]
    training = TrainingClips(spans, WHOLE)
    for seed in range(10):
        first, second = shown(training[[request(0, seed), request(1, seed)]])
        assert 10 <= first[0] <= 20
        assert first == [first[0] + 3 * i for i in range(4)]
        assert second == [0, 3, 4, 4]
    with pytest.raises(VideoError, match=f"^{path}: ends at 1.640 s, before 2.0 s"):
        TrainingClips([LabelledVideo(path, 0, 2.0, 3.0)], WHOLE)[[request(0)]]


def test_every_video_may_stand_in(numbered, broken):
    dataset = TrainingClips([broken[0], *numbered], WHOLE, on_bad_video="substitute")
    batch = dataset[[request(0, seed) for seed in range(60)]]
    assert (batch["requested"], len(batch["bad"])) == (60, 60)
    assert set(batch["video"].tolist()) == {1, 2, 3, 4, 5}


def test_a_broken_data_set_is_an_error_after_ten_more_tries(broken, monkeypatch):
    tried = []

    def opening(path, *arguments, **options):
        tried.append(path)
        return open_video(path, *arguments, **options)

    monkeypatch.setattr("vidpool.data.dataset.open_video", opening)
    dataset = TrainingClips(broken, WHOLE, on_bad_video="substitute")
    with pytest.raises(VideoError, match=r"10 videos tried in place of others") as caught:
        dataset[[request(1)]]
    assert len(tried) == 11
    assert tried[0] == broken[1].path
    assert str(caught.value).startswith(tried[-1])


def test_settings_are_not_substituted(numbered):
    dataset = TrainingClips(numbered, WHOLE, decoder="opencv", on_bad_video="substitute")
    with pytest.raises(ConfigError, match="'opencv'"):
        dataset[[request(0)]]


@given(length=st.integers(1, 300), clips=st.integers(1, 12))
def test_clip_positions(length, clips):
    positions = clip_positions(length, replace(SIX_VIEWS, clips=clips))
    room = max(0, length - 7)
    starts = [round(k * room / (clips - 1)) for k in range(clips)] if clips > 1 else [room // 2]
    expected = [[min(start + 2 * i, length - 1) for i in range(4)] for start in starts]
    assert positions.tolist() == expected


def test_evaluation_views_are_in_order(numbered):
    dataset = EvaluationViews(numbered, replace(SIX_VIEWS, clips=3, crops=1))
    assert len(dataset) == 15
    batch = dataset[[request(index) for index in range(15)]]
    assert batch["clip"].shape == (15, 3, 4, 64, 64)
    assert batch["clip"].dtype == torch.uint8
    assert batch["video"].tolist() == np.repeat(range(5), 3).tolist()
    assert batch["label"].tolist() == np.repeat(LABELS, 3).tolist()
    assert (batch["requested"], batch["bad"]) == (len(batch["video"]), [])
    # a clip spans seven frames
    starts = [0, 17, 34, 0, 12, 23, 0, 8, 16, 0, 22, 45, 0, 1, 2]
    assert shown(batch) == [[start, start + 2, start + 4, start + 6] for start in starts]


def test_evaluation_is_not_random(numbered):
    dataset = EvaluationViews(numbered, SIX_VIEWS)
    one, other = dataset[[request(3, seed=1)]], dataset[[request(3, seed=2)]]
    assert same(one, {**other, "seed": one["seed"]})


def test_three_crops_of_a_wide_video(wide):
    dataset = EvaluationViews([LabelledVideo(str(wide), 4)], SIX_VIEWS)
    batch = dataset[[request(1), request(0, counted=False)]]
    with open_video(wide) as video:
        clips = [video.frames([33, 35, 37, 39], 64), video.frames([0, 2, 4, 6], 64)]
    assert clips[0].shape == (4, 3, 64, 112)
    lefts = (0, 24, 48)
    expected = [clip[..., left : left + 64].transpose(0, 1) for clip in clips for left in lefts]
    assert torch.equal(batch["clip"], torch.stack(expected))
    assert batch["label"].tolist() == [4] * 6
    assert batch["video"].tolist() == [0] * 6
    assert batch["counted"].tolist() == [True] * 3 + [False] * 3


def test_static_views_show_one_frame(numbered):
    preprocessing = replace(SIX_VIEWS, clips=2, crops=1)
    requests = [request(index) for index in range(10)]
    moving = EvaluationViews(numbered, preprocessing)[requests]
    still = EvaluationViews(numbered, preprocessing, static=True)[requests]
    assert shown(still) == [[clip[2]] * 4 for clip in shown(moving)]
    for key in ("label", "video", "counted"):
        assert torch.equal(still[key], moving[key])


@pytest.mark.parametrize(("clips", "crops"), [(1, 1), (3, 1), (2, 3)])
def test_read_views_reads_what_evaluation_does(wide, numbered, clips, crops):
    preprocessing = replace(SIX_VIEWS, crop=48, clips=clips, crops=crops)
    for path in (str(wide), numbered[4].path):
        views = read_views(path, preprocessing)
        assert views.shape == (clips * crops, 3, 4, 48, 48)
        assert views.dtype == torch.uint8
        dataset = EvaluationViews([LabelledVideo(path, 0)], preprocessing)
        assert torch.equal(views, dataset[[request(clip) for clip in range(clips)]]["clip"])


def test_preprocessing_comes_back_from_plain_values():
    values = json.loads(json.dumps(SIX_VIEWS.to_dict()))
    assert Preprocessing.from_dict(values) == SIX_VIEWS
    assert values["mean"] == [0.5, 0.5, 0.5]
    assert SIX_VIEWS.shape == ClipShape(4, 2, 64)
    hash(Preprocessing.from_dict(values))
    del values["square_pixels"]  # checkpoints of earlier versions
    assert Preprocessing.from_dict(values) == SIX_VIEWS


def test_views_have_square_pixels_where_the_checkpoint_says_so(numbered, monkeypatch):
    asked = []

    def opening(path, *arguments, square_pixels):
        asked.append(square_pixels)
        return open_video(path, *arguments, square_pixels=square_pixels)

    for module in ("dataset", "views"):
        monkeypatch.setattr(f"vidpool.data.{module}.open_video", opening)
    for square in (False, True):
        preprocessing = replace(SIX_VIEWS, square_pixels=square)
        read_views(numbered[0].path, preprocessing)
        EvaluationViews(numbered, preprocessing)[[request(0)]]
    assert asked == [False, False, True, True]


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("frames", 0, "frames=0"),
        ("stride", -1, "stride=-1"),
        ("crop", 0, "crop=0"),
        ("crop", 65, r"short side \(64\) .* crop \(65\)"),
        ("short_side", 0, r"short side \(0\)"),
        ("clips", 0, "clips=0"),
        ("crops", 2, "crops=2"),
        ("crops", 0, "crops=0"),
        ("mean", (0.5,), r"mean=\(0\.5,\)"),
        ("std", (0.2, 0.2), r"std=\(0\.2, 0\.2\)"),
        ("std", (0.2, 0.0, 0.2), r"std=\(0\.2, 0\.0, 0\.2\)"),
        ("std", (), r"std=\(\)"),
    ],
)
def test_preprocessing_that_cannot_work_is_named(name, value, named):
    with pytest.raises(ConfigError, match=named):
        replace(SIX_VIEWS, **{name: value})
