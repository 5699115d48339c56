"""Which frames clips show, against their definition written out."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidpool.data.views import clip_span, even_clips, random_clip
from vidpool.errors import ConfigError

lengths = st.integers(1, 400)
frame_counts = st.integers(1, 40)
strides = st.integers(1, 12)
seeds = st.integers(0, 2**32)


def frames_from(start, length, frames, stride):
    """The clip that starts at a frame, one frame after the other."""
    return [min(start + i * stride, length - 1) for i in range(frames)]


@given(frame_counts, strides)
def test_span_reaches_from_first_to_last_frame(frames, stride):
    clip = range(0, frames * stride, stride)
    assert len(clip) == frames
    assert clip_span(frames, stride) == clip[-1] - clip[0] + 1


@given(lengths, frame_counts, strides, seeds)
def test_random_clip_lies_within_the_video(length, frames, stride, seed):
    clip = random_clip(length, frames, stride, torch.Generator().manual_seed(seed))
    assert clip.dtype == torch.int64
    start = int(clip[0])
    assert clip.tolist() == frames_from(start, length, frames, stride)
    last_start = length - clip_span(frames, stride)
    assert 0 <= start <= max(0, last_start)
    if last_start >= 0:  # then no frame is repeated
        assert len(set(clip.tolist())) == frames


@given(frame_counts, strides, seeds, st.data())
def test_short_videos_begin_at_the_start_and_repeat_the_last_frame(frames, stride, seed, data):
    length = data.draw(st.integers(1, clip_span(frames, stride)))
    clip = random_clip(length, frames, stride, torch.Generator().manual_seed(seed)).tolist()
    distinct = range(0, length, stride)
    assert clip[: len(distinct)] == list(distinct)[:frames]
    assert set(clip[len(distinct) :]) <= {length - 1}
    assert even_clips(length, 2, frames, stride).tolist() == [clip, clip]


def test_every_start_is_equally_likely():
    length, frames, stride, draws = 20, 4, 3, 5000
    generator = torch.Generator().manual_seed(0)
    starts = Counter(int(random_clip(length, frames, stride, generator)[0]) for _ in range(draws))
    assert set(starts) == set(range(11))  # 0 … 20 - (3 * 3 + 1)
    expected = draws / 11
    chi_square = sum((count - expected) ** 2 / expected for count in starts.values())
    assert chi_square < 29.6  # 10 degrees of freedom: exceeded by chance once in 1,000


def test_random_clip_is_the_generators():
    one, other = (torch.Generator().manual_seed(5) for _ in range(2))
    torch.manual_seed(1)
    first = [random_clip(1000, 3, 2, one).tolist() for _ in range(9)]
    state = torch.get_rng_state()
    assert first == [random_clip(1000, 3, 2, other).tolist() for _ in range(9)]
    assert len({clip[0] for clip in first}) > 5
    assert torch.equal(state, torch.get_rng_state())


def test_random_clip_is_the_global_generators_by_default():
    torch.manual_seed(3)
    first = [random_clip(1000, 3, 2).tolist() for _ in range(3)]
    torch.manual_seed(3)
    assert first == [random_clip(1000, 3, 2).tolist() for _ in range(3)]
    assert first[0] != first[1]


@given(lengths, st.integers(1, 15), frame_counts, strides)
def test_even_clips_cover_the_video_from_end_to_end(length, clips, frames, stride):
    positions = even_clips(length, clips, frames, stride)
    assert positions.dtype == torch.int64
    assert positions.shape == (clips, frames)
    starts = positions[:, 0].tolist()
    for start, clip in zip(starts, positions.tolist(), strict=True):
        assert clip == frames_from(start, length, frames, stride)
    room = max(0, length - clip_span(frames, stride))
    if clips == 1:
        before, after = starts[0], room - starts[0]
        assert 0 <= after - before <= 1
    else:
        assert starts[0] == 0
        assert starts[-1] == room
        for k, start in enumerate(starts):
            assert abs(start - k * room / (clips - 1)) <= 0.5


def test_even_clips_by_hand():
    # 20 frames, a span of 7: starts from 0 to 13
    assert even_clips(20, 1, 4, 2).tolist() == [[6, 8, 10, 12]]
    assert even_clips(20, 2, 4, 2).tolist() == [[0, 2, 4, 6], [13, 15, 17, 19]]
    assert even_clips(21, 3, 4, 2)[:, 0].tolist() == [0, 7, 14]
    assert even_clips(5, 2, 4, 2).tolist() == [[0, 2, 4, 4]] * 2


@pytest.mark.parametrize("value", [0, -1, -16])
def test_values_below_1_are_named(value):
    for clip in (random_clip, lambda length, *rest: even_clips(length, 3, *rest)):
        with pytest.raises(ConfigError, match=f"frames={value}$"):
            clip(50, value, 2)
        with pytest.raises(ConfigError, match=f"stride={value}$"):
            clip(50, 8, value)
        with pytest.raises(ValueError, match=f"video_length={value}$"):
            clip(value, 8, 2)
    with pytest.raises(ConfigError, match=f"clips={value}$"):
        even_clips(50, value, 8, 2)
    with pytest.raises(ConfigError, match=f"frames={value}$"):
        clip_span(value, 2)
    with pytest.raises(ConfigError, match=f"stride={value}$"):
        clip_span(8, value)
