import csv
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidpool.analysis.mcnemar import compare_predictions, mcnemar, reproduce_table_4
from vidpool.analysis.published import TABLE_S1
from vidpool.errors import ConfigError, DataError

pytest.importorskip("scipy")
PAPER = Path(__file__).parents[3] / "shared" / "paper.txt"
COLUMNS = ("path", "label", "predicted")


def write(path, rows, header=("path", "start", "end", "label", "predicted")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_symmetric_and_a_probability(a, b):
    test = mcnemar(a, b)
    assert test == mcnemar(b, a)
    assert 0 <= test.p_value <= 1
    assert 0 <= test.exact_p_value <= 1
    assert test.statistic >= 0


def test_the_exact_test_of_a_few():
    # at most 1 of 6 tosses of a coin heads, or at most 1 tails: 2 (1 + 6) / 64
    assert mcnemar(1, 5).exact_p_value == pytest.approx(14 / 64)
    assert mcnemar(3, 3) == mcnemar(0, 0)
    assert mcnemar(3, 3).p_value == 1
    with pytest.raises(ConfigError, match="must not be negative, got -1 and 4"):
        mcnemar(-1, 4)
    with pytest.raises(ConfigError, match="must not be above"):
        mcnemar(10**26, 1)


def test_all_statistics_of_table_4():
    rows = reproduce_table_4()
    assert len(rows) == 13
    for row in rows:
        assert f"{row.test.statistic:.2f}" == row.published.statistic
        assert row.counts.total == 50_000
    # as printed but for these
    wrong_p = {row.published.network for row in rows if "p-value" in " ".join(row.misprints)}
    assert wrong_p == {"DenseNet121", "ResNeXt101 32x8d"}
    totals = {r.published.network: " ".join(r.misprints) for r in rows if "totals" in str(r)}
    totals = {network: told for network, told in totals.items() if "totals of" in told}
    assert set(totals) == {"wide-ResNet50", "InceptionV3"}
    assert "14874 and 10630, should be 39370 and 10630" in totals["InceptionV3"]


@pytest.mark.skipif(not PAPER.exists(), reason="needs shared/paper.txt")
def test_counts_are_the_papers():
    text = PAPER.read_text(encoding="utf-8")
    three = r"(\d+) (\d+) (\d+)\n"
    pattern = rf"SoftPool Correct {three}Incorrect {three}\nTotal (\d+) (\d+) 50000"
    found = re.findall(pattern, text)
    ours = [
        ((r.correct_correct, r.correct_wrong), (r.wrong_correct, r.wrong_wrong), r.original_totals)
        for r in TABLE_S1
    ]
    numbers = [tuple(map(int, row)) for row in found]
    assert [(row[:2], row[3:5], row[6:]) for row in numbers] == ours
    assert [(row[2], row[5]) for row in numbers] == [r.soft_totals for r in TABLE_S1]
    table_4 = text[text.index("Model pooling replacement statistic") : text.index("Table 4: McN")]
    for row in TABLE_S1:
        printed = f"{row.statistic} {row.p_value}".replace("-", "\N{MINUS SIGN}")
        assert re.search(rf"{re.escape(row.network)}[^\d].*?{re.escape(printed)}", table_4, re.S)


def test_runs_are_joined_by_video_whatever_the_order(tmp_path):
    rows = [
        ("a.mp4", "", "", "x", "x"),
        ("b.mp4", "0", "2", "x", "y"),
        ("b.mp4", "2", "4", "y", "y"),
        ("c, d.mp4", "", "", "y", "x"),
    ]
    always_x = [(*row[:4], "x") for row in reversed(rows)]
    a, b = write(tmp_path / "a.csv", rows), write(tmp_path / "predictions.csv", always_x)
    assert compare_predictions(a, b) == (1, 1, 1, 1)
    assert compare_predictions(a, tmp_path) == (1, 1, 1, 1)  # the folder of a run


@pytest.mark.parametrize(
    ("rows", "header", "told"),
    [
        ([("a", "x")], ("path", "label"), "b.csv: has no column predicted"),
        ([("a", "x", "x"), ("a", "x", "y")], COLUMNS, "line 3: a is there twice"),
        ([("a", "x", "x"), ("b", "x")], COLUMNS, "line 3: has too few values"),
        ([("a", "", "")], COLUMNS, "line 2: has too few values"),
        ([], COLUMNS, "b.csv: holds no predictions"),
        ([("b", "x", "x")], COLUMNS, "b.csv: lacks 1 of the 1 samples of"),
        ([("a", "y", "x")], COLUMNS, "a: its label is 'x' in"),
    ],
)
def test_files_that_cannot_be_compared(tmp_path, rows, header, told):
    a = write(tmp_path / "a.csv", [("a", "", "", "x", "x")])
    b = write(tmp_path / "b.csv", rows, header)
    with pytest.raises(DataError, match=re.escape(told)):
        compare_predictions(a, b)


@pytest.mark.parametrize("content", [b"", b"\x00\x01\xff", b'path,label,predicted\n"a'])
def test_files_that_are_no_lists(tmp_path, content):
    a = write(tmp_path / "a.csv", [("a", "", "", "x", "x")])
    (tmp_path / "b.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"b\.csv"):
        compare_predictions(a, tmp_path / "b.csv")
