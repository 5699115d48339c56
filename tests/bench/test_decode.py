"""The measurement of `vidpool bench decode`, on short videos, regardless of the times."""

import json
import sys

import pytest

from vidpool.bench import decode
from vidpool.bench.decode import VIDEO_KINDS, clip_at, generate, measure_decoding, memory_growth
from vidpool.bench.numbered_video import numbers, scenes, trim, write_video
from vidpool.errors import VideoError
from vidpool.video import open_video


@pytest.fixture
def short(monkeypatch):
    """Generated videos of 90 small frames; 10 are cut off the trimmed one."""
    small = {kind: ((90, 112, 64), write) for kind, (_, write) in VIDEO_KINDS.items()}
    monkeypatch.setattr(decode, "VIDEO_KINDS", small)
    monkeypatch.setattr(decode, "TRIMMED", 10)
    monkeypatch.setattr(decode, "CHECKED", 3)


def test_clip_at():
    assert clip_at(0, 250)[:2] == [0, 4]
    assert clip_at(0.999999, 250)[-1] == 249
    assert clip_at(0.5, 61) == list(range(0, 61, 4))
    assert clip_at(0.5, 9) == [0, 4] + [8] * 14


@pytest.mark.parametrize("kind", VIDEO_KINDS)
@pytest.mark.usefixtures("short")
def test_generated_videos_carry_their_numbers(tmp_path, kind):
    path = generate(kind, tmp_path)
    first = 10 if kind == "trimmed.mp4" else 0
    with open_video(path) as video:
        length = len(video)
        assert length == 90 - first
        assert numbers(video.frames(range(length))) == list(range(first, 90))
    assert [file.name for file in tmp_path.iterdir()] == [kind]
    before = path.stat().st_mtime_ns
    assert generate(kind, tmp_path).stat().st_mtime_ns == before


def test_trim_needs_no_key_frame_where_it_cuts(tmp_path):
    whole = write_video(tmp_path / "a.mp4", scenes(30, 64, 64), "libx264", gop=30)
    with open_video(trim(whole, tmp_path / "b.mp4", 17)) as video:
        assert numbers(video.frames(range(len(video)))) == list(range(17, 30))


@pytest.mark.usefixtures("short")
def test_measure(tmp_path):
    pytest.importorskip("decord")
    avi = measure_decoding(generate("many_keys.avi", tmp_path), rounds=2)
    mp4 = measure_decoding(generate("gop12.mp4", tmp_path), rounds=2)
    for result in (avi, mp4):
        assert result.wrong["auto"] == result.wrong["auto fast"] == 0
        assert {"auto", "auto fast", "decord"} <= result.times.keys()
        assert len(result.times["auto"].rounds) == 2
        assert result.ratio("decord") == 1
        assert json.loads(json.dumps(result.as_dict()))["wrong_frames"]["auto"] == 0
    assert avi.wrong["decord"] > 0.3
    assert mp4.wrong["decord"] == 0
    # MPEG-4 Part 2 has no loop filter
    assert avi.fast_psnr is None
    assert 25 < mp4.fast_psnr < 90


@pytest.mark.usefixtures("short")
def test_decoders_that_are_missing(tmp_path, monkeypatch):
    for module in ("decord", "torchcodec", "torchcodec.decoders"):
        monkeypatch.setitem(sys.modules, module, None)
    result = measure_decoding(generate("gop12.mp4", tmp_path), rounds=1)
    assert result.times.keys() == {"auto", "auto fast"}
    assert result.missing.keys() == {"decord", "torchcodec"}
    assert result.ratio("auto") is None


def test_a_file_that_is_no_video(tmp_path):
    (tmp_path / "a.mp4").write_text("no video\n" * 9)
    with pytest.raises(VideoError, match="is not a video"):
        measure_decoding(tmp_path / "a.mp4")


@pytest.mark.usefixtures("short")
def test_memory_growth(tmp_path):
    paths = [generate("gop12.mp4", tmp_path), generate("many_keys.avi", tmp_path)]
    seen = list(memory_growth(paths, 5))
    assert [done for done, _ in seen] == [1, 2, 3, 4, 5]
    if sys.platform == "linux":
        assert all(held > 2**20 for _, held in seen)


@pytest.mark.slow
def test_memory_does_not_grow(tmp_path):
    paths = [generate(kind, tmp_path) for kind in ("one_key.avi", "gop12.mp4", "vp9.webm")]
    held = [bytes_held for _, bytes_held in memory_growth(paths, 1000)]
    assert held[-1] - held[200] < 20 * 2**20
