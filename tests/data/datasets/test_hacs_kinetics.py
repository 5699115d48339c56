"""HACS and Kinetics-700 in all their layouts."""

import json
import math

import pytest
import torch
from numbered_video import numbers
from numbered_video import write_video as write_numbered
from trees import (
    HACS_CLASSES,
    HACS_FORMS,
    HACS_HEADER,
    KINETICS_CLASSES,
    KINETICS_HEADER,
    Videos,
    below,
    make_hacs,
    make_kinetics,
    write_csv,
    write_frames_db,
)

from vidpool.data.datasets.hacs_kinetics import HACSDataModule, Kinetics700DataModule
from vidpool.data.datasets.layouts import walk_videos
from vidpool.data.transforms.augmentation import Augmentation
from vidpool.errors import DataError

HACS_SORTED = sorted(HACS_CLASSES)
HACS_OPTIONS = {
    "frames": 4,
    "stride": 2,
    "crop": 32,
    "short_side": 36,
    "num_workers": 0,
    "test_crops": 1,
}
HACS_ID = "-abc_def-0Z"
KINETICS_SORTED = sorted(KINETICS_CLASSES)
KINETICS_OPTIONS = {"frames": 4, "stride": 2, "crop": 32, "short_side": 36, "num_workers": 0}
KINETICS_IDS = ("-abc_def-0Z", "__345678901", "v_345678901")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return Videos(tmp_path_factory.mktemp("made"))


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize("underscores", [True, False])
@pytest.mark.parametrize("layout", HACS_FORMS)
def test_every_layout_of_hacs(videos, tmp_path, layout, underscores):
    root = tmp_path / "videos"
    annotations = make_hacs(root, videos, layout, underscores)
    data = HACSDataModule(str(root), str(annotations), **HACS_OPTIONS)
    assert data.class_names == HACS_SORTED
    given = HACSDataModule(str(root), str(annotations), layout=layout, **HACS_OPTIONS)
    for split in ("train", "val", "test"):
        found = list(data.videos(split))
        assert len(found) == 12  # two videos of two clips of each class; negatives are left out
        assert list(given.videos(split)) == found
        for video in found:
            label = HACS_SORTED[video.label]
            assert (label if not underscores else label.replace(" ", "_")) in video.path
            spans = {(0.5, 1.5), (2.0, 3.0)} if layout == "untrimmed" else {(None, None)}
            assert (video.start, video.end) in spans
    everything = {v.path for s in ("train", "val", "test") for v in data.videos(s)}
    on_disk = {str(root / e.folder / e.name) for e in walk_videos(root)}
    assert everything == on_disk


def test_the_authors_order_of_labels(videos, tmp_path):
    annotations = make_hacs(tmp_path / "v", videos)
    data = HACSDataModule(
        str(tmp_path / "v"), str(annotations), label_order="first_appearance", **HACS_OPTIONS
    )
    assert data.class_names == list(HACS_CLASSES) != HACS_SORTED
    for video in data.videos("train"):
        assert HACS_CLASSES[video.label].replace(" ", "_") in video.path
    assert data.describe()["class_names"] == list(HACS_CLASSES)


def test_clips_of_a_whole_video_are_read_by_their_times(tmp_path):
    (tmp_path / "v").mkdir()
    write_numbered(tmp_path / "v" / f"v_{HACS_ID}.mp4", 100, size=(64, 64))
    rows = [
        ("BMX", HACS_ID, "training", "1.0", "2.0", 1),
        ("BMX", HACS_ID, "validation", "2.4", "2.8", 1),
    ]
    annotations = write_csv(tmp_path / "a.csv", HACS_HEADER, rows)
    whole = Augmentation(scale=(1, 1), ratio=(1, 1), flip=0)  # of the square picture
    options = HACS_OPTIONS | {"crop": 64, "short_side": 64, "augment": whole}
    data = HACSDataModule(str(tmp_path / "v"), str(annotations), **options)
    starts = set()
    for epoch in range(40):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        (batch,) = loader
        first, *others = numbers(batch["clip"][0].transpose(0, 1))
        assert others == [first + 2, first + 4, first + 6]
        starts.add(first)
    # frames 25 to 49 are on the screen, of which a clip takes seven
    assert min(starts) in (25, 26)
    assert max(starts) in (42, 43)
    (batch,) = data.val_dataloader()
    # frames 60 to 69 are on the screen; the central clip of seven frames begins one later
    assert numbers(batch["clip"][0].transpose(0, 1)) == [61, 63, 65, 67]


def test_segments(tmp_path):
    touch(tmp_path / "v" / f"v_{HACS_ID}.mp4")
    entry = {"annotations": [{"label": "BMX", "segment": [1.5, 9]}], "subset": "training"}
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"database": {HACS_ID: entry}}))
    (video,) = HACSDataModule(str(tmp_path / "v"), str(path), **HACS_OPTIONS).videos("train")
    assert (video.start, video.end, video.label) == (1.5, 9, 0)


def test_whole_seconds_collide(tmp_path):
    rows = [("BMX", HACS_ID, "training", start, start + 2, 1) for start in (15.0, 15.5, 40.0)]
    annotations = write_csv(tmp_path / "a.csv", HACS_HEADER, rows)
    for times in ("000015_000017", "000040_000042"):
        touch(tmp_path / "v" / "BMX" / f"{HACS_ID}_{times}.mkv")
    data = HACSDataModule(str(tmp_path / "v"), str(annotations), **HACS_OPTIONS)
    with pytest.warns(UserWarning, match="1 clips share their file with another"):
        found = below(tmp_path / "v", data.videos("train"))
    assert found == [(f"BMX/{HACS_ID}_{t}.mkv", 0) for t in ("000015_000017", "000040_000042")]


def test_files_of_one_name_are_told_apart_by_their_class_folders(tmp_path):
    """Names in whole seconds are the same for clips that begin half a second apart."""
    rows = [
        ("Archery", HACS_ID, "training", 15.0, 17.0, 1),
        ("Playing drums", HACS_ID, "training", 15.5, 17.5, 1),
    ]
    annotations = write_csv(tmp_path / "a.csv", HACS_HEADER, rows)
    name = f"{HACS_ID}_000015_000017.mp4"
    for folder in ("Archery", "playing_drums"):
        touch(tmp_path / "v" / "all" / folder / name)
    data = HACSDataModule(str(tmp_path / "v"), str(annotations), **HACS_OPTIONS)
    found = below(tmp_path / "v", data.videos("train"))
    assert found == [(f"all/Archery/{name}", 0), (f"all/playing_drums/{name}", 1)]
    (tmp_path / "v" / "all" / "playing_drums").rename(tmp_path / "v" / "all" / "drums")
    data = HACSDataModule(str(tmp_path / "v"), str(annotations), **HACS_OPTIONS)
    with pytest.warns(
        UserWarning, match=rf"1 names such as {HACS_ID}_000015_000017 are those of sev"
    ):
        found = below(tmp_path / "v", data.videos("train"))
    assert found == [(f"all/Archery/{name}", 0), (f"all/Archery/{name}", 1)]


@pytest.mark.parametrize("name", [f"{HACS_ID}_40.5_42.5.mp4", f"{HACS_ID}_40.50_42.500.WEBM"])
def test_names_with_exact_times(tmp_path, name):
    touch(tmp_path / "v" / name)
    annotations = write_csv(
        tmp_path / "a.csv", HACS_HEADER, [("BMX", HACS_ID, "training", "40.5", "42.5", 1)]
    )
    (video,) = HACSDataModule(str(tmp_path / "v"), str(annotations), **HACS_OPTIONS).videos("train")
    assert video.path.endswith(name)


def test_missing_videos(videos, tmp_path):
    root = tmp_path / "v"
    annotations = make_hacs(root, videos)
    gone = sorted((root / "BMX").iterdir())[0]
    gone.unlink()
    data = HACSDataModule(str(root), str(annotations), **HACS_OPTIONS)
    message = f"^{gone}: no such video, .*HACS_clips.*2 of the 12 train .*on_bad_video"
    with pytest.raises(DataError, match=message):
        data.videos("train")
    some = HACSDataModule(
        str(root), str(annotations), on_bad_video="skip", max_bad_share=0.2, **HACS_OPTIONS
    )
    with pytest.warns(UserWarning, match="2 of the 12 .* are left out"):
        sizes = [len(some.videos(split)) for split in ("train", "val", "test")]
    assert sorted(sizes) == [10, 12, 12]
    few = HACSDataModule(
        str(root), str(annotations), on_bad_video="substitute", max_bad_share=0.1, **HACS_OPTIONS
    )
    with pytest.raises(DataError, match=r"more than max_bad_share \(0\.1\)"):
        [few.videos(split) for split in ("train", "val", "test")]


def test_symbolic_links_hidden_files_and_folders_in_a_circle(videos, tmp_path):
    annotations = make_hacs(tmp_path / "elsewhere", videos)
    root = tmp_path / "v"
    root.mkdir()
    (root / "Archery").symlink_to(tmp_path / "elsewhere" / "Archery")
    (root / "-b 'm\" x é").mkdir()
    for file in (tmp_path / "elsewhere" / "BMX").iterdir():
        (root / "-b 'm\" x é" / file.name).symlink_to(file)
    (root / "Playing_drums").symlink_to(tmp_path / "elsewhere" / "Playing_drums")
    (root / "Playing_drums" / "round").symlink_to(root)
    (root / "Archery" / "._v_12345678901.mp4").write_bytes(b"x")
    linked = tmp_path / "linked"
    linked.symlink_to(root)
    data = HACSDataModule(str(linked), str(annotations), **HACS_OPTIONS)
    batches = list(data.val_dataloader())
    assert len(data.videos("val")) == 12
    assert torch.cat([batch["label"] for batch in batches]).unique().tolist() == [0, 1, 2]
    assert not any(batch["bad"] for batch in batches)


def test_a_folder_without_videos(tmp_path):
    annotations = write_csv(
        tmp_path / "a.csv", HACS_HEADER, [("BMX", HACS_ID, "training", "1.0", "2.0", 1)]
    )
    root = tmp_path / "v"
    root.mkdir()
    with pytest.raises(DataError, match=f"^{root}: holds no video in the layout auto"):
        HACSDataModule(str(root), str(annotations)).videos("train")
    touch(root / f"{HACS_ID}_000001_000002.mp4")
    touch(root / "holiday.mp4")
    with pytest.raises(DataError, match=r"untrimmed.*\(found: 1 trimmed_seconds, 1 other names\)"):
        HACSDataModule(str(root), str(annotations), layout="untrimmed").videos("train")
    with pytest.raises(DataError, match="none: no such folder"):
        HACSDataModule(str(tmp_path / "none"), str(annotations))


def test_labels_that_are_no_names_of_folders(tmp_path):
    rows = [
        ("a/b", HACS_ID, "training", "1.0", "2.0", 1),
        ("../x", HACS_ID, "training", "3.0", "4.0", 1),
    ]
    annotations = write_csv(tmp_path / "a.csv", HACS_HEADER, rows)
    touch(tmp_path / "v" / f"v_{HACS_ID}.mp4")
    data = HACSDataModule(str(tmp_path / "v"), str(annotations), **HACS_OPTIONS)
    assert data.class_names == ["../x", "a/b"]
    assert [v.label for v in data.videos("train")] == [1, 0]
    assert math.isclose(sum(v.start for v in data.videos("train")), 4)


@pytest.mark.parametrize(("flat", "underscores"), [(True, False), (False, False), (False, True)])
def test_every_layout_of_kinetics(videos, tmp_path, flat, underscores):
    root = tmp_path / "k700"
    annotations = make_kinetics(root, videos, flat, underscores)
    data = Kinetics700DataModule(str(root), str(annotations), **KINETICS_OPTIONS)
    assert data.class_names == KINETICS_SORTED
    for split in ("train", "val"):
        found = list(data.videos(split))
        assert [KINETICS_SORTED[video.label] for video in found] == [
            c for c in KINETICS_CLASSES for _ in "12"
        ]
        assert all(f"/{split}/" in video.path and video.start is None for video in found)
    with pytest.warns(UserWarning, match="test videos have no labels: the val videos serve"):
        assert list(data.videos("test")) == list(data.videos("val"))
    assert len(data.listing.split("test")) == 6
    (batch,) = data.val_dataloader()
    assert (len(batch["label"]), batch["bad"]) == (6, [])


def test_unlabelled_test_videos_need_not_be_there(videos, tmp_path):
    """As Kinetics is published: test.csv has no labels, and few download those videos."""
    root = tmp_path / "k700"
    annotations = make_kinetics(root, videos)
    for path in (root / "test").iterdir():
        path.unlink()
    data = Kinetics700DataModule(str(root), str(annotations), **KINETICS_OPTIONS)
    with pytest.warns(UserWarning, match="test videos have no labels: the val videos serve"):
        assert list(data.videos("test")) == list(data.videos("val"))


def rows(split, start=7):
    return [
        (c, i, start, start + 10, split)
        for c, i in zip(KINETICS_CLASSES, KINETICS_IDS, strict=True)
    ]


def test_one_file_with_all_splits_and_the_authors_order(tmp_path):
    """The SRTG authors' layout: folders of frames, and ids that follow first appearance."""
    split = ("train", "validate", "train")
    lines = [(*row[:4], s) for row, s in zip(rows(""), split, strict=True)]
    header = ("label", "id", *KINETICS_HEADER[2:])
    annotations = write_csv(tmp_path / "k700.csv", header, lines)
    for label, video, *_ in lines:
        write_frames_db(tmp_path / "v" / "jpg" / label / f"{video}_000007_000017", 12)
    data = Kinetics700DataModule(
        str(tmp_path / "v"), str(annotations), label_order="first_appearance", **KINETICS_OPTIONS
    )
    assert data.class_names == list(KINETICS_CLASSES)
    assert [video.label for video in data.videos("train")] == [0, 2]
    assert [video.label for video in data.videos("val")] == [1]
    (batch,) = data.train_dataloader()
    assert batch["clip"].shape == (2, 3, 4, 32, 32)
    assert batch["bad"] == []


def test_ids_with_underscores_and_dashes(tmp_path):
    folder = tmp_path / "annotations"
    for split, start in (("train", 7), ("val", 9)):
        write_csv(folder / f"kinetics700_{split}.csv", KINETICS_HEADER, rows(split, start))
        for video in KINETICS_IDS:
            touch(tmp_path / "v" / split / f"{video}_{start:06d}_{start + 10:06d}.mp4")
    data = Kinetics700DataModule(str(tmp_path / "v"), str(folder), **KINETICS_OPTIONS)
    assert below(tmp_path / "v", data.videos("val")) == [
        (f"val/{video}_000009_000019.mp4", KINETICS_SORTED.index(label))
        for label, video in zip(KINETICS_CLASSES, KINETICS_IDS, strict=True)
    ]


def test_annotation_files_that_do_not_do(tmp_path):
    root, folder = tmp_path / "v", tmp_path / "annotations"
    touch(root / f"{KINETICS_IDS[0]}_000007_000017.mp4")
    folder.mkdir()

    def error():
        with pytest.raises(DataError) as caught:
            Kinetics700DataModule(str(root), str(folder), **KINETICS_OPTIONS).videos("train")
        return str(caught.value)

    assert error().startswith(f"{folder}: holds no train.csv")
    write_csv(folder / "train.csv", KINETICS_HEADER, rows("train")[:1])
    write_csv(folder / "val.csv", KINETICS_HEADER, rows("val"))
    assert f"{folder / 'val.csv'}: the label" in error()
    write_csv(folder / "validate.csv", KINETICS_HEADER, rows("val"))
    assert "both val.csv and validate.csv could be the list of the val split" in error()
    folder = tmp_path / "none.csv"
    assert error() == f"{folder}: no such annotation file"
    folder = write_csv(tmp_path / "empty.csv", KINETICS_HEADER, [])
    assert error() == f"{folder}: lists no labelled clip"
