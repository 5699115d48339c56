"""Annotation files as they are published, and with whatever may be wrong in them."""

import csv
import io
import json
import time

import pytest
from mutated import mutated
from trees import HACS_HEADER, KINETICS_HEADER, hacs_rows, write_csv

from vidpool.data.datasets.annotations import Annotation, read_annotations
from vidpool.errors import DataError

ID = "-abc_def-0Z"


def read(path, split=None):
    return list(read_annotations(path, split))


@pytest.mark.parametrize(
    ("text", "split", "expected"),
    [
        (
            f"classname,youtube_id,subset,start,end,label\nArchery,{ID},training,15.5,17.5,1\n"
            f"Archery,{ID},testing,15.5,17.5,-1\nBMX,{ID},validation,0,2.0,1\n",
            None,
            [("train", "Archery", ID, 15.5, 17.5), ("val", "BMX", ID, 0, 2)],
        ),
        (
            f"label,youtube_id,time_start,time_end,split\ntasting beer,{ID},41,51,validate\n",
            "val",
            [("val", "tasting beer", ID, 41, 51)],
        ),
        (  # an older one
            f"label,youtube_id,time_start,time_end,split,is_cc\n"
            f'"petting animal (not cat)",{ID},0,10,train,0\n',
            "train",
            [("train", "petting animal (not cat)", ID, 0, 10)],
        ),
        (  # of the test split
            f"youtube_id,time_start,time_end,split\n{ID},30,40,test\n",
            "test",
            [("test", None, ID, 30, 40)],
        ),
        (f"youtube_id,time_start,time_end\n{ID},3,4\n", "test", [("test", None, ID, 3, 4)]),
        (  # of the SRTG authors
            f"label,id,time_start,time_end,split\nBMX,{ID},3.0,5.0,train\n",
            None,
            [("train", "BMX", ID, 3, 5)],
        ),
        (  # of a spreadsheet
            f"\ufeffLabel, youtube_id,time_start,time_end,split\r\n\r\nBMX,{ID},3,5,val\r\n",
            None,
            [("val", "BMX", ID, 3, 5)],
        ),
    ],
)
def test_published_forms(tmp_path, text, split, expected):
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert read(tmp_path / "a.csv", split) == [Annotation(*values) for values in expected]


def test_hacs_segments(tmp_path):
    entry = {"annotations": [{"label": "BMX", "segment": [1.5, 9]}], "subset": "validation"}
    entry |= {"duration": "92.166667", "url": "https://example.org"}
    empty = {"annotations": [], "subset": "testing", "duration": "3"}
    path = tmp_path / "HACS_segments_v1.1.1.json"
    path.write_text(json.dumps({"database": {ID: entry, "12345678901": empty}}))
    assert read(path) == [Annotation("val", "BMX", ID, 1.5, 9)]


HACS = ",".join(HACS_HEADER)
KINETICS = ",".join(KINETICS_HEADER)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no column for id, start, end, split in the header ''"),
        (f"Archery,{ID},training,1,2,1\n", "line 1: no column .*expected one of classname,"),
        ("classname,youtube_id,subset,start\n", "line 1: no column for end in the header"),
        ("label,label,id,start,end,split\n", "line 1: a column is there more than once"),
        (f"{HACS}\nBMX,{ID},training,1,2\n", "line 2: has 5 fields, but the header has 6"),
        (f"{HACS}\nBMX,{ID},training,1,2,0\n", "line 2: label is '0', expected 1 or -1"),
        (f"{HACS}\nBMX,{ID},trainning,1,2,1\n", "line 2: subset is 'trainning', expected one of"),
        (f"{HACS}\n\nBMX,{ID},training,a,2,1\n", "line 3: 'a' to '2' are not times in seconds"),
        (f"{HACS}\nBMX,{ID},training,2,2,1\n", "line 2: a clip cannot last from 2 s to 2 s"),
        (f"{HACS}\nBMX,{ID},training,nan,2,1\n", "line 2: a clip cannot last from nan"),
        (f"{HACS}\nBMX,{ID},training,-1,2,1\n", "line 2: a clip cannot last from -1"),
        (f"{HACS}\nBMX,{ID},training,1,inf,1\n", "line 2: a clip cannot last from 1 s to inf"),
        (f"{HACS}\nBMX,../../../ab,training,1,2,1\n", "line 2: '../../../ab' is not the id"),
        (f"{HACS}\n,{ID},training,1,2,1\n", "line 2: a train clip has no label"),
        (f"youtube_id,time_start,time_end,split\n{ID},1,2,train\n", "line 2: a train clip has no"),
        (f'{KINETICS}\n"BMX,{ID},1,2,train\n', "line 2: is not CSV"),
    ],
)
def test_mistakes_are_told_with_their_line(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=f"^{path}, {message}"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "is not UTF-8 text"),
        (None, "no such annotation file"),
    ],
)
def test_unreadable_files(tmp_path, content, message):
    path = tmp_path / "a.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{path}: {message}"):
        read(path)
    with pytest.raises(DataError, match=f"^{tmp_path}: cannot be read"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", ": is not JSON"),
        ("[" * 100_000, ": is not JSON"),
        ("[]", ": has no database; expected"),
        ('{"database": 3}', ": has no database"),
        ('{"database": {"12345678901": 3}}', ", video '12345678901': TypeError"),
        ('{"database": {"12345678901": {}}}', ", video '12345678901': KeyError: 'subset'"),
        (
            '{"database": {"12345678901": {"subset": "x"}}}',
            ", video '12345678901': subset is 'x'",
        ),
        (
            '{"database": {"12345678901": {"subset": "training", '
            '"annotations": [{"label": "a", "segment": [1]}]}}}',
            ", video '12345678901': not enough values",
        ),
        (
            '{"database": {"12345678901": {"subset": "training", '
            '"annotations": [{"label": 3, "segment": [1, 2]}]}}}',
            ", video '12345678901': label is 3",
        ),
    ],
)
def test_segments_that_are_none(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(DataError, match=f"^{path}{message}"):
        read(path)


def plausible(path):
    """What any reading must amount to: rows that a reader without cleverness finds in the file."""
    text = path.read_bytes().decode("utf-8-sig")
    rows = list(csv.reader(io.StringIO(text, newline="")))
    return {tuple(field.strip() for field in row) for row in rows}


def check_mutations(path, seeds):
    whole = path.read_bytes()
    refused = 0
    for seed in seeds:
        path.write_bytes(mutated(whole, seed))
        begun = time.monotonic()
        try:
            clips = read(path)
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017
            refused += 1
        else:
            rows = plausible(path)
            for clip in clips:
                assert 0 <= clip.start < clip.end
                assert len(clip.id) == 11
                assert any(clip.label in row and clip.id in row for row in rows), seed
        assert time.monotonic() - begun < 10, seed
    assert refused > len(seeds) / 4


@pytest.fixture
def published(tmp_path):
    return write_csv(tmp_path / "hacs.csv", HACS_HEADER, hacs_rows())


def test_damaged_files_are_refused_or_read_right(published):
    check_mutations(published, range(100))


@pytest.mark.slow
def test_500_damaged_files_are_refused_or_read_right(published):
    check_mutations(published, range(1000, 1500))
