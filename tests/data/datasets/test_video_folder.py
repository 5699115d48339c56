"""Videos of one's own, by folders and by lists."""

import math
import os
import time

import pytest
from mutated import mutated
from trees import Videos, below, make_video_folder, write_csv

from vidpool.data.catalogue.index import write_index
from vidpool.data.datasets.video_folder import VideoFolderDataModule
from vidpool.errors import DataError

OPTIONS = {"frames": 4, "stride": 2, "crop": 32, "short_side": 36, "num_workers": 0}
ODD = ("-v.mp4", 'it\'s "quoted".avi', "größe 1.MKV", "a,b.mp4", "%s{}.mp4")


@pytest.fixture
def tree(tmp_path):
    """Empty files with odd names, of two classes, in `clips`."""
    for number, name in enumerate(ODD):
        path = tmp_path / "clips" / f"k {number % 2}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    rows = [(f"clips/k {number % 2}/{name}", "ab"[number % 2]) for number, name in enumerate(ODD)]
    for split in ("train", "test"):
        write_csv(tmp_path / f"{split}.csv", None, rows)
    return tmp_path


def module(root, **options):
    return VideoFolderDataModule(str(root), **OPTIONS, **options)


def test_class_folders(tmp_path_factory, tmp_path):
    root = make_video_folder(tmp_path, Videos(tmp_path_factory.mktemp("made")))
    (root / "train" / "run fast" / "deep").mkdir()
    (root / "train" / "run fast" / "train 1.mp4").rename(root / "train" / "run fast" / "deep/x.mp4")
    notes = root / "train" / "run fast" / "notes.txt"
    notes.touch()
    with pytest.warns(UserWarning, match=r"train: 1 files are no videos .* over \(1 \.txt\)"):
        module(root).videos("train")
    notes.unlink()
    (root / "train" / "jump" / "._train 0.mp4").touch()
    data = module(root)
    assert data.class_names == ["jump", "run fast"]
    assert below(root, data.videos("train")) == [
        ("train/jump/train 0.mp4", 0),
        ("train/jump/train 1.mp4", 0),
        ("train/run fast/train 0.mp4", 1),
        ("train/run fast/deep/x.mp4", 1),
    ]
    (batch,) = data.val_dataloader()
    assert batch["label"].tolist() == [0, 0, 1, 1]
    assert batch["bad"] == []
    (root / "train" / "astray.mp4").touch()
    with pytest.warns(UserWarning, match="train: 1 videos lie in no class folder"):
        assert len(module(root).videos("train")) == 4


def test_validation_or_test_alone_serves_for_both(tmp_path_factory, tmp_path):
    made = Videos(tmp_path_factory.mktemp("made"))
    for number, split in enumerate(("val", "Testing")):
        root = make_video_folder(tmp_path / str(number), made, ("train", split))
        data = module(root)
        assert list(data.videos("val")) == list(data.videos("test"))
        assert f"/{split}/" in data.videos("val")[0].path


def test_two_folders_of_one_split_are_refused(tmp_path):
    for name in ("train", "val", "validation"):
        (tmp_path / name / "a").mkdir(parents=True)
        (tmp_path / name / "a" / "x.ts").touch()
    with pytest.raises(DataError, match=f"^{tmp_path}: both val and validation could be the val"):
        module(tmp_path).videos("train")


def test_an_index_of_another_tree_is_refused(tmp_path):
    for name in ("x", "y"):
        (tmp_path / "v" / "train" / name).mkdir(parents=True)
        (tmp_path / "v" / "train" / name / "1.m2ts").touch()
    data = module(tmp_path / "v")
    write_index(tmp_path / "index", data.listing, data.source())
    (tmp_path / "v").rename(tmp_path / "moved")  # the same tree
    assert len(module(tmp_path / "moved", index=str(tmp_path / "index")).videos("train")) == 2
    (tmp_path / "moved" / "train" / "y" / "2.mp4").touch()
    with pytest.raises(DataError, match=r"class folders '2 videos, .*'3 videos, .*data check"):
        module(tmp_path / "moved", index=str(tmp_path / "index")).videos("train")


def test_lists(tree):
    data = module(tree)
    assert data.class_names == ["a", "b"]
    expected = [(f"clips/k {n % 2}/{name}", n % 2) for n, name in enumerate(ODD)]
    for split in ("train", "val", "test"):
        assert below(tree, data.videos(split)) == expected
    assert [path.name for path in data.annotation_files()] == ["train.csv", "test.csv"]


def test_lists_elsewhere_and_a_header_in_any_order(tree):
    rows = [("2.5", "b", "", "clips/k 0/-v.mp4"), ("", "a", "", "./clips//k 1/größe 1.MKV")]
    lists = tree / "lists"
    with pytest.raises(DataError, match=f"^{lists}: no such folder"):
        module(tree, lists=str(lists))
    lists.mkdir()
    with pytest.raises(DataError, match=f"^{lists / 'train.csv'}: no such list"):
        module(tree, lists=str(lists)).videos("train")
    (tree / "clips" / "k 0" / "größe 1.MKV").rename(tree / "clips" / "k 1" / "größe 1.MKV")
    write_csv(lists / "train.csv", ("end", "Label", "note", "Path"), rows)
    first, second = module(tree, lists=str(lists)).videos("train")
    assert (first.start, first.end, first.label) == (0, 2.5, 1)
    assert (second.start, second.end, second.label) == (None, None, 0)
    assert second.path == str(tree / "clips/k 1/größe 1.MKV")


def test_times(tree):
    path = "clips/k 0/-v.mp4"
    rows = [(path, "a", "1", "2.5"), (path, "a", "3", ""), (path, "b")]
    write_csv(tree / "train.csv", None, rows)
    found = list(module(tree).videos("train"))
    assert [(v.start, v.end) for v in found] == [(1, 2.5), (3, math.inf), (None, None)]
    assert len(module(tree).listing.table.names) == len(ODD)


def test_labels_that_are_numbers_are_sorted_as_such(tree):
    path = "clips/k 0/-v.mp4"
    write_csv(tree / "train.csv", None, [(path, str(number)) for number in (10, 9, 2, 0)])
    write_csv(tree / "test.csv", None, [(path, "9")])
    data = module(tree)
    assert data.class_names == ["0", "2", "9", "10"]
    assert [video.label for video in data.videos("test")] == [2]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../x.mp4,a", r"'\.\./x\.mp4' must be the path of a file below root"),
        ("/etc/passwd,a", "'/etc/passwd' must be the path of a file below"),
        ("clips/../../x.mp4,a", "must be the path of a file below"),
        (".,a", "must be the path of a file below"),
        ("a\0b.mp4,a", "must be the path of a file below"),
        ("x.mp4", r"expected path,label or path,label,start,end, got \['x\.mp4'\]"),
        ("x.mp4,a,1,2,3", "expected path,label"),
        ("x.mp4,a,b", "start is 'b', expected seconds"),
        ("x.mp4,a,3,2", r"a clip cannot last from 3\.0 s to 2\.0 s"),
        ("x.mp4,a,nan", "a clip cannot last from nan"),
        ("x.mp4,", "no training video has the class ''"),
        ('"x.mp4,a', "is not CSV"),
    ],
)
def test_mistakes_are_told_with_their_line(tree, line, message):
    path = tree / "train.csv"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=f"^{path}, line 6: .*{message}"):
        module(tree).videos("train")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("video,class\n", r"line 1: there is no video 'video'; is this a header\? expected path,"),
        ("\n , \nfile,class\n", r"line 3: there is no video 'file'; is this a header"),
        ("path,label,path\n", "line 1: the header has the column path twice"),
    ],
)
def test_headers_that_do_not_do(tree, head, message):
    path = tree / "train.csv"
    path.write_text(head + path.read_text())
    with pytest.raises(DataError, match=f"^{path}, {message}"):
        module(tree).videos("train")


def test_further_columns_are_ignored(tree):
    path = tree / "train.csv"
    expected = below(tree, module(tree).videos("train"))
    rows = [line.rpartition(",") for line in path.read_text().splitlines()]
    head = "fps,path,label,number,note,more\n"
    path.write_text(head + "".join(f'10,{name},{label},3,"a, b",\n' for name, _, label in rows))
    assert below(tree, module(tree).videos("train")) == expected
    path.write_text(head + "10,x.mp4,a,3,b,c,d\n")
    with pytest.raises(DataError, match="line 2: has 7 fields, but the header has 6"):
        module(tree).videos("train")


def test_a_header_below_a_blank_line(tree):
    path = tree / "train.csv"
    expected = below(tree, module(tree).videos("train"))
    path.write_text("\nPath,label\n" + path.read_text())
    assert below(tree, module(tree).videos("train")) == expected


def test_a_class_that_only_the_test_list_has(tree):
    write_csv(tree / "test.csv", None, [("clips/k 0/-v.mp4", "c")])
    with pytest.raises(DataError, match=r"test\.csv, line 1: no training video has the class 'c'"):
        module(tree).videos("train")


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match=f"^{tmp_path}: has no training videos; put them into"):
        module(tmp_path).videos("train")
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="has no training videos"):
        _ = module(tmp_path).class_names


def make_empty(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_trained_network_needs_its_test_videos_only(tmp_path):
    make_empty(tmp_path / "test" / "c" / "x.mp4", tmp_path / "test" / "a" / "y.mp4")
    with pytest.raises(DataError, match="has no training videos"):
        module(tmp_path).videos("test")
    data = module(tmp_path)
    data.use_classes(["d", "c", "b", "a"])
    assert data.class_names == ["d", "c", "b", "a"]
    for split in ("test", "val"):
        assert below(tmp_path, data.videos(split)) == [("test/a/y.mp4", 3), ("test/c/x.mp4", 1)]
    data.use_classes(["c", "b"])
    with pytest.raises(DataError, match=r"does not know 1 of the data's classes: 'a'\. Its 2 clas"):
        data.videos("test")
    data.use_classes(None)
    with pytest.raises(DataError, match="has no training videos"):
        data.videos("test")


def test_a_trained_network_needs_no_training_list(tmp_path):
    make_empty(tmp_path / "x.mp4", tmp_path / "lists" / "y.txt")
    lists = tmp_path / "lists"
    for folder, options in ((tmp_path, {}), (lists, {"lists": str(lists)})):
        write_csv(folder / "test.csv", None, [("x.mp4", "c"), ("x.mp4", "b", "1", "2")])
        data = module(tmp_path, **options)
        data.use_classes(["a", "b", "c"])
        assert data.videos("test").label.tolist() == [2, 1]
        with pytest.raises(DataError, match="the train split has no videos"):
            data.videos("train")


def check_mutations(tree, seeds):
    path = tree / "train.csv"
    whole = path.read_bytes()
    refused = 0
    for seed in seeds:
        path.write_bytes(mutated(whole, seed))
        begun = time.monotonic()
        try:
            data = module(tree, on_bad_video="skip", max_bad_share=1)
            table = data.listing.split("train")
        except DataError:
            refused += 1
        else:
            for video in table:
                assert video.path.startswith(f"{tree}/")
                assert "/../" not in video.path
                assert 0 <= video.label < data.num_classes
        assert time.monotonic() - begun < 10, seed
    assert refused > len(seeds) / 10


def test_damaged_lists_are_refused_or_read(tree):
    check_mutations(tree, range(60))


@pytest.mark.slow
def test_500_damaged_lists_are_refused_or_read(tree):
    check_mutations(tree, range(1000, 1500))


def test_list_with_a_name_that_is_not_utf8(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.mp4")).touch()
    (tmp_path / "train.csv").write_bytes(b"path,label\ncaf\xe9.mp4,na\xefve\n")
    listing = module(tmp_path).listing
    assert listing.class_names == [os.fsdecode(b"na\xefve")]
    assert listing.table[0].path == str(tmp_path / os.fsdecode(b"caf\xe9.mp4"))
