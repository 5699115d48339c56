"""``vidpool bench pool --methods`` on shapes so small that it takes no time."""

import json
from pathlib import Path

import pytest

from vidpool.analysis.published import TABLE_3_LATENCY
from vidpool.bench.methods import TABLE_3_CASE
from vidpool.cli import bench_pool, main
from vidpool.cli.bench_methods import published_ratios
from vidpool.nn.registry import POOLING_METHODS

METHODS = ["bench", "pool", "--methods"]
SMALL = ["--shape", "1,2,4,4,4", "--kernel_size", "2", "--rounds", "2"]


@pytest.fixture(autouse=True)
def cold_heap(monkeypatch):
    """Other tests of this process keep their heap as it is."""
    monkeypatch.setattr(bench_pool, "keep_heap_warm", lambda: True)


def test_files_and_table(capsys):
    assert main([*METHODS, "all", *SMALL, "--output", "out.json"]) == 0
    out = json.loads(Path("out.json").read_text())
    assert out["command"].startswith("vidpool bench pool --methods all --shape 1,2,4,4,4")
    assert out["seed"] == 0
    assert {"vidpool", "date", "device_name", "torch", "threads"} <= out.keys()
    (setting,) = out["results"]["settings"]
    assert setting["layout"] == "contiguous"
    assert list(setting["seconds"]) == list(POOLING_METHODS)
    assert setting["ratio_to_average"]["avg"] == {"forward": 1, "backward": 1}
    assert setting["kept_bytes"]["soft"] == 0
    assert setting["peak_bytes"] is None
    assert setting["clock"] == "cpu"
    assert out["results"]["published_ms"]["max"]["cpu_forward"] == 91
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    rows = {line[0]: line for line in lines}
    for name in POOLING_METHODS:
        assert rows[name]
    assert rows["max"][3] == f"{91 / 9:.2f}"
    assert rows["max"][6] == f"{152 / 49:.2f}"
    assert len(rows["lift"]) == len(rows["max"]) - 2  # it is not in the paper


def test_some_methods(capsys):
    assert main([*METHODS, "soft", *SMALL, "--layout", "contiguous", "channels_last"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("Table 3: 1,2,4,4,4") == 2
    assert "gated" not in printed


def test_more_threads_are_timed_by_the_clock(capsys):
    assert main([*METHODS, "soft", *SMALL, "--threads", "2"]) == 0
    assert "time by the clock" in capsys.readouterr().out


def test_the_case_of_table_3_by_default(monkeypatch):
    measured = []

    def instead(methods, case, *options):
        measured.append((methods, case, *options))
        small = TABLE_3_CASE.__class__("small", (1, 2, 4, 4), (2,))
        return measure(methods, small, *options[:-1], rounds=1)

    measure = bench_pool.measure_methods
    monkeypatch.setattr(bench_pool, "measure_methods", instead)
    assert main([*METHODS, "max", "soft"]) == 0
    assert measured == [
        (["max", "soft"], TABLE_3_CASE, "contiguous", "float32", "randn", "cpu", None)
    ]


def test_the_papers_ratios():
    cpu, cuda = published_ratios("cpu"), published_ratios("cuda")
    assert cpu.keys() == cuda.keys() == TABLE_3_LATENCY.keys()
    assert cpu["avg"] == {"forward": 1, "backward": 1}
    assert cpu["soft"] == {"forward": 31 / 9, "backward": 156 / 49}
    assert cuda["dpp"] == {"forward": 634 / 14, "backward": 1228 / 76}


def test_soft_pooling_that_fails_is_a_failure(monkeypatch, capsys):
    def none(*_, **__):
        raise RuntimeError("broken")

    monkeypatch.setattr("vidpool.nn.softpool.soft_pool", none)
    assert main([*METHODS, "soft", *SMALL]) == 1
    assert "none: soft: broken" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["softmax"], "--methods softmax: there are soft, max, avg, "),
        (["all", "--compile"], "leave --methods out"),
        (["all", "--case", "huge"], "case 'huge' is unknown; there are "),
        (["all", "--output", "out.txt"], "out.txt: --output must end in .json"),
    ],
)
def test_mistakes_are_told(capsys, options, message):
    assert main([*METHODS, *options]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("vidpool bench: error: ")
    assert message in printed


def test_files_are_not_overwritten_unasked(capsys):
    Path("out.png").write_text("mine")
    assert main([*METHODS, "soft", *SMALL, "--output", "out.json"]) == 1
    assert "out.png exists; give --overwrite" in capsys.readouterr().err
    assert Path("out.png").read_text() == "mine"
