"""Checking a data set: what is found, kept, and written."""

import csv
import json

import pytest
from trees import HACS_HEADER, Videos, make_hacs, video_id, write_clip, write_csv

from vidpool.data.catalogue.index import read_index
from vidpool.data.datasets.hacs_kinetics import HACSDataModule
from vidpool.data.prepare import check
from vidpool.data.prepare.check import CheckedData, check_data
from vidpool.data.prepare.check_report import write_report
from vidpool.errors import DataError
from vidpool.video import open_video

# a clip reaches over 16 frames
OPTIONS = {"frames": 4, "stride": 5, "crop": 32, "short_side": 36, "num_workers": 0}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return Videos(tmp_path_factory.mktemp("made"))


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Processes take seconds to start; tests/cli/test_data.py has them."""

    def one_by_one(function, items, workers):
        assert workers == 1
        return ((item, function(item)) for item in items)

    monkeypatch.setattr(check, "in_processes", one_by_one)


@pytest.fixture
def root(videos, tmp_path):
    """HACS with a file that is missing, one that is none, and clips that are too short."""
    root = tmp_path / "hacs"
    make_hacs(root, videos)
    rows = [(video_id(i), "training", start, start + 2) for i in range(4) for start in (0.0, 3.0)]
    write_csv(tmp_path / "a.csv", HACS_HEADER, [("BMX", *row, 1) for row in rows])
    for path in root.rglob("*.mp4"):
        path.unlink()
    (root / "BMX" / f"v_{video_id(1)}.mp4").write_text("not a video")
    videos.write(root / "BMX" / f"v_{video_id(2)}.mp4", 80)  # 3.2 s: 5 frames of the second clip
    videos.write(root / "BMX" / f"v_{video_id(3)}.mp4", 25)  # 1 s: the second begins later
    return root


def module(root, **options):
    return HACSDataModule(str(root), str(root.parent / "a.csv"), **{**OPTIONS, **options})


def run(root, folder, **options) -> CheckedData:
    return check_data(module(root, **options), folder, folder / "index.safetensors", 1)


def test_what_is_wrong_is_counted(root, tmp_path):
    checked = run(root, tmp_path / "out")
    assert checked.read == 3
    # listed, missing, unreadable, beyond the end, cut short, too short
    assert checked.counts("train").tolist() == [[8, 2, 2, 1, 0, 1], [0] * 6]
    assert checked.needed == 16
    assert checked.durations("train").tolist() == pytest.approx([2, 0.2, 1])
    assert list(checked.errors) == [1]


def test_files_that_were_cut_short(tmp_path):
    root = tmp_path / "hacs"
    path = write_clip(root / "BMX" / f"v_{video_id(0)}.avi", 100, codec="mpeg4")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with open_video(path) as video:
        end = len(video) / 25
        assert 1.5 < end < 3.5
    # within what is left, across its end, after it
    times = [(0.0, 1.0), (end - 0.8, end + 1), (end + 0.2, end + 1)]
    write_csv(
        tmp_path / "a.csv", HACS_HEADER, [("BMX", video_id(0), "training", *t, 1) for t in times]
    )
    for read in (1, 0):  # the second time from the notes
        checked = run(root, tmp_path / "out")
        assert checked.read == read
        assert checked.counts("train")[0].tolist() == [3, 0, 0, 1, 1, 0]
    table = checked.listing.split("train")
    assert checked.problems(table).tolist() == [-1, 3, 2]
    with write_report(checked, tmp_path / "out")[0].open(newline="") as file:
        told = [row["message"] for row in csv.DictReader(file)]
    assert told == [
        "the file had 100 frames once; this video has 20",
        "the file ends before it begins; it was cut short and had 100 frames once",
    ]


def test_the_index_says_it_too(root, tmp_path):
    run(root, tmp_path / "out")
    index = tmp_path / "out" / "index.safetensors"
    listing, _ = read_index(index, str(root))
    assert listing.table.span.tolist() == [-1, -1, -1, -1, 50, 5, 25, 0]
    assert listing.table.frames.tolist() == [-1, -1, 80, 25]
    assert listing.table.bad().tolist() == [True] * 4 + [False] * 3 + [True]
    with pytest.raises(DataError, match=r"no such video, .*5 of the 8 train videos"):
        module(root, index=str(index)).videos("train")
    data = module(root, index=str(index), on_bad_video="skip", max_bad_share=0.7)
    with pytest.warns(UserWarning, match="5 of the 8 train videos are missing or bad"):
        found = list(data.videos("train"))
    assert [(v.start, v.end, v.length) for v in found] == [(0, 2, 80), (3, 5, 80), (0, 2, 25)]
    (batch,) = data.train_dataloader()
    assert batch["clip"].shape == (3, 3, 4, 32, 32)


def test_only_the_rest_is_read(root, videos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    check_file = check.check_file
    looked = []

    def interrupted(job):
        if len(looked) == 2:
            raise KeyboardInterrupt
        looked.append(job.path)
        return check_file(job)

    monkeypatch.setattr(check, "check_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(root, out)
    assert not (out / "index.safetensors").exists()
    with (out / "files.jsonl").open("a") as file:
        file.write('{"file": "BMX/v_')  # and then the power failed
    monkeypatch.setattr(check, "check_file", check_file)
    # the one that was read and could be, and not the one that could not
    checked = run(root, out)
    assert checked.read == 2
    assert checked.counts("train")[0].tolist() == [8, 2, 2, 1, 0, 1]
    assert run(root, out).read == 1
    for line in (out / "files.jsonl").read_text().splitlines():
        json.loads(line)

    # a file that comes, one that is mended and one that is replaced are read
    videos.write(root / "BMX" / f"v_{video_id(0)}.mp4", 90)
    videos.write(root / "BMX" / f"v_{video_id(1)}.mp4", 91)
    videos.write(root / "BMX" / f"v_{video_id(2)}.mp4", 92)
    checked = run(root, out)
    assert checked.read == 3
    assert checked.listing.table.frames.tolist() == [90, 91, 92, 25]
    assert run(root, out).read == 0


def test_notes_of_another_data_set(root, tmp_path):
    run(root, tmp_path / "out")
    with pytest.raises(DataError, match=r"files\.jsonl: is of another data set .*--output"):
        run(root, tmp_path / "out", decoder="pyav")


@pytest.mark.parametrize("name", ["files.jsonl", "problems.csv", "classes.csv", "clips.png"])
def test_files_of_others_are_kept(root, tmp_path, name, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(check, "check_file", None)  # it is told before anything is read
    for content in ('{"mine": 1}\n', "name,age\n", '{"root": "x"}'):
        (out / name).write_text(content)
        with pytest.raises(DataError, match=rf"{name}: is .*--output, or remove it$"):
            run(root, out)
        assert [path.name for path in out.iterdir()] == [name]
        assert (out / name).read_text() == content
    (out / name).unlink()
    (out / name).mkdir()
    with pytest.raises(DataError, match=f"{name}: is a folder"):
        run(root, out)


def test_a_run_that_was_killed_in_the_first_line(root, tmp_path):
    run(root, tmp_path / "out")
    for size in (0, 5):
        notes = tmp_path / str(size) / "files.jsonl"
        notes.parent.mkdir()
        notes.write_bytes((tmp_path / "out" / "files.jsonl").read_bytes()[:size])
        assert run(root, notes.parent).read == 3
        assert run(root, notes.parent).read == 1


def test_damaged_notes_are_read_anew(root, tmp_path):
    expected = run(root, tmp_path / "out").counts("train").tolist()
    notes = tmp_path / "out" / "files.jsonl"
    header, *lines = notes.read_text().splitlines()
    good = next(json.loads(line) for line in lines if not json.loads(line)["error"])
    changes = [{"frames": "many"}, {"spans": [1]}, {"spans": None}, {"fps": []}, {"frames": 2**40}]
    bad = [{}, {"error": 1}, *(good | change for change in changes)]
    for note in bad:
        notes.write_text(f"{header}\n{json.dumps(note)}\n")
        checked = run(root, tmp_path / "out")
        assert (checked.read, checked.counts("train").tolist()) == (3, expected), note


def test_a_damaged_index_is_made_again_by_the_same_command(root, tmp_path, monkeypatch):
    run(root, tmp_path / "out")
    index = tmp_path / "out" / "index.safetensors"
    index.write_bytes(index.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"damaged or no index; make it again"):
        module(root, index=str(index)).videos("train")
    run(root, tmp_path / "out")
    assert module(root, index=str(index)).class_names == ["BMX"]
    # elsewhere it may be anything, which is told before any file is read
    index.write_bytes(b"precious")
    elsewhere = index.rename(tmp_path / "index.safetensors")
    monkeypatch.setattr(check, "check_file", None)
    with pytest.raises(DataError, match="remove it and repeat the command"):
        check_data(module(root), tmp_path / "out", elsewhere, 1)
    assert elsewhere.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.write_text(p.read_text() + "\n"), r"a\.csv is not the annotation file"),
        (lambda p: p.rename(p.with_name("b.csv")), r"a\.csv: cannot be read"),
    ],
)
def test_an_annotation_file_that_has_changed(root, tmp_path, change, message):
    run(root, tmp_path / "out")
    index = tmp_path / "out" / "index.safetensors"
    assert module(root, index=str(index)).class_names == ["BMX"]
    change(tmp_path / "a.csv")
    with pytest.raises(DataError, match=message):
        _ = module(root, index=str(index)).class_names


def test_other_settings(root, tmp_path):
    run(root, tmp_path / "out")
    index = tmp_path / "out" / "index.safetensors"
    with pytest.raises(DataError, match=r"with label_order 'sorted', and here .*'first_app"):
        _ = module(root, index=str(index), label_order="first_appearance").class_names


def test_the_report(root, tmp_path):
    checked = run(root, tmp_path / "out")
    files = write_report(checked, tmp_path / "out")
    assert [file.name for file in files] == ["problems.csv", "classes.csv", "clips.png"]
    with files[0].open(newline="") as file:
        problems = list(csv.DictReader(file))
    kinds = ["missing"] * 2 + ["unreadable"] * 2 + ["too short", "beyond the end"]
    assert [row["problem"] for row in problems] == kinds
    assert problems[2]["message"].startswith(f"{root}/BMX/v_{video_id(1)}.mp4: ")
    assert problems[4] | {"path": ""} == {
        "split": "train",
        "class": "BMX",
        "path": "",
        "start": "3.0",
        "end": "5.0",
        "problem": "too short",
        "message": "5 frames, and a clip reaches over 16: the last is repeated",
    }
    with files[1].open(newline="") as file:
        assert list(csv.reader(file))[1:] == [["train", "BMX", "8", "2", "2", "1", "0", "1"]]
    assert files[2].read_bytes().startswith(b"\x89PNG")
