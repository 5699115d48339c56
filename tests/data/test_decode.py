import math
import random
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_video import numbers, write_video
from torch import Tensor

from vidpool.data.decode import DECODERS, Video, open_video
from vidpool.errors import ConfigError, VideoError

SHARED = Path(__file__).parents[2].parent / "shared" / "videos"
COUNT = 60
X264 = {"preset": "veryfast", "x264-params": "b-adapt=0:scenecut=0"}
OPEN_GOP = {"preset": "veryfast", "x264-params": "b-adapt=0:scenecut=0:open-gop=1"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=none:bframes=3:open-gop=1:keyint=12"}
VPX = {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"}
UNEVEN = np.random.default_rng(0).integers(1, 12, COUNT).cumsum().tolist()

WRITTEN: dict[str, dict[str, Any]] = {
    "many_keys.avi": {"codec": "mpeg4"},
    "one_key.avi": {"codec": "mpeg4", "gop": 1000, "options": {"sc_threshold": "1000000000"}},
    "h264.avi": {"options": X264},
    "motion_jpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "b_frames": 0},
    "gop12.mp4": {"options": X264},
    "gop250.mp4": {"options": X264, "gop": 250},
    "intra_only.mp4": {"options": X264, "gop": 1, "b_frames": 0},
    "open_gop.mp4": {"options": OPEN_GOP},
    "open_gop.mkv": {"options": OPEN_GOP},
    "odd_size.mp4": {"options": X264, "size": (113, 65), "pix_fmt": "yuv444p"},
    "variable_rate.mp4": {"options": X264, "stamps": UNEVEN},
    "variable_rate.mkv": {"options": X264, "stamps": UNEVEN},
    "late_start.mkv": {"options": X264, "stamps": range(1000, 1000 + 4 * COUNT, 4)},
    "stream.ts": {"options": X264},
    "open_gop.ts": {"options": OPEN_GOP},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "hevc.mp4": {"codec": "libx265", "options": X265},
    "vp9.webm": {"codec": "libvpx-vp9", "b_frames": 0, "options": VPX},
    "vp8_hidden_frames.webm": {"codec": "libvpx", "b_frames": 0, "options": VPX},
    "two_streams.mp4": {"options": X264, "streams": 2},
    "one_frame.mp4": {"options": X264, "count": 1},
    "one_frame.avi": {"codec": "mpeg4", "count": 1},
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the path of one of the files in WRITTEN, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("numbered")

    @cache
    def write(name: str) -> Path:
        return write_video(folder / name, **{"count": COUNT, **WRITTEN[name]})

    return write


def shared_file(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path


def wrong_frames(video: Video, first: int = 0, clip: int = 8) -> list[tuple[int, int]]:
    """Ask for every frame, in random order and in clips; return (asked, got) where they differ."""
    asked = random.Random(0).sample(range(len(video)), len(video))
    clips = [asked[start : start + clip] for start in range(0, len(asked), clip)]
    got = [number - first for clip in clips for number in numbers(video.frames(clip))]
    return [pair for pair in zip(asked, got, strict=True) if pair[0] != pair[1]]


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


def test_counted_frames_beyond_those_kept(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidpool.data.decode.pyav_access.KEPT_PIXELS", 10 * 112 * 64)
    with open_video(written("h264.avi")) as video:
        assert wrong_frames(video) == []


def test_decord_is_right_on_avi_with_one_key_frame(written: Callable[[str], Path]) -> None:
    pytest.importorskip("decord")
    with open_video(written("one_key.avi"), "decord") as video:
        assert len(video) == COUNT
        # at times it returns an earlier frame for the last
        assert [pair for pair in wrong_frames(video) if pair[0] != COUNT - 1] == []


@pytest.mark.parametrize("name", ["real_ucf_style.avi", "real_kinetics_style.mp4"])
def test_decord_agrees_on_real_videos(name: str) -> None:
    pytest.importorskip("decord")
    path = shared_file(name)
    with open_video(path) as video, open_video(path, "decord") as other:
        assert len(video) == len(other)
        assert video.fps == pytest.approx(other.fps)
        indices = range(0, len(video), 9)
        for short_side, tolerance in ((None, 3), (128, 6)):
            ours = video.frames(indices, short_side)
            theirs = other.frames(indices, short_side)
            assert ours.shape == theirs.shape
            assert (ours.float() - theirs.float()).abs().mean() < tolerance


@pytest.mark.parametrize("decoder", DECODERS)
def test_frames_come_in_the_order_asked(written: Callable[[str], Path], decoder: str) -> None:
    if decoder == "decord":
        pytest.importorskip("decord")
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
def every_frame(path: Path) -> Tensor:
    with open_video(path) as video:
        return video.frames(range(len(video)))


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(["open_gop.mp4", "many_keys.avi", "stream.ts"]),
    clips=st.lists(st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=6), max_size=4),
)
def test_any_clips_equal_the_whole_video_decoded(
    written: Callable[[str], Path], name: str, clips: list[list[int]]
) -> None:
    whole = every_frame(written(name))
    with open_video(written(name)) as video:
        for clip in clips:
            assert torch.equal(video.frames(clip), whole[clip])


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


@pytest.mark.parametrize("decoder", DECODERS)
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
    names = ["gop12.mp4", "late_start.mkv", "stream.ts", "one_key.avi"]
    if decoder == "decord":
        pytest.importorskip("decord")
        names = ["gop12.mp4", "one_key.avi"]
    for name in names:
        with open_video(written(name), decoder) as video:
            assert video.span(start, end) == frames


@settings(deadline=None, max_examples=60)
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


@pytest.mark.parametrize("decoder", DECODERS)
def test_no_span(written: Callable[[str], Path], decoder: str) -> None:
    if decoder == "decord":
        pytest.importorskip("decord")
    for name in ("gop12.mp4", "one_key.avi"):
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
@pytest.mark.parametrize("decoder", DECODERS)
def test_short_side(
    tmp_path: Path, size: tuple[int, int], short_side: int, scaled: tuple[int, int], decoder: str
) -> None:
    if decoder == "decord":
        pytest.importorskip("decord")
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


def with_display_matrix(source: Path, target: Path, a: int, b: int, c: int, d: int) -> Path:
    """Copy an mp4 file, writing (x, y) -> (a x + c y, b x + d y) into its track header."""
    data = bytearray(source.read_bytes())
    start = data.index(b"tkhd") + 44
    matrix = np.array([a, b, 0, c, d, 0, 0, 0, 1], ">i4")
    matrix[:8] <<= 16
    matrix[8] <<= 30
    data[start : start + 36] = matrix.tobytes()
    target.write_bytes(data)
    return target


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


def test_decord_turns_frames_too(written: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("decord")
    turned = with_display_matrix(written("gop12.mp4"), tmp_path / "turned.mp4", 0, 1, -1, 0)
    with open_video(turned) as video, open_video(turned, "decord") as other:
        assert other.frames([0]).shape == video.frames([0]).shape
        assert (video.frames([0]).float() - other.frames([0]).float()).abs().mean() < 6


@pytest.mark.parametrize("name", ["with space.mp4", "größe 动作.mp4", "-i.mp4", "http:a%03d.mp4"])
def test_odd_paths(
    written: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(written("gop12.mp4").read_bytes())
    for path in (name, Path(name), tmp_path / name):
        with open_video(path) as video:
            assert numbers(video.frames([9])) == [9]


@pytest.mark.parametrize("decoder", DECODERS)
def test_misuse(written: Callable[[str], Path], decoder: str) -> None:
    if decoder == "decord":
        pytest.importorskip("decord")
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


def test_unknown_decoder(written: Callable[[str], Path]) -> None:
    with (
        pytest.raises(ConfigError, match="'opencv'; there are: auto, pyav, decord"),
        open_video(written("gop12.mp4"), "opencv"),
    ):
        pass


def test_decord_not_installed(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    with (
        pytest.raises(ConfigError, match="pip install decord"),
        open_video(written("gop12.mp4"), "decord"),
    ):
        pass


def failure(path: Path, decoder: str = "auto") -> str:
    """Read a video that cannot be read; return what the error says after the path."""
    with pytest.raises(VideoError) as caught, open_video(path, decoder) as video:
        video.frames(range(len(video)))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("decoder", DECODERS)
def test_nothing_to_read(tmp_path: Path, decoder: str) -> None:
    if decoder == "decord":
        pytest.importorskip("decord")
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
        sure = range(at_least - 5)
        assert torch.equal(video.frames(sure, 64), other.frames(sure, 64))
        assert video.frames([len(video) - 1], 64).shape[0] == 1


@pytest.mark.parametrize("name", ["gop12.mp4", "many_keys.avi", "open_gop.mkv", "stream.ts"])
def test_damaged_bytes_never_raise_anything_else(
    written: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    whole = written(name).read_bytes()
    path = tmp_path / name
    chance = random.Random(name)
    for _ in range(15):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 10, 200])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            with open_video(path) as video:
                indices = [0, len(video) // 2, len(video) - 1]
                assert video.fps > 0
                clip = video.frames(indices, 32)
        except VideoError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017 (not raising is right, too)
        else:
            assert clip.shape[:2] == (3, 3)
            assert min(clip.shape[2:]) == 32
