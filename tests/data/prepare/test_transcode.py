"""Prepared videos show what the originals do, and nothing half-made has a name."""

import csv
import json
import math
import os
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numbered_video import numbers, write_video

from vidpool.data.prepare import transcode as module
from vidpool.data.prepare.transcode import (
    Prepared,
    PrepareSettings,
    prepare,
    prepare_video,
    prepared_name,
)
from vidpool.errors import ConfigError, DataError, VideoError
from vidpool.video import Video, open_video

PLAIN = PrepareSettings()
SHARED = Path(__file__).parents[3].parent / "shared" / "videos"


def stamps(path):
    """When the frames of a file are shown, in seconds, as the container says."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return sorted(
            Fraction(packet.pts) * stream.time_base
            for packet in container.demux(stream)
            if packet.pts is not None
        )


def shown(path):
    with open_video(path) as video:
        return numbers(video.frames(range(len(video))))


UNEVEN = [0, 4, 8, 20, 21, 40, 44, 80, 90, 91, 92, 99]
KINDS = {
    "few_keys.avi": {"codec": "mpeg4", "gop": 250},
    "many_keys.avi": {"codec": "mpeg4"},
    "h264.avi": {},
    "gop250.mp4": {"gop": 250},
    "uneven.mp4": {"stamps": UNEVEN},
    "late.mkv": {"stamps": range(100, 220, 4)},
    "odd.mkv": {"codec": "ffv1", "size": (113, 65), "b_frames": 0},
}


@pytest.mark.parametrize("gop", [1, 12])
@pytest.mark.parametrize("name", KINDS)
def test_frames_keep_their_numbers_and_times(name, gop, tmp_path):
    options = KINDS[name]
    count = len(options.get("stamps", range(40)))
    original = write_video(tmp_path / name, count, **options)
    target = tmp_path / "new" / "made.mp4"
    made = prepare_video(original, target, PrepareSettings(gop=gop))
    assert made == Prepared(count, count, None)
    assert shown(target) == list(range(count))
    first, *_ = times = options.get("stamps", range(0, 4 * count, 4))
    assert stamps(target) == [Fraction(time - first, 100) for time in times]
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("path", sorted(SHARED.glob("numbered_*")), ids=lambda path: path.name)
def test_the_numbered_videos(path, tmp_path):
    target = tmp_path / "made.mp4"
    prepare_video(path, target, PLAIN)
    assert shown(target) == shown(path)
    with open_video(path) as original, open_video(target) as made:
        assert made.fps == pytest.approx(original.fps, rel=1e-3)
        close = original.frames([7, 90], 256).float() - made.frames([7, 90], 256).float()
        assert close.abs().mean() < 4


@pytest.mark.parametrize(("gop", "found"), [(1, 50), (12, 5)])
def test_files_are_small_upright_silent_and_full_of_keys(gop, found, tmp_path):
    original = write_video(tmp_path / "wide.mp4", 50, size=(300, 120))
    data = bytearray(original.read_bytes())
    matrix = data.index(b"tkhd") + 44  # a quarter turn clockwise
    for place, value in zip(range(0, 20, 4), (0, 1, 0, -1, 0), strict=True):
        fixed = (value * 2**16).to_bytes(4, "big", signed=True)
        data[matrix + place : matrix + place + 4] = fixed
    original.write_bytes(data)
    target = tmp_path / "made.mp4"
    prepare_video(original, target, PrepareSettings(short_side=64, gop=gop))
    with open_video(original) as before, open_video(target) as after:
        assert after.frames([30]).shape == (1, 3, 160, 64)
        difference = before.frames([30], 64).float() - after.frames([30]).float()
        assert difference.abs().mean() < 6
    with av.open(str(target)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        packets = [packet for packet in container.demux(video=0) if packet.size]
        keys = [packet.pts for packet in packets if packet.is_keyframe]
        assert len(packets) == 50
        assert len(keys) == found
    assert target.stat().st_mode & 0o777 == original.stat().st_mode & 0o777


def test_sound_is_left_out(tmp_path):
    path = tmp_path / "loud.mp4"
    with av.open(str(path), "w") as container:
        picture, sound = container.add_stream("libx264", rate=25), container.add_stream("aac")
        picture.width, picture.height = 64, 64
        frame = av.AudioFrame(format="fltp", layout="stereo", samples=1024)
        frame.sample_rate = sound.rate = 44100
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        container.mux(sound.encode(frame))
        for _ in range(5):
            black = av.VideoFrame.from_ndarray(torch.zeros(64, 64, 3).byte().numpy())
            container.mux(picture.encode(black))
        container.mux([*picture.encode(), *sound.encode()])
    prepare_video(path, tmp_path / "made.mp4", PLAIN)
    with av.open(str(tmp_path / "made.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_small_videos_keep_their_size(tmp_path):
    prepare_video(write_video(tmp_path / "a.mp4", 5), tmp_path / "made.mp4", PLAIN)
    with open_video(tmp_path / "made.mp4") as video:
        assert video.frames([0]).shape == (1, 3, 64, 112)


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (12.5, list(range(0, 40, 2))),
        (50, [number for number in range(40) for _ in range(2)]),
        (25, list(range(40))),
    ],
)
def test_another_frame_rate_repeats_or_leaves_out(fps, expected, tmp_path):
    for name in ("a.mp4", "b.avi"):
        original = write_video(tmp_path / name, 40, codec="mpeg4" if "avi" in name else "libx264")
        count = prepare_video(original, tmp_path / "made.mp4", PrepareSettings(fps=fps)).written
        assert count == len(expected)
        assert shown(tmp_path / "made.mp4") == expected
        assert stamps(tmp_path / "made.mp4") == [i / Fraction(fps) for i in range(count)]


def test_a_constant_rate_of_an_uneven_video(tmp_path):
    original = write_video(tmp_path / "a.mp4", len(UNEVEN), stamps=UNEVEN)
    prepare_video(original, tmp_path / "made.mp4", PrepareSettings(fps=10))
    # what is on the screen at 0, 10, 20, … hundredths; the last frame stays for nine
    expected = [
        max(i for i, at in enumerate(UNEVEN) if at <= moment) for moment in range(0, 108, 10)
    ]
    assert shown(tmp_path / "made.mp4") == expected


@given(st.floats(0.1, 200))
def test_any_rate_gives_a_frame(fps):
    class Still:
        stamps, fps = None, 25.0

        def __len__(self):
            return 1

    timing = module._Timing.of(Still(), fps)
    assert timing.shown[0][0] == 0
    assert len(timing.shown[0]) == max(1, math.ceil(Fraction(fps).limit_denominator(1001) / 25))


@pytest.fixture
def here(monkeypatch):
    """Work in this process, which starts at once."""

    def one_by_one(function, items, workers):  # noqa: ARG001
        for item in items:
            try:
                yield item, function(item)
            except Exception as error:
                yield item, error

    monkeypatch.setattr(module, "in_processes", one_by_one)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Nine good videos with odd names, in odd places, and other files."""
    root = tmp_path_factory.mktemp("tree") / "source"
    good = write_video(tmp_path_factory.mktemp("one") / "good.mp4", 5, size=(32, 32))
    names = [
        "plain.mp4",
        "UPPER.MOV",
        "-leading dash.mkv",
        'Class with space/it\'s "quoted".mp4',
        "größe/动作.avi",
        "deep/er/a.b.c.mp4",
        os.fsdecode(b"not_utf8_\xff.mp4"),
    ]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(good, root / name)
    (root / "linked").symlink_to(root / "deep")  # the same folder once more
    (root / "deep" / "up").symlink_to(root)  # a circle
    (root / "link.mp4").symlink_to(good)
    (root / "notes.txt").write_text("no video")
    (root / "._hidden.mp4").write_text("no video")
    return root


def made(target):
    """Names of all prepared videos below a folder."""
    return {path.relative_to(target).as_posix() for path in target.rglob("*.mp4")}


@pytest.mark.usefixtures("here")
def test_a_tree_becomes_the_same_tree(tree, tmp_path):
    target = tmp_path / "new" / "target"
    report = prepare(tree, target)
    assert (report.made, report.kept, report.failures, report.log) == (8, 0, [], None)
    found = made(target)
    assert {Path(name).name for name in found} == {
        "plain.mp4",
        "UPPER.mp4",
        "-leading dash.mp4",
        'it\'s "quoted".mp4',
        "动作.mp4",
        "a.b.c.mp4",
        os.fsdecode(b"not_utf8_\xff.mp4"),
        "link.mp4",
    }
    assert len(found) == 8
    assert not any(path.is_symlink() for path in target.rglob("*"))
    assert json.loads((target / "prepare.json").read_text())["short_side"] == 256
    assert shown(target / "größe" / "动作.mp4") == list(range(5))


@pytest.mark.usefixtures("here")
def test_what_is_done_is_kept(tree, tmp_path):
    target = tmp_path / "target"
    prepare(tree, target)
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*.mp4")}
    missing = target / "plain.mp4"
    missing.unlink()
    report = prepare(tree, target)
    assert (report.made, report.kept) == (1, 7)
    for path, time in before.items():
        assert (path.stat().st_mtime_ns == time) == (path != missing)


@pytest.mark.usefixtures("here")
def test_an_interrupted_run_leaves_nothing_half_made(tree, tmp_path, monkeypatch):
    target = tmp_path / "target"
    stream = Video.stream

    def interrupted(video, short_side):
        for number, frame in enumerate(stream(video, short_side)):
            if number == 3:
                raise KeyboardInterrupt
            yield frame

    with monkeypatch.context() as patched:
        patched.setattr(Video, "stream", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(tree, target)
    assert made(target) == set()
    assert not [path for path in target.rglob("*") if path.name.startswith(".unfinished")]
    report = prepare(tree, target)
    assert (report.made, report.kept) == (8, 0)


@pytest.mark.usefixtures("here")
def test_bad_videos_are_logged_and_the_rest_is_done(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "a").mkdir(parents=True)
    good = write_video(source / "a" / "good.mp4", 5)
    (source / "a" / "empty.mp4").touch()
    (source / "text, with comma.avi").write_text("not a video\n" * 9)
    (source / "dangling.mp4").symlink_to(source / "nowhere.mp4")
    shutil.copy(good, source / "twice.mp4")
    shutil.copy(good, source / "twice.mkv")
    report = prepare(source, target)
    assert made(target) == {"a/good.mp4"}
    assert report.made == 1
    assert report.log == target / "prepare_failures.csv"
    with report.log.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [["path", "reason"], *map(list, report.failures)]
    reasons = dict(report.failures)
    assert reasons["a/empty.mp4"] == "is empty (0 bytes)"
    assert "is not a video" in reasons["text, with comma.avi"]
    assert reasons["dangling.mp4"] == "no such file"
    assert "would become twice.mp4" in reasons["twice.mkv"]
    assert len(reasons) == 5
    (source / "a" / "empty.mp4").unlink()
    shutil.copy(good, source / "a" / "empty.mp4")
    again = prepare(source, target)
    assert (again.made, again.kept, len(again.failures)) == (1, 1, 4)


def index_first(path, target):
    """Copy an MP4 file such that it can be read when its end is lost."""
    with (
        av.open(str(path)) as source,
        av.open(str(target), "w", options={"movflags": "faststart"}) as container,
    ):
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return target


@pytest.mark.usefixtures("here")
def test_videos_that_were_cut_short_are_told_in_every_run(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    write_video(source / "whole.mp4", 60)
    write_video(source / "whole.avi", 60, codec="mpeg4")
    (source / "whole.avi").rename(source / "other.avi")
    contents = {
        "a.mp4": index_first(write_video(tmp_path / "late.mp4", 60), tmp_path / "a.mp4"),
        "b.avi": write_video(tmp_path / "b.avi", 60, codec="mpeg4"),
    }
    for name, path in contents.items():
        content = path.read_bytes()
        (source / name).write_bytes(content[: len(content) * 2 // 3])
    report = prepare(source, target)
    assert (report.made, report.failures) == (4, [])
    assert made(target) == {"whole.mp4", "other.mp4", "a.mp4", "b.mp4"}
    for name, reason in report.cut_short:
        there = len(shown(target / prepared_name(name)))
        assert 10 < there < 60
        assert reason == f"cut short: {there} of 60 frames are there"
    assert [name for name, _ in report.cut_short] == ["a.mp4", "b.avi"]
    again = prepare(source, target)
    assert (again.made, again.kept, again.cut_short) == (0, 4, report.cut_short)
    with again.log.open(newline="") as file:
        assert list(csv.reader(file)) == [["path", "reason"], *map(list, report.cut_short)]
    for name, path in contents.items():
        shutil.copy(path, source / name)
        (target / prepared_name(name)).unlink()
    last = prepare(source, target)
    assert (last.made, last.kept, last.cut_short, last.log) == (2, 2, [], None)
    assert not again.log.exists()


@pytest.mark.usefixtures("here")
def test_shards_share_the_work(tree, tmp_path):
    target = tmp_path / "target"
    counts = [prepare(tree, target, shard=(part, 3)).made for part in range(3)]
    assert sum(counts) == 8
    assert max(counts) == 3
    assert prepare(tree, target).kept == 8


def test_a_pixel_is_too_small(tmp_path):
    path = write_video(tmp_path / "a.mov", 3, codec="png", size=(1, 9), pix_fmt="rgb24", b_frames=0)
    with pytest.raises(VideoError, match="1 x 9 pixels"):
        prepare_video(path, tmp_path / "made.mp4", PLAIN)
    assert made(tmp_path) == set()


@pytest.mark.usefixtures("here")
def test_targets_that_hold_something_else_are_refused(tree, tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mine.txt").touch()
    with pytest.raises(DataError, match="something else"):
        prepare(tree, tmp_path / "target")
    prepare(tree, tmp_path / "other")
    with pytest.raises(DataError, match=r"other settings, .*256.*not .*128"):
        prepare(tree, tmp_path / "other", PrepareSettings(short_side=128))
    file = tmp_path / "target" / "mine.txt"
    with pytest.raises(DataError, match=r"mine.txt is a file: choose"):
        prepare(tree, file)
    with pytest.raises(DataError, match=r"mine.txt/x: .*Not a directory.*: choose"):
        prepare(tree, file / "x")
    for inside in (tree, tree / "deep" / "new"):
        with pytest.raises(ConfigError, match="outside"):
            prepare(tree, inside)
    with pytest.raises(DataError, match="no such folder"):
        prepare(tmp_path / "none", tmp_path / "third")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no video"):
        prepare(tmp_path / "empty", tmp_path / "third")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"settings": {"short_side": 1}}, "short side .* got 1"),
        ({"settings": {"fps": 0}}, "fps .* got 0"),
        ({"settings": {"fps": float("nan")}}, "fps .* got nan"),
        ({"settings": {"gop": 0}}, "gop .* got 0"),
        ({"num_workers": 0}, "num_workers must be at least 1, got 0"),
        ({"shard": (2, 2)}, "0/2 to 1/2, got 2/2"),
    ],
)
def test_settings_that_cannot_work_are_named(tree, tmp_path, options, named):
    def attempt(settings=None, **more):
        prepare(tree, tmp_path / "target", PrepareSettings(**settings or {}), **more)

    with pytest.raises(ConfigError, match=named):
        attempt(**options)


def test_prepared_names():
    assert prepared_name("a/v_x.y.AVI") == "a/v_x.y.mp4"


def test_the_slurm_script_prepares_its_part(tmp_path):
    stub = tmp_path / "vidpool"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    slurm = {"ARRAY_TASK_ID": "6", "ARRAY_TASK_MIN": "4", "ARRAY_TASK_COUNT": "8"}
    environment = {f"SLURM_{name}": value for name, value in slurm.items()}
    environment |= {"SLURM_CPUS_PER_TASK": "16", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = Path(__file__).parents[3] / "tools" / "prepare.sbatch"
    arguments = ["with space", "target", "--fps", "25"]
    run = subprocess.run(
        ["bash", script, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines() == [
        "data",
        "prepare",
        "--num_workers",
        "16",
        "--shard",
        "2/8",
        *arguments,
    ]
    run = subprocess.run(
        ["bash", script, *arguments], env={"PATH": os.environ["PATH"]}, check=False
    )
    assert run.returncode == 2
