"""Videos in several splits or under several labels, by path, span and content."""

import csv
import os

import numpy as np
import pytest
from trees import Videos, make_video_folder, write_csv

from vidpool.data.catalogue.index import fingerprint
from vidpool.data.catalogue.listing import Listing
from vidpool.data.catalogue.table import TableBuilder
from vidpool.data.datasets.video_folder import VideoFolderDataModule
from vidpool.data.prepare import repeats
from vidpool.data.prepare.check import check_data
from vidpool.data.prepare.check_report import repeat_warnings, write_report
from vidpool.data.prepare.repeats import find_repeats, same_content


@pytest.fixture
def files(tmp_path):
    """Contents by name; all but the last two are of one size, more than the samples cover."""
    block = os.urandom(200_000)
    other = block[:70_000] + b"changed" + block[70_007:]  # where no sample lies
    contents = [block, other, block, os.urandom(200_000), other, b"short", b""]
    paths = [tmp_path / str(number) for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


def test_files_of_the_same_content(files, monkeypatch):
    read = []
    monkeypatch.setattr(repeats, "fingerprint", lambda p: read.append(p) or fingerprint(p))
    sizes = np.array([path.stat().st_size for path in files])
    found = same_content(lambda number: str(files[number]), sizes, 1)
    assert found.tolist() == [0, 1, 0, 3, 1, 5, 6]
    # the one whose samples differ is not read as a whole, nor are those of another size
    assert sorted(read) == [str(files[number]) for number in (0, 1, 2, 4)]


def test_a_file_that_cannot_be_read_is_like_no_other(files):
    sizes = np.array([path.stat().st_size for path in files])
    files[0].unlink()
    found = same_content(lambda number: str(files[number]), sizes, 1)
    assert found.tolist() == [0, 1, 2, 3, 1, 5, 6]


def listing(**splits):
    """Videos as (file, label[, start, end])."""
    builder = TableBuilder("")
    for number in range(1 + max(file for own in splits.values() for file, *_ in own)):
        builder.add_file("", str(number))
    ranges = {}
    for split, own in splits.items():
        first = len(builder)
        for video in own:
            builder.add_video(*video)
        ranges[split] = (first, len(builder))
    return Listing(["a", "b", "c"], builder.build(), ranges)


def found(data, content=None):
    files = np.arange(len(data.table.names)) if content is None else np.array(content)
    return [tuple(repeat) for repeat in find_repeats(data, files)]


def test_whole_files():
    data = listing(train=[(0, 0), (1, 1), (2, 1)], val=[(3, 0), (1, 1)], test=[(2, 2), (4, -1)])
    assert found(data) == [
        (1, 4, "val", True),
        (2, 5, "test", True),
        (2, 5, None, True),
        (4, 1, "train", True),
        (5, 2, "train", True),
        (5, 2, None, True),
    ]
    # files 0, 3 and 4 are equal; a video without a label has no other label
    copies = [0, 1, 2, 0, 0]
    more = [repeat for repeat in found(data, copies) if not repeat[3]]
    assert more == [
        (0, 3, "val", False),
        (0, 6, "test", False),
        (3, 0, "train", False),
        (3, 6, "test", False),
        (6, 0, "train", False),
        (6, 3, "val", False),
    ]


def test_spans_of_a_file():
    train = [(0, 0, 0.0, 2.0), (0, 0, 4.0, 5.0), (0, 1, 4.0, 5.0), (1, 0, 1.0, 2.0)]
    val = [(0, 0, 2.0, 4.0), (0, 0, 4.5, 9.0), (1, 1)]
    assert found(listing(train=train, val=val)) == [
        (1, 5, "val", True),
        (1, 2, None, True),
        (2, 5, "val", True),
        (2, 1, None, True),
        (3, 6, "val", True),
        (5, 1, "train", True),
        (6, 3, "train", True),
    ]


def test_many_copies_take_no_more_than_their_number():
    half = 20_000
    data = listing(train=[(n, 0) for n in range(half)], val=[(half + n, 1) for n in range(half)])
    assert len(found(data, np.zeros(2 * half, int))) == 4 * half


def test_a_check_tells_and_lists_them(tmp_path):
    root = make_video_folder(tmp_path / "data", Videos(tmp_path), ("train", "test"), each=1)
    for path in root.rglob("*.mp4"):  # one content for all, but for a byte at the end
        with path.open("ab") as file:
            file.write(str(path.relative_to(root)).encode().rjust(40))
    (first,) = (root / "train" / "jump").iterdir()
    (root / "test" / "jump" / "copy.mp4").write_bytes(first.read_bytes())
    (root / "train" / "run fast" / "again.mp4").write_bytes(first.read_bytes())
    options = {"frames": 4, "stride": 2, "crop": 32, "short_side": 36}
    data = VideoFolderDataModule(str(root), **options)
    folder = tmp_path / "out"
    checked = check_data(data, folder, folder / "index.safetensors", 1)
    in_train, of_two = repeat_warnings(checked)
    assert in_train.startswith("1 test videos are in train too (0 by path, 1 by content), such as ")
    assert of_two.startswith("3 videos are listed under two labels (0 by path, 3 by content)")
    problems, *_ = write_report(checked, folder)
    with problems.open(newline="") as file:
        rows = [(row["split"], row["class"], row["problem"]) for row in csv.DictReader(file)]
    assert sorted(rows) == [
        ("test", "jump", "two labels"),
        ("test", "jump", "two splits"),
        ("train", "jump", "two labels"),
        ("train", "jump", "two splits"),
        ("train", "run fast", "two labels"),
        ("train", "run fast", "two splits"),
    ]


def test_one_file_in_two_lists(tmp_path):
    Videos(tmp_path).write(tmp_path / "x.mp4", 25)
    for split in ("train", "val"):
        write_csv(tmp_path / f"{split}.csv", None, [("x.mp4", "a"), ("x.mp4", "b")])
    data = VideoFolderDataModule(str(tmp_path), frames=4, stride=2, crop=32, short_side=36)
    checked = check_data(data, tmp_path / "out", tmp_path / "out" / "index.safetensors", 1)
    assert [warning.partition(", such")[0] for warning in repeat_warnings(checked)] == [
        "2 val videos are in train too (2 by path, 0 by content)",
        "4 videos are listed under two labels (4 by path, 0 by content)",
    ]
