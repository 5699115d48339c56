"""The official lists, and lists and trees with something wrong in them."""

from collections import Counter
from pathlib import Path

import pytest

from vidpool.data.datasets.ucf101 import UCF101DataModule, read_class_index
from vidpool.errors import ConfigError, DataError

SIZES = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}


@pytest.fixture(scope="module")
def official_tree(official_lists, tmp_path_factory):
    """All 13,320 videos as the lists name them, empty."""
    root = tmp_path_factory.mktemp("UCF-101")
    for name in ("trainlist01.txt", "testlist01.txt"):
        for line in (official_lists / name).read_text().splitlines():
            path = root / line.split()[0]
            path.parent.mkdir(exist_ok=True)
            path.touch()
    return root


@pytest.fixture
def tree(tmp_path):
    """Two classes of three empty videos each, the lists below the root."""
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_bytes(b"1 Bowling\r\n2 archery\r\n")
    train, test = "", ""
    for label, name in ((1, "Bowling"), (2, "archery")):
        (tmp_path / name).mkdir()
        for number in (1, 2, 3):
            path = f"{name}/v_{name}_g0{number}_c01.avi"
            (tmp_path / path).touch()
            if number < 3:
                train += f"{path} {label}\r\n"
            else:
                test += f"{path}\r\n"
    (lists / "trainlist01.txt").write_bytes(train.encode())
    (lists / "testlist01.txt").write_bytes(test.encode())
    return tmp_path


def change(path, old, new):
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new).encode())


def relative(videos, root):
    return [(str(Path(video.path).relative_to(root)), video.label) for video in videos]


@pytest.mark.parametrize("split", [1, 2, 3])
def test_official_splits(official_tree, official_lists, split):
    data = UCF101DataModule(str(official_tree), str(official_lists), split)
    train, test = list(data.videos("train")), list(data.videos("test"))
    assert (len(train), len(test)) == SIZES[split]
    everything = [str(path) for path in official_tree.glob("*/*.avi")]
    assert len(everything) == 13_320
    assert sorted(video.path for video in train + test) == sorted(everything)

    # ids: the train list says them, from 1; the class folder tells them in both lists
    listed = (official_lists / f"trainlist{split:02d}.txt").read_text().split()
    assert relative(train, official_tree) == [
        (path, int(number) - 1) for path, number in zip(listed[::2], listed[1::2], strict=True)
    ]
    listed = (official_lists / f"testlist{split:02d}.txt").read_text().split()
    assert [path for path, _ in relative(test, official_tree)] == listed
    for video in train + test:
        assert data.class_names[video.label] == Path(video.path).parent.name

    def groups(videos):
        return {Path(video.path).name.rsplit("_", 1)[0] for video in videos}

    assert not groups(train) & groups(test)


def test_official_classes(official_tree, official_lists):
    data = UCF101DataModule(str(official_tree), str(official_lists))
    assert data.num_classes == 101
    assert data.class_names[0] == "ApplyEyeMakeup"
    assert data.class_names[-1] == "YoYo"
    assert data.class_names == sorted(data.class_names, key=str.lower) != sorted(data.class_names)
    assert data.class_names.index("HandstandPushups") == 36
    assert set(Counter(video.label for video in data.videos("train"))) == set(range(101))


@pytest.mark.parametrize("folder", ["HandstandPushups", "HandStandPushups", "handstandpushups"])
@pytest.mark.parametrize(
    "file", ["v_HandStandPushups_g01_c01.avi", "v_HandstandPushups_g01_c01.AVI"]
)
def test_handstand_pushups_in_any_case(official_lists, tmp_path, folder, file):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / file).touch()
    data = UCF101DataModule(
        str(tmp_path), str(official_lists), on_bad_video="skip", max_bad_share=1
    )
    with pytest.warns(UserWarning, match="3782 of the 3783 test videos"):
        videos = data.videos("test")
    assert relative(videos, tmp_path) == [(f"{folder}/{file}", 36)]


def test_small_tree(tree):
    data = UCF101DataModule(str(tree))
    assert data.class_names == ["Bowling", "archery"]
    assert data.num_classes == 2
    assert relative(data.videos("train"), tree) == [
        ("Bowling/v_Bowling_g01_c01.avi", 0),
        ("Bowling/v_Bowling_g02_c01.avi", 0),
        ("archery/v_archery_g01_c01.avi", 1),
        ("archery/v_archery_g02_c01.avi", 1),
    ]
    test = relative(data.videos("test"), tree)
    assert test == [("Bowling/v_Bowling_g03_c01.avi", 0), ("archery/v_archery_g03_c01.avi", 1)]
    assert list(data.videos("val")) == list(data.videos("test"))


def test_blank_lines_and_line_ends_do_not_matter(tree):
    expected = list(UCF101DataModule(str(tree)).videos("train"))
    for path in (tree / "ucfTrainTestlist").iterdir():
        text = path.read_bytes().decode().replace("\r\n", "\n\n")
        path.write_bytes(b"\n" + text.strip().encode())
    assert list(UCF101DataModule(str(tree)).videos("train")) == expected


def test_lists_beside_the_root_or_elsewhere(tree):
    root = tree / "videos"
    root.mkdir()
    for name in ("Bowling", "archery"):
        (tree / name).rename(root / name)
    beside = list(UCF101DataModule(str(root)).videos("train"))
    assert len(beside) == 4
    (tree / "ucfTrainTestlist").rename(tree / "lists")
    assert list(UCF101DataModule(str(root), str(tree / "lists")).videos("train")) == beside
    with pytest.raises(DataError, match=f"^{root / 'ucfTrainTestlist'}: .*{tree / 'ucfTrainTest'}"):
        UCF101DataModule(str(root))


def test_missing_root(tmp_path):
    with pytest.raises(DataError, match=f"^{tmp_path / 'none'}: no such folder"):
        UCF101DataModule(str(tmp_path / "none"))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=f"^{tmp_path / 'file'}: no such folder"):
        UCF101DataModule(str(tmp_path / "file"))


def test_missing_folder_of_lists(tree):
    with pytest.raises(DataError, match=f"^{tree / 'none'}"):
        UCF101DataModule(str(tree), str(tree / "none"))


@pytest.mark.parametrize("name", ["classInd.txt", "trainlist01.txt", "testlist01.txt"])
def test_missing_list(tree, name):
    path = tree / "ucfTrainTestlist" / name
    path.unlink()
    with pytest.raises(DataError, match=f"^{path}: no such list"):
        UCF101DataModule(str(tree)).videos("train" if name != "testlist01.txt" else "test")


def test_list_of_another_split_is_missing(tree):
    with pytest.raises(DataError, match=f"^{tree / 'ucfTrainTestlist' / 'trainlist03.txt'}: "):
        UCF101DataModule(str(tree), split=3).videos("train")


def test_unreadable_lists(tree):
    path = tree / "ucfTrainTestlist" / "trainlist01.txt"
    path.write_bytes(b"\xff\xfe\x00archery")
    with pytest.raises(DataError, match=f"^{path}: cannot be read as a list"):
        UCF101DataModule(str(tree)).videos("train")
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=f"^{path}: cannot be read as a list"):
        UCF101DataModule(str(tree)).videos("train")


def test_missing_video(tree):
    path = tree / "archery" / "v_archery_g02_c01.avi"
    path.unlink()
    with pytest.raises(DataError, match=f"^{path}: .*1 of the 4.*on_bad_video") as caught:
        UCF101DataModule(str(tree)).videos("train")
    assert str(tree / "ucfTrainTestlist" / "trainlist01.txt") in str(caught.value)
    skipping = UCF101DataModule(str(tree), on_bad_video="skip", max_bad_share=1)
    with pytest.warns(UserWarning, match=f"^{path}: no such video, .*; 1 of the 4 train videos"):
        assert len(skipping.videos("train")) == 3


def test_missing_class_folder(tree):
    for path in (tree / "Bowling").iterdir():
        path.unlink()
    (tree / "Bowling").rmdir()
    with pytest.raises(
        DataError, match=f"^{tree / 'Bowling'}.*2 of the 4 train videos are missing"
    ):
        UCF101DataModule(str(tree)).videos("train")
    with pytest.warns(UserWarning, match="2 of the 4 train videos"):
        videos = UCF101DataModule(str(tree), on_bad_video="skip", max_bad_share=1).videos("train")
    assert {video.label for video in videos} == {1}


def test_nothing_left_after_skipping(tree):
    for path in tree.glob("*/*.avi"):
        path.unlink()
    data = UCF101DataModule(str(tree), on_bad_video="skip", max_bad_share=1, num_workers=0)
    for split, loader in (("train", data.train_dataloader), ("test", data.test_dataloader)):
        with pytest.raises(DataError, match=f"{split} split has no video that can be read"):
            loader()


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("g01_c01.avi 2", "g01_c01.avi 1", 3),  # another class's number
        ("g01_c01.avi 2", "g01_c01.avi 0", 3),
        ("g01_c01.avi 2", "g01_c01.avi two", 3),
        ("g01_c01.avi 2", "g01_c01.avi", 3),
        ("Bowling/v_Bowling_g02", "Curling/v_Curling_g02", 2),
        ("Bowling/v_Bowling_g01", "v_Bowling_g01", 1),
    ],
)
def test_train_list_that_does_not_fit_the_classes(tree, old, new, line):
    path = tree / "ucfTrainTestlist" / "trainlist01.txt"
    change(path, old, new)
    with pytest.raises(DataError, match=f"^{path}, line {line}: .*classInd.txt") as caught:
        UCF101DataModule(str(tree)).videos("train")
    assert new in str(caught.value)


def test_test_list_that_does_not_fit_the_classes(tree):
    path = tree / "ucfTrainTestlist" / "testlist01.txt"
    change(path, "archery/", "Curling/")
    with pytest.raises(DataError, match=f"^{path}, line 2: .*Curling/.*classInd.txt"):
        UCF101DataModule(str(tree)).videos("test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 Bowling\n1 archery\n", "line 1: expected '1 ClassName', got '0 Bowling'"),
        ("1 Bowling\n3 archery\n", "line 2: expected '2 ClassName', got '3 archery'"),
        ("1 Bowling\n2\n", "line 2: expected '2 ClassName', got '2'"),
        ("Bowling\narchery\n", "line 1: expected '1 ClassName', got 'Bowling'"),
        ("\n\n", "empty"),
        ("", "empty"),
    ],
)
def test_class_index_that_makes_no_sense(tmp_path, text, message):
    path = tmp_path / "classInd.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=f"^{path}.*{message}"):
        read_class_index(path)


def test_class_names_may_hold_spaces(tmp_path):
    (tmp_path / "classInd.txt").write_text("1 apply eye makeup\n2 archery\n")
    assert read_class_index(str(tmp_path / "classInd.txt")) == ["apply eye makeup", "archery"]


@pytest.mark.parametrize("split", [0, 4, -1])
def test_split_out_of_range(tree, split):
    with pytest.raises(ConfigError, match=f"split={split}$"):
        UCF101DataModule(str(tree), split=split)
