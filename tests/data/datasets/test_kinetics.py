"""Kinetics-700 in all its layouts."""

import pytest
from trees import (
    KINETICS_CLASSES,
    KINETICS_HEADER,
    Videos,
    below,
    make_kinetics,
    write_csv,
    write_frames_db,
)

from vidpool.data.datasets.kinetics import Kinetics700DataModule
from vidpool.errors import DataError

SORTED = sorted(KINETICS_CLASSES)
OPTIONS = {"frames": 4, "stride": 2, "crop": 32, "short_side": 36, "num_workers": 0}
IDS = ("-abc_def-0Z", "__345678901", "v_345678901")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return Videos(tmp_path_factory.mktemp("made"))


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize(("flat", "underscores"), [(True, False), (False, False), (False, True)])
def test_every_layout(videos, tmp_path, flat, underscores):
    root = tmp_path / "k700"
    annotations = make_kinetics(root, videos, flat, underscores)
    data = Kinetics700DataModule(str(root), str(annotations), **OPTIONS)
    assert data.class_names == SORTED
    for split in ("train", "val"):
        found = list(data.videos(split))
        assert [SORTED[video.label] for video in found] == [
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
    data = Kinetics700DataModule(str(root), str(annotations), **OPTIONS)
    with pytest.warns(UserWarning, match="test videos have no labels: the val videos serve"):
        assert list(data.videos("test")) == list(data.videos("val"))


def rows(split, start=7):
    return [(c, i, start, start + 10, split) for c, i in zip(KINETICS_CLASSES, IDS, strict=True)]


def test_one_file_with_all_splits_and_the_authors_order(tmp_path):
    """The SRTG authors' layout: folders of frames, and ids that follow first appearance."""
    split = ("train", "validate", "train")
    lines = [(*row[:4], s) for row, s in zip(rows(""), split, strict=True)]
    header = ("label", "id", *KINETICS_HEADER[2:])
    annotations = write_csv(tmp_path / "k700.csv", header, lines)
    for label, video, *_ in lines:
        write_frames_db(tmp_path / "v" / "jpg" / label / f"{video}_000007_000017", 12)
    data = Kinetics700DataModule(
        str(tmp_path / "v"), str(annotations), label_order="first_appearance", **OPTIONS
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
        for video in IDS:
            touch(tmp_path / "v" / split / f"{video}_{start:06d}_{start + 10:06d}.mp4")
    data = Kinetics700DataModule(str(tmp_path / "v"), str(folder), **OPTIONS)
    assert below(tmp_path / "v", data.videos("val")) == [
        (f"val/{video}_000009_000019.mp4", SORTED.index(label))
        for label, video in zip(KINETICS_CLASSES, IDS, strict=True)
    ]


def test_annotation_files_that_do_not_do(tmp_path):
    root, folder = tmp_path / "v", tmp_path / "annotations"
    touch(root / f"{IDS[0]}_000007_000017.mp4")
    folder.mkdir()

    def error():
        with pytest.raises(DataError) as caught:
            Kinetics700DataModule(str(root), str(folder), **OPTIONS).videos("train")
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
