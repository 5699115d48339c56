"""The figures that `vidpool bench index` measures."""

import csv
import json

import pytest

from vidpool.bench.index import CompleteLookup, IndexResult, index_chart, write_annotations
from vidpool.bench.timing import describe_machine
from vidpool.cli import main
from vidpool.data.datasets.annotations import read_annotations
from vidpool.data.datasets.hacs_kinetics import list_clips


def test_the_generated_file_is_read_as_hacs_is(tmp_path):
    write_annotations(tmp_path / "a.csv", 1000)
    with (tmp_path / "a.csv").open(newline="") as file:
        assert next(csv.reader(file)) == [
            "classname",
            "youtube_id",
            "subset",
            "start",
            "end",
            "label",
        ]
    listing, repeated = list_clips(
        "/r", read_annotations(tmp_path / "a.csv"), CompleteLookup(), "sorted"
    )
    assert (len(listing.table), len(listing.table.names), repeated) == (1000, 334, 0)
    assert len(listing.class_names) == 200
    assert not listing.table.bad().any()
    assert len({(video.path, video.start) for video in listing.table}) == 1000


@pytest.mark.slow
def test_memory_is_of_the_index(tmp_path, capsys):
    output = tmp_path / "index.json"
    assert main(["bench", "index", "--rows", "1000", "100000", "--output", str(output)]) == 0
    assert "100,000" in capsys.readouterr().out
    small, large = (IndexResult(**result) for result in json.loads(output.read_text())["results"])
    assert (small.rows, large.rows) == (1_000, 100_000)
    assert large.index_size > 50 * small.index_size
    assert small.main_memory < large.main_memory < 4 * large.index_size
    for private in large.worker_private.values():
        assert private < large.index_size  # not a copy of it each


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rows", "3"], "--rows must be at least 100, got 3"),
        (["--output", "x.csv"], "must end in .json"),
    ],
)
def test_what_cannot_be_measured_is_told(options, message, capsys):
    assert main(["bench", "index", *options]) == 1
    assert message in capsys.readouterr().err


def test_the_chart_has_a_line_for_each_figure():
    results = [
        IndexResult(rows, 44 * rows, 2e-5 * rows, 40 * rows, 1e-8 * rows, 50 * rows, 4096, workers)
        for rows, workers in (
            (10**6, {"fork": 2**20, "spawn": -9}),
            (10**4, {"fork": 5, "spawn": 0}),
        )
    ]
    seconds, memory = index_chart(results, describe_machine("cpu")).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in memory.lines}
    assert lines["worker (fork), private"] == [[10**4, 5 / 2**20], [10**6, 1]]
    mapped = [[rows, (50 * rows - 4096) / 2**20] for rows in (10**4, 10**6)]
    assert lines["main process, mapped file"] == mapped
    assert {line.get_label() for line in seconds.lines} == {"annotation file", "index"}
