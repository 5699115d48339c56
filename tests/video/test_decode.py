import gc
import math
import random
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from decoding import need, shared_file, with_display_matrix, wrong_frames
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_kinds import COUNT, UNEVEN, WRITTEN, X264
from numbered_video import numbers, write_video
from torch import Tensor

from vidpool.bench.numbered_video import trim
from vidpool.errors import ConfigError, VideoError
from vidpool.video import Video, open_video
from vidpool.video.base import scaled_size


@pytest.mark.parametrize("name", WRITTEN)
def test_no_frame_is_wrong(written: Callable[[str], Path], name: str) -> None:
    with open_video(written(name)) as video:
        assert len(video) == WRITTEN[name].get("count", COUNT)
        assert wrong_frames(video) == []


@pytest.mark.parametrize(
    ("name", "first", "count"),
    [
        ("numbered_mpeg4_bframes.avi", 0, 175),
        ("numbered_h264_gop250.mp4", 0, 300),
        ("numbered_trimmed_by_copy.mp4", None, 152),
    ],
)
def test_no_frame_of_the_shared_files_is_wrong(name: str, first: int | None, count: int) -> None:
    with open_video(shared_file(name)) as video:
        assert len(video) == count
        if first is None:
            first = numbers(video.frames([0]))[0]
            assert first > 0
        assert wrong_frames(video, first, clip=40) == []


@pytest.mark.parametrize("name", ["gop12.mp4", "gop250.mp4", "open_gop.mp4", "mpeg4.mp4"])
def test_no_frame_trimmed_without_coding_is_wrong(
    written: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    for first in (1, 7, 12, 29):
        path = trim(written(name), tmp_path / f"{first}.mp4", first)
        with open_video(path) as video:
            assert len(video) == COUNT - first
            assert wrong_frames(video, first) == []
            assert video.span(0, 0.2) == range(5)


def test_counted_frames_beyond_those_kept(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidpool.video.pyav_access.KEPT_PIXELS", 10 * 112 * 64)
    with open_video(written("h264.avi")) as video:
        assert wrong_frames(video) == []


@pytest.mark.parametrize("decoder", ["auto", "torchcodec", "decord"])
def test_frames_come_in_the_order_asked(written: Callable[[str], Path], decoder: str) -> None:
    need(decoder)
    with open_video(str(written("gop12.mp4")), decoder) as video:
        clip = video.frames([7, 3, 3, 50, 0, 59])
        assert numbers(clip) == [7, 3, 3, 50, 0, 59]
        assert clip.dtype == torch.uint8
        assert clip.shape == (6, 3, 64, 112)
        assert clip.is_contiguous()
        assert torch.equal(clip[1], clip[2])
        assert numbers(video.frames(np.array([5, 4]))) == [5, 4]
        assert numbers(video.frames(torch.tensor([5, 4]))) == [5, 4]


@cache
def every_frame(path: Path, short_side: int | None = None) -> Tensor:
    """Decode a whole file from its start, leaving nothing out and seeking nowhere."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        height, width = scaled_size(stream.height, stream.width, short_side)
        frames = [frame.reformat(width, height, "rgb24") for frame in container.decode(stream)]
    return torch.from_numpy(np.stack([frame.to_ndarray() for frame in frames])).permute(0, 3, 1, 2)


ALL_WAYS = [
    *("open_gop.mp4", "pyramid.mp4", "hevc.mp4", "vp9.webm", "av1.mp4", "stream.ts"),
    *("many_keys.avi", "one_key.avi", "mpeg4.mkv", "h264.avi"),
    *("intra_refresh.mp4", "interlaced.mp4", "hevc_layers.mp4", "hevc_pyramid.mp4"),
]


@pytest.mark.parametrize("kept_bytes", [2**26, 1000])
@settings(max_examples=60)
@given(
    name=st.sampled_from(ALL_WAYS),
    clips=st.lists(st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=6), max_size=4),
)
def test_any_clips_equal_the_whole_video_decoded(
    written: Callable[[str], Path], kept_bytes: int, name: str, clips: list[list[int]]
) -> None:
    whole = every_frame(written(name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vidpool.video.pyav_source.KEPT_BYTES", kept_bytes)
        with open_video(written(name)) as video:
            assert len(video) == len(whole)
            for clip in clips:
                assert torch.equal(video.frames(clip), whole[clip])


@pytest.mark.parametrize(
    "name", ["real_ucf_style.avi", "real_kinetics_style.mp4", "real_cooking.mkv"]
)
def test_clips_of_real_videos_equal_the_whole_video_decoded(name: str) -> None:
    path = shared_file(name)
    whole = every_frame(path, 64)
    chance = random.Random(0)
    for stride in (1, 3, 4, 8):
        with open_video(path) as video:
            assert len(video) == len(whole)
            start = chance.randrange(len(whole) - 8 * stride)
            clip = range(start, start + 8 * stride, stride)
            assert torch.equal(video.frames(clip, 64), whole[list(clip)])


FAST = ["gop12.mp4", "open_gop.ts", "hevc.mp4", "vp9.webm", "av1.mp4", "many_keys.avi", "h264.avi"]


@pytest.mark.parametrize("name", FAST)
def test_fast_frames_have_the_right_numbers(written: Callable[[str], Path], name: str) -> None:
    with open_video(written(name), fast=True) as video:
        assert len(video) == COUNT
        assert wrong_frames(video) == []


def test_fast_pixels_are_near_exact_ones(written: Callable[[str], Path]) -> None:
    with (
        open_video(written("gop12.mp4")) as exact,
        open_video(written("gop12.mp4"), fast=True) as fast,
    ):
        error = exact.frames(range(COUNT)).float() - fast.frames(range(COUNT)).float()
    assert 0 < error.square().mean() < 30  # 33 dB


def test_nothing_waits_for_the_garbage_collector(written: Callable[[str], Path]) -> None:
    gc.disable()
    try:
        for name in ("gop12.mp4", "many_keys.avi", "h264.avi"):
            with open_video(written(name)) as video:
                video.frames([3, 9])
                left = [weakref.ref(video._source), weakref.ref(video._access)]
            del video
            assert [reference() for reference in left] == [None, None]
    finally:
        gc.enable()


def test_frames_that_nobody_asked_for_are_not_decoded(written: Callable[[str], Path]) -> None:
    decoded = []
    with open_video(written("many_keys.avi")) as video:
        source = video._source
        decode = source.decode

        def watched(packet, skip=False):
            frames = decode(packet, skip)
            decoded.extend(frame.pts for frame in frames)
            return frames

        source.decode = watched
        clip = video.frames([25, 29])
        assert numbers(clip) == [25, 29]
    # keys are every 12 frames; B-frames between 25 and 29 are left out, but for those asked for
    assert set(decoded) < set(range(22, 36))
    assert {25, 29} <= set(decoded)
    assert len(decoded) < 10


@pytest.mark.parametrize(
    ("name", "fps"),
    [
        ("gop12.mp4", 25),
        ("late_start.mkv", 25),
        ("many_keys.avi", 25),
        ("variable_rate.mp4", 100 * (COUNT - 1) / (UNEVEN[-1] - UNEVEN[0])),
        ("variable_rate.mkv", 100 * (COUNT - 1) / (UNEVEN[-1] - UNEVEN[0])),
        ("one_frame.mp4", 25),
    ],
)
def test_fps(written: Callable[[str], Path], name: str, fps: float) -> None:
    with open_video(written(name)) as video:
        assert video.fps == pytest.approx(fps, rel=1e-3)


@pytest.mark.parametrize("decoder", ["auto", "torchcodec", "decord"])
@pytest.mark.parametrize(
    ("start", "end", "frames"),
    [
        (0, 0.04, range(0, 1)),
        (0.3, 0.6, range(7, 15)),
        (0.28, 0.6, range(7, 15)),
        (0.28, 0.6001, range(7, 16)),
        (0.301, 0.302, range(7, 8)),
        (2.2, 9, range(55, 60)),
        (2.39, math.inf, range(59, 60)),
        (0, 2.4, range(0, 60)),
    ],
)
def test_span(
    written: Callable[[str], Path], decoder: str, start: float, end: float, frames: range
) -> None:
    need(decoder)
    names = ["gop12.mp4", "late_start.mkv"]
    if decoder == "auto":
        names += ["stream.ts", "one_key.avi"]
    for name in names:
        with open_video(written(name), decoder) as video:
            assert video.span(start, end) == frames


@settings(max_examples=60)
@given(
    name=st.sampled_from(["variable_rate.mp4", "variable_rate.mkv"]),
    start=st.floats(0, (UNEVEN[-1] - UNEVEN[0]) / 100),
    length=st.floats(1e-3, 9),
)
def test_span_of_a_variable_rate(
    written: Callable[[str], Path], name: str, start: float, length: float
) -> None:
    begins = [(stamp - UNEVEN[0]) / 100 for stamp in UNEVEN]
    ends = [*begins[1:], math.inf]
    shown = [
        number
        for number, (begin, end) in enumerate(zip(begins, ends, strict=True))
        if begin < start + length - 2e-6 and end > start + 2e-6
    ]
    with open_video(written(name)) as video:
        span = video.span(start, start + length)
        # on the screen for less than two millionths of a second: may count or not
        assert set(shown) <= set(span)
        assert len(span) - len(shown) <= 2
        if length > 0.1:
            assert (span[0], span[-1]) == (shown[0], shown[-1])


@pytest.mark.parametrize("decoder", ["auto", "torchcodec", "decord"])
def test_no_span(written: Callable[[str], Path], decoder: str) -> None:
    need(decoder)
    for name in ("gop12.mp4",) if decoder == "torchcodec" else ("gop12.mp4", "one_key.avi"):
        with open_video(written(name), decoder) as video:
            for start in (2.4, 7):
                with pytest.raises(VideoError, match=rf"{name}: ends at 2.400 s, before {start} s"):
                    video.span(start, 9)
            for start, end in ((-0.1, 2), (1, 1), (1, 0.5), (math.nan, 1), (0, math.nan)):
                with pytest.raises(ValueError, match="no frames lie within"):
                    video.span(start, end)


@pytest.mark.parametrize("name", ["gop12.mp4", "many_keys.avi", "h264.avi"])
def test_known_length(written: Callable[[str], Path], name: str) -> None:
    with open_video(written(name), length=COUNT) as video:
        assert len(video) == COUNT
        assert numbers(video.frames([9, 30])) == [9, 30]
    with (
        open_video(written(name), length=COUNT + 5) as video,
        pytest.raises(VideoError, match=r"65 frames are expected|frame 62 cannot be decoded"),
    ):
        video.frames([62])
    with pytest.raises(ValueError, match="at least 1 frame"), open_video(written(name), length=0):
        pass


def test_known_length_too_small(written: Callable[[str], Path]) -> None:
    for name in ("gop12.mp4", "many_keys.avi"):
        with (
            open_video(written(name), length=50) as video,
            pytest.raises(VideoError, match="50 frames are expected of it, but it holds 60"),
        ):
            len(video)
    with open_video(written("h264.avi"), length=50) as video:
        assert numbers(video.frames([30, 49])) == [30, 49]
        with pytest.raises(IndexError, match="50 frames"):
            video.frames([50])


@pytest.mark.parametrize(
    ("size", "short_side", "scaled"),
    [
        ((112, 64), 32, (32, 56)),
        ((64, 112), 32, (56, 32)),
        ((113, 65), 40, (40, 70)),
        ((64, 64), 128, (128, 128)),
        ((112, 64), 64, (64, 112)),
    ],
)
@pytest.mark.parametrize("decoder", ["auto", "torchcodec", "decord"])
def test_short_side(
    tmp_path: Path, size: tuple[int, int], short_side: int, scaled: tuple[int, int], decoder: str
) -> None:
    need(decoder)
    path = write_video(tmp_path / "a.mp4", 5, size=size, pix_fmt="yuv444p", options=X264)
    with open_video(path, decoder) as video:
        assert video.frames([0, 4], short_side).shape == (2, 3, *scaled)
        assert video.frames([0]).shape == (1, 3, size[1], size[0])


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 3)])
def test_tiny_pictures(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_video(tmp_path / "a.mov", 3, codec="png", size=size, pix_fmt="rgb24", b_frames=0)
    with open_video(path) as video:
        assert len(video) == 3
        assert video.frames([2]).shape == (1, 3, size[1], size[0])
        scale = 16 // min(size)
        assert video.frames([2], 16).shape == (1, 3, scale * size[1], scale * size[0])


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((0, 1, -1, 0), lambda clip: clip.rot90(-1, (2, 3))),
        ((-1, 0, 0, -1), lambda clip: clip.rot90(2, (2, 3))),
        ((0, -1, 1, 0), lambda clip: clip.rot90(1, (2, 3))),
        ((-1, 0, 0, 1), lambda clip: clip.flip(3)),
        ((1, 0, 0, -1), lambda clip: clip.flip(2)),
        ((0, 1, 1, 0), lambda clip: clip.transpose(2, 3)),
    ],
    ids=["clockwise", "half turn", "anticlockwise", "mirrored", "upside down", "transposed"],
)
def test_display_matrix(
    written: Callable[[str], Path],
    tmp_path: Path,
    matrix: tuple[int, int, int, int],
    turn: Callable[[Tensor], Tensor],
) -> None:
    plain = written("gop12.mp4")
    turned = with_display_matrix(plain, tmp_path / "turned.mp4", *matrix)
    for short_side in (None, 32):
        with open_video(plain) as video:
            expected = turn(video.frames([3, 20], short_side))
        with open_video(turned) as video:
            assert torch.equal(video.frames([3, 20], short_side), expected)


@pytest.mark.parametrize("name", ["with space.mp4", "größe 动作.mp4", "-i.mp4", "http:a%03d.mp4"])
def test_odd_paths(
    written: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(written("gop12.mp4").read_bytes())
    for path in (name, Path(name), tmp_path / name):
        with open_video(path) as video:
            assert numbers(video.frames([9])) == [9]


@pytest.mark.parametrize("decoder", ["auto", "torchcodec", "decord"])
def test_misuse(written: Callable[[str], Path], decoder: str) -> None:
    need(decoder)
    path = written("gop12.mp4")
    with open_video(path, decoder) as video:
        for index in (-1, COUNT):
            with pytest.raises(IndexError, match=rf"{path}: no frame {index}; .* {COUNT} frames"):
                video.frames([0, index])
        with pytest.raises(ValueError, match="no frame indices"):
            video.frames([])
        for short_side in (0, -5):
            with pytest.raises(ConfigError, match="short_side"):
                video.frames([0], short_side)
    video.close()
    for use in (lambda: len(video), lambda: video.fps, lambda: video.frames([0])):
        with pytest.raises(ValueError, match="closed"):
            use()


def failure(path: Path, decoder: str = "auto") -> str:
    """Read a video that cannot be read; return what the error says after the path."""
    with pytest.raises(VideoError) as caught, open_video(path, decoder) as video:
        video.frames(range(len(video)))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("decoder", ["auto", "torchcodec", "decord"])
def test_nothing_to_read(tmp_path: Path, decoder: str) -> None:
    need(decoder)
    assert failure(tmp_path / "none.mp4", decoder) == "no such file"
    assert failure(tmp_path, decoder) == "is a folder, not a video"
    assert "name too long" in failure(tmp_path / ("a" * 300), decoder)
    (tmp_path / "empty.mp4").touch()
    assert failure(tmp_path / "empty.mp4", decoder) == "is empty (0 bytes)"
    for content in (b"not a video\n" * 9, bytes(4096), b"<!DOCTYPE html><html></html>"):
        (tmp_path / "other.mp4").write_bytes(content)
        assert "video" in failure(tmp_path / "other.mp4", decoder)


def test_undecodable_streams(written: Callable[[str], Path], tmp_path: Path) -> None:
    data = written("gop12.mp4").read_bytes()
    path = tmp_path / "a.mp4"
    path.write_bytes(data.replace(b"avc1", b"zzzz"))
    assert "coded in a way" in failure(path)
    start = data.index(b"mdat") + 4
    end = data.index(b"moov", start) - 4
    path.write_bytes(data[:start] + bytes(end - start) + data[end:])
    assert failure(path) == "no frame of it decodes"


def test_damage_in_the_middle(written: Callable[[str], Path], tmp_path: Path) -> None:
    data = bytearray(written("gop12.mp4").read_bytes())
    start = data.index(b"mdat") + 4
    end = data.index(b"moov", start) - 4
    middle = slice(start + (end - start) * 2 // 5, start + (end - start) // 2)
    data[middle] = bytes(middle.stop - middle.start)
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    with open_video(path) as video:
        assert len(video) == COUNT
        assert numbers(video.frames([0, 11, 48, 59])) == [0, 11, 48, 59]
        with pytest.raises(VideoError, match=r"frame \d+ cannot be decoded"):
            video.frames(range(COUNT))
        assert numbers(video.frames([2, 50])) == [2, 50]


@pytest.mark.parametrize(
    "name", ["gop12.mp4", "hevc.mp4", "vp9.webm", "many_keys.avi", "h264.avi", "mpeg2.mpg"]
)
def test_damaged_frames_do_not_depend_on_what_was_read_before(
    written: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    data = bytearray(written(name).read_bytes())
    chance = random.Random(name)
    for _ in range(12):
        data[chance.randrange(len(data) // 4, len(data) * 3 // 4)] ^= 1 << chance.randrange(8)
    path = tmp_path / name
    path.write_bytes(data)

    def read(video: Video, number: int) -> Tensor | None:
        try:
            return video.frames([number])
        except VideoError:
            return None

    with open_video(path) as video:
        chosen = chance.sample(range(len(video)), 20)
    alone = {}
    for number in chosen:
        with open_video(path) as video:
            alone[number] = read(video, number)
    damaged = sum(frame is None for frame in alone.values())
    assert damaged < len(chosen)
    assert damaged or name == "vp9.webm"  # which takes most damage for other pictures
    for _ in range(2):
        chance.shuffle(chosen)
        with open_video(path) as video:
            for number in chosen:
                found, expected = read(video, number), alone[number]
                assert (found is None) == (expected is None), number
                assert found is None or torch.equal(found, expected), number


@pytest.mark.parametrize("name", ["gop12.mkv", "stream.ts", "many_keys.avi", "gop250.mkv"])
@pytest.mark.parametrize("part", [0.35, 0.8])
def test_files_cut_short_are_read_to_their_end(tmp_path: Path, name: str, part: float) -> None:
    keywords = WRITTEN.get(name, {"options": X264, "gop": 250 if "250" in name else 12})
    path = write_video(tmp_path / name, **{"count": COUNT, **keywords})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with open_video(path) as video:
        assert COUNT * part / 2 < len(video) < COUNT
        # the last group may lack B-frames, which are coded after frames shown later
        sure = range(len(video) - 4)
        assert numbers(video.frames(sure)) == list(sure)
        assert video.frames(range(len(video))).shape[0] == len(video)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("x_audio.mp4", "holds no video stream"),
        ("x_empty.mp4", "is empty (0 bytes)"),
        ("x_html.mp4", "is not a video, or was cut short before its index"),
        ("x_text.avi", "is not a video, or was cut short before its index"),
        ("x_trunc_moovend.mp4", "is not a video, or was cut short before its index"),
        ("x_zeros.mp4", "is not a video, or was cut short before its index"),
    ],
)
def test_broken_files(name: str, says: str) -> None:
    assert failure(shared_file(f"broken/{name}")) == says


@pytest.mark.parametrize(
    ("name", "whole", "at_least"),
    [
        ("x_trunc.avi", "real_ucf_style.avi", 60),
        ("x_trunc_faststart.mp4", "real_kinetics_style.mp4", 100),
    ],
)
def test_broken_files_that_can_be_read_in_part(name: str, whole: str, at_least: int) -> None:
    with (
        open_video(shared_file(f"broken/{name}")) as video,
        open_video(shared_file(whole)) as other,
    ):
        assert at_least <= len(video) < len(other)
        assert (video.cut_from, other.cut_from) == (len(other), None)
        sure = range(at_least - 5)
        assert torch.equal(video.frames(sure, 64), other.frames(sure, 64))
        assert video.frames([len(video) - 1], 64).shape[0] == 1
