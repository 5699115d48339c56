"""The demo data set: its files, its lists, and that motion alone tells its classes apart."""

import json
import math
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from vidpool.data.datasets import demo
from vidpool.data.datasets.demo import (
    CLASSES,
    DemoClip,
    DemoSettings,
    draw_clip,
    make_demo,
    write_video,
)
from vidpool.data.datasets.ucf101 import UCF101DataModule
from vidpool.errors import ConfigError, DataError
from vidpool.video import open_video

pytest.importorskip("skimage")
PLACEHOLDER = b"not drawn"


def names(clips_per_group=1):
    """The files of a data set, as they must be called."""
    for name in CLASSES:
        for group in range(1, 19):
            for number in range(1, clips_per_group + 1):
                suffix = "avi" if number % 2 else "mp4"
                yield f"{name}/v_{name}_g{group:02d}_c{number:02d}.{suffix}"


def placeholders(root, clips_per_group=1, seed=0):
    """A data set whose files are all there, so that nothing is left to be drawn."""
    for name in names(clips_per_group):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PLACEHOLDER)
    (root / "demo.json").write_text(json.dumps(asdict(DemoSettings(clips_per_group, seed))))
    return root


def clip_of(path):
    """The clip that a file's path names."""
    name, _, file = path.partition("/")
    group, number = (int(field[1:]) for field in Path(file).stem.split("_")[-2:])
    return DemoClip(CLASSES.index(name), group, number)


def test_paths_are_those_of_ucf101():
    assert DemoClip(3, 7, 12).path == "MoveDown/v_MoveDown_g07_c12.mp4"
    assert DemoClip(2, 18, 1).path == "Grow/v_Grow_g18_c01.avi"
    for name in names(3):
        assert clip_of(name).path == name


def test_eight_classes_in_alphabetical_order():
    assert len(CLASSES) == 8
    assert list(CLASSES) == sorted(CLASSES)


@pytest.mark.parametrize("split", [1, 2, 3])
def test_lists(tmp_path, split):
    root = make_demo(placeholders(tmp_path, 2), clips_per_group=2)
    data = UCF101DataModule(str(root), split=split)
    assert tuple(data.class_names) == CLASSES
    listed = {}
    for part in ("train", "test"):
        videos = data.videos(part)
        for video in videos:
            assert CLASSES[video.label] == Path(video.path).parent.name
        listed[part] = [str(Path(video.path).relative_to(root)) for video in videos]
    assert sorted(listed["train"] + listed["test"]) == sorted(names(2))
    assert len(listed["test"]) == 8 * 5 * 2
    groups = {part: {clip_of(path).group for path in paths} for part, paths in listed.items()}
    assert (
        groups["test"] == {1: {1, 2, 3, 4, 5}, 2: {6, 7, 8, 9, 10}, 3: {11, 12, 13, 14, 15}}[split]
    )
    assert groups["train"] == set(range(1, 19)) - groups["test"]
    for part, paths in listed.items():  # every class of every group, equally often
        assert len(paths) == 8 * 2 * len(groups[part])


def test_each_group_has_a_photograph_of_its_own():
    assert len(set(demo.PHOTOGRAPHS)) == len(demo.PHOTOGRAPHS) == 18
    pictures = [demo._photograph(group) for group in range(1, 19)]
    for number, picture in enumerate(pictures):
        assert picture.shape[0] == 3
        assert 0 <= picture.min() < picture.max() <= 1
        for other in pictures[:number]:
            assert picture.shape != other.shape or not torch.allclose(picture, other, atol=0.1)


def test_groups_share_no_object():
    objects = torch.stack(
        [
            demo._object_texture(group, number, seed=0)[:, ::8, ::8].flatten()
            for group in range(1, 19)
            for number in range(demo.OBJECTS_PER_GROUP)
        ]
    )
    difference = torch.cdist(objects, objects, p=float("inf")).fill_diagonal_(1)
    assert difference.min() > 0.1  # of colours or outlines, from 0 to 1


@pytest.mark.parametrize("number", [1, 2])
def test_what_is_drawn_is_what_is_decoded(tmp_path, number):
    clip = DemoClip(3, 1, number)
    frames = draw_clip(clip)
    assert frames.dtype == torch.uint8
    assert frames.shape[1:] == (240, 320, 3)
    path = tmp_path / Path(clip.path).name
    write_video(path, frames)
    assert list(tmp_path.iterdir()) == [path]
    with av.open(str(path)) as container:
        (stream,) = container.streams
        assert stream.codec_context.codec.canonical_name == ("mpeg4" if number == 1 else "h264")
        assert container.format.name == ("avi" if number == 1 else "mov,mp4,m4a,3gp,3g2,mj2")
        packets = [packet for packet in container.demux(stream) if packet.size]
        # B-frames: packets are not in the order of presentation (as in UCF-101's files)
        pictures = {frame.pict_type for packet in packets for frame in packet.decode()}
        pictures |= {frame.pict_type for frame in stream.decode(None)}
        assert av.video.frame.PictureType.B in pictures
    with open_video(path) as video:
        assert len(video) == len(frames)
        assert video.fps == 25
        decoded = video.frames(range(len(video)))
    error = (decoded.permute(0, 2, 3, 1).float() - frames.float()).abs().mean((1, 2, 3))
    assert error.max() < 8
    # a frame is more like itself than like those nine frames away
    other = (decoded[9:].permute(0, 2, 3, 1).float() - frames[:-9].float()).abs().mean((1, 2, 3))
    assert (other > error[9:]).all()


def test_lengths_are_from_2_to_4_seconds():
    lengths = {len(motion("Grow", seed)[0]) for seed in range(1000)}
    assert lengths == set(range(50, 101))


def test_the_seed_decides():
    clip = DemoClip(6, 13, 2)
    frames = draw_clip(clip, seed=3)
    assert torch.equal(draw_clip(clip, seed=3), frames)
    others = [
        draw_clip(clip, seed=4),
        draw_clip(DemoClip(6, 13, 3), seed=3),
        draw_clip(DemoClip(7, 13, 2), seed=3),
        draw_clip(DemoClip(6, 14, 2), seed=3),
    ]
    for other in others:
        assert not torch.equal(other[0], frames[0])


def test_encoding_is_deterministic(tmp_path):
    frames = draw_clip(DemoClip(0, 2, 1))
    for suffix in (".avi", ".mp4"):
        write_video(tmp_path / f"a{suffix}", frames)
        write_video(tmp_path / f"b{suffix}", frames)
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def motion(name, seed):
    """Centre x and y, diameter and angle, an array each."""
    return [values.double().numpy() for values in demo._motion(name, np.random.default_rng(seed))]


@pytest.fixture(scope="module")
def moments():
    """Position, size and angle of 1,000 objects of each class at a random moment of the clip."""
    moments = defaultdict(list)
    for label, name in enumerate(CLASSES):
        for number in range(1000):
            x, y, size, angle = motion(name, [label, number])
            assert len(x) == len(y) == len(size) == len(angle)
            now = np.random.default_rng([label, number, 1]).integers(len(x))
            moments[name].append((x[now], y[now], size[now], angle[now] % (2 * math.pi)))
    return {name: np.array(values) for name, values in moments.items()}


@pytest.mark.parametrize("quantity", ["x", "y", "size", "angle"])
def test_a_single_moment_says_nothing_about_the_class(moments, quantity):
    column = ("x", "y", "size", "angle").index(quantity)
    for name in CLASSES:
        own = moments[name][:, column]
        others = np.concatenate([moments[other][:, column] for other in CLASSES if other != name])
        # means: the difference's standard error, five times
        error = math.sqrt(own.var() / len(own) + others.var() / len(others))
        assert abs(own.mean() - others.mean()) < 5 * error
        # distributions: Kolmogorov and Smirnov's distance, exceeded by chance once in 100,000
        points = np.sort(np.concatenate([own, others]))
        own_share = np.searchsorted(np.sort(own), points, side="right") / len(own)
        other_share = np.searchsorted(np.sort(others), points, side="right") / len(others)
        limit = math.sqrt(-0.5 * math.log(1e-5 / 2) * (1 / len(own) + 1 / len(others)))
        assert np.abs(own_share - other_share).max() < limit


def test_a_single_moment_shows_objects_of_all_kinds(moments):
    ranges = ((0, 320), (0, 240), (demo.MIN_SIZE, demo.MAX_SIZE), (0, 2 * math.pi))
    everything = np.concatenate(list(moments.values()))
    for values, (low, high) in zip(everything.T, ranges, strict=True):
        assert low * (1 - 1e-6) <= values.min()
        assert values.max() <= high * (1 + 1e-6)
        assert values.max() - values.min() > 0.4 * (high - low)


def test_every_class_changes_one_quantity_one_way():
    changes = {
        "MoveLeft": (0, -1),
        "MoveRight": (0, 1),
        "MoveUp": (1, -1),
        "MoveDown": (1, 1),
        "Shrink": (2, -1),
        "Grow": (2, 1),
    }
    assert set(changes) == {name for name in CLASSES if not name.startswith("Circle")}
    for name, (changing, sign) in changes.items():
        for seed in range(20):
            for column, values in enumerate(motion(name, seed)):
                steps = np.diff(values)
                assert (sign * steps > 0).all() if column == changing else (steps == 0).all()


def changed(frames):
    """(T - 1, H, W): how much pixels change from one frame to the next: where the object is."""
    frames = frames.float().mean(-1)
    return (frames[1:] - frames[:-1]).abs()


def slope(values):
    """The correlation of values with time."""
    return float(np.corrcoef(np.arange(len(values)), np.asarray(values))[0, 1])


@pytest.mark.parametrize("group", [1, 12])
@pytest.mark.parametrize(
    ("name", "axis", "sign"),
    [("MoveLeft", 2, -1), ("MoveRight", 2, 1), ("MoveUp", 1, -1), ("MoveDown", 1, 1)],
)
def test_objects_move_as_their_class_says(name, axis, sign, group):
    change = changed(draw_clip(DemoClip(CLASSES.index(name), group, 1)))
    centre = {}
    for side in (1, 2):
        weights = change.sum(dim=3 - side)
        places = torch.arange(weights.shape[1], dtype=torch.float32)
        centre[side] = (weights * places).sum(1) / weights.sum(1)
    assert sign * slope(centre[axis]) > 0.9
    assert sign * float(centre[axis][-1] - centre[axis][0]) > 60
    assert float(centre[3 - axis].max() - centre[3 - axis].min()) < 40


@pytest.mark.parametrize("group", [1, 12])
@pytest.mark.parametrize(("name", "sign"), [("Grow", 1), ("Shrink", -1)])
def test_objects_grow_and_shrink(name, sign, group):
    change = changed(draw_clip(DemoClip(CLASSES.index(name), group, 1))) > 2
    rows, columns = (change.any(dim=side).sum(1).float() for side in (2, 1))
    for extent in (rows, columns):
        assert sign * slope(extent) > 0.75
        assert 1.3 < float(extent.max() / extent.min()) < 3.5


@pytest.mark.parametrize(("name", "sign"), [("CircleClockwise", 1), ("CircleAnticlockwise", -1)])
def test_circles_are_round_and_turn_their_way(name, sign):
    for seed in range(20):
        x, y, size, angle = motion(name, seed)
        assert np.ptp(size) == np.ptp(angle) == 0
        dx, dy = np.diff(x), np.diff(y)
        speed = np.hypot(dx, dy)
        np.testing.assert_allclose(speed, speed[0], rtol=1e-3)
        # clockwise on the screen, where y points down
        turns = np.degrees(np.arcsin((dx[:-1] * dy[1:] - dy[:-1] * dx[1:]) / speed[0] ** 2))
        assert (sign * turns * 25 > 89).all()
        assert (sign * turns * 25 < 151).all()  # degrees a second
        np.testing.assert_allclose(speed[0] / np.radians(abs(turns[0])), demo.RADIUS, rtol=0.02)


@pytest.mark.parametrize("group", [1, 12])
@pytest.mark.parametrize(("name", "sign"), [("CircleClockwise", 1), ("CircleAnticlockwise", -1)])
def test_objects_circle_as_seen_on_the_screen(name, sign, group):
    change = changed(draw_clip(DemoClip(CLASSES.index(name), group, 1)))
    x, y = (
        (change.sum(dim=side) * torch.arange(change.shape[3 - side])).sum(1) / change.sum((1, 2))
        for side in (1, 2)
    )
    dx, dy = x[8:] - x[:-8], y[8:] - y[:-8]
    turns = sign * (dx[:-8] * dy[8:] - dy[:-8] * dx[8:])
    assert (turns > 0).float().mean() > 0.9


def test_missing_files_are_drawn_and_the_others_left_alone(tmp_path):
    root = placeholders(tmp_path / "set", 2, seed=5)
    missing = [
        "Grow/v_Grow_g01_c01.avi",
        "MoveUp/v_MoveUp_g09_c02.mp4",
        "Shrink/v_Shrink_g18_c01.avi",
    ]
    for path in missing:
        (root / path).unlink()
    (root / "Grow" / ".v_Grow_g01_c01.avi.part.avi").write_bytes(b"from a run that was stopped")
    times = {path: path.stat().st_mtime_ns for path in root.glob("*/v_*")}
    assert len(times) == 288 - 3

    assert make_demo(root, clips_per_group=2, seed=5, num_workers=1) == root
    for path, time in times.items():
        assert path.stat().st_mtime_ns == time
        assert path.read_bytes() == PLACEHOLDER
    for path in missing:  # as this process draws them
        write_video(tmp_path / Path(path).name, draw_clip(clip_of(path), seed=5))
        assert (root / path).read_bytes() == (tmp_path / Path(path).name).read_bytes()
    assert {str(path.relative_to(root)) for path in root.glob("*/*")} == {
        *names(2),
        "ucfTrainTestlist/classInd.txt",
        *(
            f"ucfTrainTestlist/{kind}list0{split}.txt"
            for kind in ("train", "test")
            for split in (1, 2, 3)
        ),
    }


@pytest.mark.slow
def test_a_whole_set_from_nothing(tmp_path):
    root = make_demo(tmp_path / "deep" / "set", clips_per_group=1, seed=2, num_workers=3)
    for split in (1, 2, 3):
        data = UCF101DataModule(str(root), split=split)
        assert len(data.videos("train")) + len(data.videos("test")) == 144
    for name in list(names())[::12]:
        with open_video(root / name) as video:
            assert 50 <= len(video) <= 100
            assert video.fps == 25
            assert video.frames([0]).shape == (1, 3, 240, 320)
        write_video(tmp_path / "here.avi", draw_clip(clip_of(name), seed=2))
        assert (root / name).read_bytes() == (tmp_path / "here.avi").read_bytes()

    files = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in root.glob("*/*.avi")}
    assert len(files) == 144
    gone = list(files)[7::50]
    for path in gone:
        path.unlink()
    make_demo(root, clips_per_group=1, seed=2, num_workers=1)
    for path, (time, content) in files.items():
        assert path.read_bytes() == content
        assert (path.stat().st_mtime_ns == time) == (path not in gone)


@pytest.mark.parametrize("other", [{"seed": 1}, {"clips_per_group": 3}])
def test_a_set_of_other_settings_is_left_alone(tmp_path, other):
    placeholders(tmp_path, 2)
    with pytest.raises(DataError, match=f"^{tmp_path} holds a demo data set of other settings"):
        make_demo(tmp_path, **{"clips_per_group": 2, **other})
    assert not (tmp_path / "ucfTrainTestlist").exists()


def test_a_set_of_an_older_version_is_left_alone(tmp_path):
    placeholders(tmp_path)
    settings = {**asdict(DemoSettings(1)), "version": DemoSettings(1).version - 1}
    (tmp_path / "demo.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match="other settings"):
        make_demo(tmp_path, clips_per_group=1)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "photographs").mkdir()
    with pytest.raises(DataError, match=f"^{tmp_path} exists and is no demo data set"):
        make_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photographs"]
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=f"^{tmp_path / 'file'} exists and is no demo data set"):
        make_demo(tmp_path / "file")


@pytest.mark.parametrize("text", ["", "{", '{"seed": 0}', "[]"])
def test_damaged_settings(tmp_path, text):
    (tmp_path / "demo.json").write_text(text)
    with pytest.raises(DataError, match=f"^{tmp_path}"):
        make_demo(tmp_path)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"clips_per_group": 0}, "clips_per_group .* 0$"),
        ({"clips_per_group": -1}, "clips_per_group .* -1$"),
        ({"clips_per_group": 100}, "clips_per_group .* 100$"),
        ({"num_workers": 0}, "num_workers .* 0$"),
        ({"num_workers": -2}, "num_workers .* -2$"),
    ],
)
def test_values_that_cannot_work_are_named(tmp_path, values, named):
    with pytest.raises(ConfigError, match=named):
        make_demo(tmp_path / "set", **values)
    assert not (tmp_path / "set").exists()


def test_scikit_image_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    demo._photograph.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install scikit-image"):
        draw_clip(DemoClip(0, 1, 1))
