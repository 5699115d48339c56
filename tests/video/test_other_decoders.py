"""Decoding with decord and torchcodec: where it is right, and the warning where it is not."""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from decoding import need, shared_file, with_display_matrix, wrong_frames
from numbered_kinds import COUNT

from vidpool.errors import ConfigError, VideoError
from vidpool.video import Video, open_video, other_decoders

OTHERS = ("decord", "torchcodec")


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test begin as a process does that has not warned yet."""
    monkeypatch.setattr(other_decoders, "_warned", set())


@pytest.mark.parametrize(
    "name",
    [
        "gop12.mp4",
        "pyramid.mp4",
        "odd_size.mp4",
        "variable_rate.mkv",
        "vp9.webm",
        "av1.mp4",
        "motion_jpeg.avi",
        "open_gop.mp4",
        "hevc.mp4",
        "mpeg4.mkv",
        "two_streams.mp4",
    ],
)
def test_torchcodec_is_right(written: Callable[[str], Path], name: str) -> None:
    need("torchcodec")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_video(written(name), "torchcodec") as video:
            assert len(video) == COUNT
            assert wrong_frames(video) == []


def wrong_or_none(video: Video) -> bool:
    try:
        return wrong_frames(video) != []
    except VideoError:
        return True


@pytest.mark.parametrize(
    ("decoder", "name", "says"),
    [
        ("torchcodec", "one_key.avi", "AVI with B-frames"),
        ("torchcodec", "h264.avi", "AVI with B-frames"),
        ("torchcodec", "stream.ts", "MPEG transport"),
        ("torchcodec", "mpeg2.mpg", "MPEG transport and program"),
        ("decord", "many_keys.avi", "AVI with B-frames and several key frames"),
        ("decord", "h264.avi", "AVI with B-frames and several key frames"),
        ("decord", "hevc.mp4", "open groups"),
        ("decord", "open_gop.mkv", "open groups"),
        ("decord", "mpeg4.mp4", "MPEG-4 Part 2"),
        ("decord", "stream.ts", "MPEG transport"),
    ],
)
def test_wrong_frames_are_warned_of_once(
    written: Callable[[str], Path], decoder: str, name: str, says: str
) -> None:
    need(decoder)
    path = written(name)
    expected = rf"{path}: decoder '{decoder}' .* {says}.*'auto' does"
    with pytest.warns(UserWarning, match=expected), open_video(path, decoder) as video:
        assert wrong_or_none(video)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_video(path, decoder):
            pass


def test_edit_lists_are_warned_of() -> None:
    need("decord")
    path = shared_file("numbered_trimmed_by_copy.mp4")
    with pytest.warns(UserWarning, match="edit lists"), open_video(path, "decord") as video:
        assert len(video) == 254  # of which 152 are shown


@pytest.mark.parametrize("name", ["gop12.mp4", "one_key.avi", "vp9.webm", "motion_jpeg.avi"])
def test_decord_is_not_warned_of_where_it_is_right(
    written: Callable[[str], Path], name: str
) -> None:
    need("decord")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_video(written(name), "decord") as video:
            assert len(video) == COUNT
            # at times it returns an earlier frame for the last of an AVI file
            assert [pair for pair in wrong_frames(video) if pair[0] != COUNT - 1] == []


@pytest.mark.parametrize("decoder", OTHERS)
@pytest.mark.parametrize("name", ["real_ucf_style.avi", "real_kinetics_style.mp4"])
def test_they_agree_on_real_videos(name: str, decoder: str) -> None:
    need(decoder)
    path = shared_file(name)
    warned = decoder == "torchcodec" and name.endswith(".avi")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if warned else "error")
        with open_video(path) as video, open_video(path, decoder) as other:
            assert len(video) == len(other)
            assert video.fps == pytest.approx(other.fps)
            if warned:
                return
            indices = range(0, len(video), 9)
            for short_side, tolerance in ((None, 3), (128, 6)):
                ours = video.frames(indices, short_side)
                theirs = other.frames(indices, short_side)
                assert ours.shape == theirs.shape
                assert (ours.float() - theirs.float()).abs().mean() < tolerance


@pytest.mark.parametrize("decoder", OTHERS)
def test_they_turn_frames_too(written: Callable[[str], Path], tmp_path: Path, decoder: str) -> None:
    need(decoder)
    turned = with_display_matrix(written("gop12.mp4"), tmp_path / "turned.mp4", 0, 1, -1, 0)
    with open_video(turned) as video, open_video(turned, decoder) as other:
        assert other.frames([0]).shape == video.frames([0]).shape
        assert (video.frames([0]).float() - other.frames([0]).float()).abs().mean() < 6


def test_unknown_decoder(written: Callable[[str], Path]) -> None:
    with (
        pytest.raises(
            ConfigError,
            match="'opencv'; there are: auto, pyav, torchcodec, decord, frames_db",
        ),
        open_video(written("gop12.mp4"), "opencv"),
    ):
        pass


@pytest.mark.parametrize("decoder", OTHERS)
def test_not_installed(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, decoder: str
) -> None:
    for module in (decoder, f"{decoder}.decoders"):
        monkeypatch.setitem(sys.modules, module, None)
    with (
        pytest.raises(ConfigError, match=f"pip install {decoder}"),
        open_video(written("gop12.mp4"), decoder),
    ):
        pass


def test_torchcodec_without_ffmpeg(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoders = pytest.importorskip("torchcodec.decoders")

    def unloadable(*_, **__):
        raise RuntimeError("Could not load libtorchcodec. Likely causes: …")

    monkeypatch.setattr(decoders, "VideoDecoder", unloadable)
    with (
        pytest.raises(ConfigError, match="apt-get install ffmpeg"),
        open_video(written("gop12.mp4"), "torchcodec"),
    ):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_torchcodec_without_a_gpu(written: Callable[[str], Path]) -> None:
    need("torchcodec")
    with (
        pytest.raises(ConfigError, match="torchcodec cannot decode on 'cuda'"),
        open_video(written("gop12.mp4"), "torchcodec", device="cuda"),
    ):
        pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_torchcodec_on_a_gpu(written: Callable[[str], Path]) -> None:
    need("torchcodec")
    with open_video(written("gop12.mp4"), "torchcodec", device="cuda") as video:
        assert video.frames([0], 32).is_cuda
        assert wrong_frames(video) == []


@pytest.mark.parametrize(
    ("decoder", "options", "says"),
    [
        ("decord", {"fast": True}, "fast is for decoder 'auto' or 'pyav', not 'decord'"),
        ("frames_db", {"fast": True}, "not 'frames_db'"),
        ("auto", {"device": "cuda"}, "device 'cuda' is for decoder 'torchcodec', not 'auto'"),
    ],
)
def test_options_of_other_decoders(
    written: Callable[[str], Path], decoder: str, options: dict, says: str
) -> None:
    with (
        pytest.raises(ConfigError, match=says),
        open_video(written("gop12.mp4"), decoder, **options),
    ):
        pass
