"""HACS in all its layouts."""

import json
import math

import pytest
import torch
from numbered_video import numbers
from numbered_video import write_video as write_numbered
from trees import HACS_CLASSES, HACS_FORMS, HACS_HEADER, Videos, below, make_hacs, write_csv

from vidpool.data.datasets.hacs import HACSDataModule
from vidpool.data.datasets.layouts import walk_videos
from vidpool.data.transforms.augmentation import Augmentation
from vidpool.errors import DataError

SORTED = sorted(HACS_CLASSES)
OPTIONS = {
    "frames": 4,
    "stride": 2,
    "crop": 32,
    "short_side": 36,
    "num_workers": 0,
    "test_crops": 1,
}
ID = "-abc_def-0Z"


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return Videos(tmp_path_factory.mktemp("made"))


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize("underscores", [True, False])
@pytest.mark.parametrize("layout", HACS_FORMS)
def test_every_layout(videos, tmp_path, layout, underscores):
    root = tmp_path / "videos"
    annotations = make_hacs(root, videos, layout, underscores)
    data = HACSDataModule(str(root), str(annotations), **OPTIONS)
    assert data.class_names == SORTED
    given = HACSDataModule(str(root), str(annotations), layout=layout, **OPTIONS)
    for split in ("train", "val", "test"):
        found = list(data.videos(split))
        assert len(found) == 12  # two videos of two clips of each class; negatives are left out
        assert list(given.videos(split)) == found
        for video in found:
            label = SORTED[video.label]
            assert (label if not underscores else label.replace(" ", "_")) in video.path
            spans = {(0.5, 1.5), (2.0, 3.0)} if layout == "untrimmed" else {(None, None)}
            assert (video.start, video.end) in spans
    everything = {v.path for s in ("train", "val", "test") for v in data.videos(s)}
    on_disk = {str(root / e.folder / e.name) for e in walk_videos(root)}
    assert everything == on_disk


def test_the_authors_order_of_labels(videos, tmp_path):
    annotations = make_hacs(tmp_path / "v", videos)
    data = HACSDataModule(
        str(tmp_path / "v"), str(annotations), label_order="first_appearance", **OPTIONS
    )
    assert data.class_names == list(HACS_CLASSES) != SORTED
    for video in data.videos("train"):
        assert HACS_CLASSES[video.label].replace(" ", "_") in video.path
    assert data.describe()["class_names"] == list(HACS_CLASSES)


def test_clips_of_a_whole_video_are_read_by_their_times(tmp_path):
    (tmp_path / "v").mkdir()
    write_numbered(tmp_path / "v" / f"v_{ID}.mp4", 100, size=(64, 64))
    rows = [("BMX", ID, "training", "1.0", "2.0", 1), ("BMX", ID, "validation", "2.4", "2.8", 1)]
    annotations = write_csv(tmp_path / "a.csv", HACS_HEADER, rows)
    whole = Augmentation(scale=(1, 1), ratio=(1, 1), flip=0)  # of the square picture
    options = OPTIONS | {"crop": 64, "short_side": 64, "augment": whole}
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
    touch(tmp_path / "v" / f"v_{ID}.mp4")
    entry = {"annotations": [{"label": "BMX", "segment": [1.5, 9]}], "subset": "training"}
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"database": {ID: entry}}))
    (video,) = HACSDataModule(str(tmp_path / "v"), str(path), **OPTIONS).videos("train")
    assert (video.start, video.end, video.label) == (1.5, 9, 0)


def test_whole_seconds_collide(tmp_path):
    rows = [("BMX", ID, "training", start, start + 2, 1) for start in (15.0, 15.5, 40.0)]
    annotations = write_csv(tmp_path / "a.csv", HACS_HEADER, rows)
    for times in ("000015_000017", "000040_000042"):
        touch(tmp_path / "v" / "BMX" / f"{ID}_{times}.mkv")
    data = HACSDataModule(str(tmp_path / "v"), str(annotations), **OPTIONS)
    with pytest.warns(UserWarning, match="1 clips share their file with another"):
        found = below(tmp_path / "v", data.videos("train"))
    assert found == [(f"BMX/{ID}_{t}.mkv", 0) for t in ("000015_000017", "000040_000042")]


def test_files_of_one_name_are_told_apart_by_their_class_folders(tmp_path):
    """Names in whole seconds are the same for clips that begin half a second apart."""
    rows = [
        ("Archery", ID, "training", 15.0, 17.0, 1),
        ("Playing drums", ID, "training", 15.5, 17.5, 1),
    ]
    annotations = write_csv(tmp_path / "a.csv", HACS_HEADER, rows)
    name = f"{ID}_000015_000017.mp4"
    for folder in ("Archery", "playing_drums"):
        touch(tmp_path / "v" / "all" / folder / name)
    data = HACSDataModule(str(tmp_path / "v"), str(annotations), **OPTIONS)
    found = below(tmp_path / "v", data.videos("train"))
    assert found == [(f"all/Archery/{name}", 0), (f"all/playing_drums/{name}", 1)]
    (tmp_path / "v" / "all" / "playing_drums").rename(tmp_path / "v" / "all" / "drums")
    data = HACSDataModule(str(tmp_path / "v"), str(annotations), **OPTIONS)
    with pytest.warns(UserWarning, match=rf"1 names such as {ID}_000015_000017 are those of sev"):
        found = below(tmp_path / "v", data.videos("train"))
    assert found == [(f"all/Archery/{name}", 0), (f"all/Archery/{name}", 1)]


@pytest.mark.parametrize("name", [f"{ID}_40.5_42.5.mp4", f"{ID}_40.50_42.500.WEBM"])
def test_names_with_exact_times(tmp_path, name):
    touch(tmp_path / "v" / name)
    annotations = write_csv(
        tmp_path / "a.csv", HACS_HEADER, [("BMX", ID, "training", "40.5", "42.5", 1)]
    )
    (video,) = HACSDataModule(str(tmp_path / "v"), str(annotations), **OPTIONS).videos("train")
    assert video.path.endswith(name)


def test_missing_videos(videos, tmp_path):
    root = tmp_path / "v"
    annotations = make_hacs(root, videos)
    gone = sorted((root / "BMX").iterdir())[0]
    gone.unlink()
    data = HACSDataModule(str(root), str(annotations), **OPTIONS)
    message = f"^{gone}: no such video, .*HACS_clips.*2 of the 12 train .*on_bad_video"
    with pytest.raises(DataError, match=message):
        data.videos("train")
    some = HACSDataModule(
        str(root), str(annotations), on_bad_video="skip", max_bad_share=0.2, **OPTIONS
    )
    with pytest.warns(UserWarning, match="2 of the 12 .* are left out"):
        sizes = [len(some.videos(split)) for split in ("train", "val", "test")]
    assert sorted(sizes) == [10, 12, 12]
    few = HACSDataModule(
        str(root), str(annotations), on_bad_video="substitute", max_bad_share=0.1, **OPTIONS
    )
    with pytest.raises(DataError, match=r"more than data\.init_args\.max_bad_share \(0\.1\)"):
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
    data = HACSDataModule(str(linked), str(annotations), **OPTIONS)
    batches = list(data.val_dataloader())
    assert len(data.videos("val")) == 12
    assert torch.cat([batch["label"] for batch in batches]).unique().tolist() == [0, 1, 2]
    assert not any(batch["bad"] for batch in batches)


def test_a_folder_without_videos(tmp_path):
    annotations = write_csv(
        tmp_path / "a.csv", HACS_HEADER, [("BMX", ID, "training", "1.0", "2.0", 1)]
    )
    root = tmp_path / "v"
    root.mkdir()
    with pytest.raises(DataError, match=f"^{root}: holds no video in the layout auto"):
        HACSDataModule(str(root), str(annotations)).videos("train")
    touch(root / f"{ID}_000001_000002.mp4")
    touch(root / "holiday.mp4")
    with pytest.raises(DataError, match=r"untrimmed.*\(found: 1 trimmed_seconds, 1 other names\)"):
        HACSDataModule(str(root), str(annotations), layout="untrimmed").videos("train")
    with pytest.raises(DataError, match="none: no such folder"):
        HACSDataModule(str(tmp_path / "none"), str(annotations))


def test_labels_that_are_no_names_of_folders(tmp_path):
    rows = [("a/b", ID, "training", "1.0", "2.0", 1), ("../x", ID, "training", "3.0", "4.0", 1)]
    annotations = write_csv(tmp_path / "a.csv", HACS_HEADER, rows)
    touch(tmp_path / "v" / f"v_{ID}.mp4")
    data = HACSDataModule(str(tmp_path / "v"), str(annotations), **OPTIONS)
    assert data.class_names == ["../x", "a/b"]
    assert [v.label for v in data.videos("train")] == [1, 0]
    assert math.isclose(sum(v.start for v in data.videos("train")), 4)
