"""``vidpool bench pool`` on shapes so small that it takes no time; the times are not looked at."""

import json
from pathlib import Path

import pytest
import torch

from vidpool.bench.cases import CASES
from vidpool.cli import bench_pool, main

SMALL = ["bench", "pool", "--shape", "1,2,4,4,4", "--kernel_size", "2", "--rounds", "2"]


@pytest.fixture(autouse=True)
def cold_heap(monkeypatch):
    """Other tests of this process keep their heap as it is."""
    monkeypatch.setattr(bench_pool, "keep_heap_warm", lambda: True)


@pytest.fixture
def measured(monkeypatch):
    """The arguments of what would be measured, in order."""
    calls = []
    measure = bench_pool.measure_pools

    def instead(case, *options):
        calls.append((case, *options))
        # one real measurement stands for all
        return measure(CASES["tiny_8x4_k2"], *options[:-2], rounds=1)

    monkeypatch.setattr(bench_pool, "measure_pools", instead)
    return calls


def test_files_and_table(capsys):
    threads = torch.get_num_threads()
    options = ["--case", "tiny_8x4_k2", "--dtype", "float32", "float64", "--threads", "2"]
    assert main([*SMALL, *options, "--output", "out.json"]) == 0
    assert torch.get_num_threads() == threads
    out = json.loads(Path("out.json").read_text())
    assert out["threads"] == 2
    assert out["heap_kept_warm"] is True
    assert out["torch"] == torch.__version__
    assert {"date", "device_name", "vidpool", "cpu_capability"} <= out.keys()
    assert [
        (case["case"]["name"], case["layout"], case["dtype"], case["values"])
        for case in out["results"]
    ] == [
        (name, layout, dtype, "randn")
        for name in ("tiny_8x4_k2", "1x2x4x4x4_k2")
        for layout in ("contiguous", "channels_last")
        for dtype in ("float32", "float64")
    ]
    for case in out["results"]:
        assert case["seconds"].keys() == {"clone", "soft", "max", "avg", "reference"}
        assert case["none"] == {}
        for times in case["seconds"]["soft"].values():
            assert len(times["rounds"]) == 2
            assert times["lower_quartile"] <= times["median"] <= times["upper_quartile"]
    own = out["results"][-1]["case"]
    assert (own["shape"], own["kernel_size"], own["stride"]) == ([1, 2, 4, 4, 4], [2], [2])
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")

    printed = capsys.readouterr().out
    assert "CPU threads: 2" in printed
    assert printed.count("1x2x4x4x4_k2") == 4
    assert "wrote out.json" in printed
    assert "wrote out.png" in printed


def test_a_column_without_a_kernel_says_none(monkeypatch, capsys):
    def none(*_, **__):
        raise NotImplementedError("no kernel for float32")

    monkeypatch.setattr(torch.nn.functional, "avg_pool3d", none)
    assert main([*SMALL, "--output", "out.json"]) == 0
    printed = capsys.readouterr().out
    assert "none: avg of float32: no kernel for float32" in printed
    assert printed.count(" none ") >= 4  # forward and forward + backward, two layouts
    case = json.loads(Path("out.json").read_text())["results"][0]
    assert case["none"]["avg"]["forward"] == "no kernel for float32"
    assert "avg" not in case["seconds"]


@pytest.mark.parametrize(
    ("compiled", "said"), [({"cpu"}, "compiled kernels"), ({"cuda"}, "plain PyTorch")]
)
def test_who_computes_is_said(monkeypatch, capsys, compiled, said):
    monkeypatch.setattr("vidpool.bench.timing.COMPILED", compiled)
    assert main([*SMALL, "--output", "out.json"]) == 0
    assert f"SoftPool: {said}" in capsys.readouterr().out
    assert json.loads(Path("out.json").read_text())["compiled_kernels"] is ("cpu" in compiled)


def test_soft_pooling_that_fails_is_a_failure(monkeypatch, capsys):
    def none(*_, **__):
        raise RuntimeError("broken")

    monkeypatch.setattr("vidpool.ops.soft_pool3d", none)
    assert main(SMALL) == 1
    assert "none: soft of float32: broken" in capsys.readouterr().out


def test_all_cases_by_default(measured):
    assert main(["bench", "pool", "--layout", "contiguous", "contiguous"]) == 0
    assert [case for case, *_ in measured] == list(CASES.values())
    assert {tuple(options) for _, *options in measured} == {
        ("contiguous", "float32", "randn", "cpu", None, False)
    }


def test_settings_are_combined(measured):
    options = ["--case", "tiny_8x4_k2", "--case", "64x8x56_k3", "--case", "tiny_8x4_k2"]
    options += ["--values", "wide", "offset", "--dtype", "bfloat16", "--rounds", "3", "--compile"]
    assert main(["bench", "pool", *options]) == 0
    assert measured == [
        (CASES[name], layout, "bfloat16", values, "cpu", 3, True)
        for name in ("tiny_8x4_k2", "64x8x56_k3")
        for layout in ("contiguous", "channels_last")
        for values in ("wide", "offset")
    ]


@pytest.mark.parametrize(
    ("options", "name", "window"),
    [
        (
            ["2,3,5", "--kernel_size", "3", "--stride", "1"],
            "2x3x5_k3s1",
            ((3,), (1,), (0,)),
        ),
        (
            ["2,3,5,6", "--kernel_size", "3,2", "--padding", "1,0"],
            "2x3x5x6_k3.2p1.0",
            ((3, 2), (3, 2), (1, 0)),
        ),
        (
            ["2,3,5,6,7", "--kernel_size", "3", "--stride", "2", "--padding", "1"],
            "2x3x5x6x7_k3s2p1",
            ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
        ),
    ],
)
def test_a_shape_of_ones_own(measured, options, name, window):
    assert main(["bench", "pool", "--layout", "contiguous", "--shape", *options]) == 0
    ((case, *_),) = measured
    assert case.name == name
    assert case.window[:3] == window


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_no_number_is_lost_on_a_narrow_terminal(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    assert main(SMALL) == 0
    lost = "…" in capsys.readouterr().out
    assert lost == (columns == "40")  # where not even the numbers have room


def test_files_are_not_overwritten_unasked(capsys):
    for name in ("out.json", "out.png"):
        Path(name).write_text("mine")
        assert main([*SMALL, "--output", "out.json"]) == 1
        assert f"{name} exists; give --overwrite" in capsys.readouterr().err
        assert Path(name).read_text() == "mine"
        if name == "out.json":
            Path(name).unlink()
    assert main([*SMALL, "--output", "out.json", "--overwrite"]) == 0
    assert json.loads(Path("out.json").read_text())["results"]
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--case", "huge"], "case 'huge' is unknown; there are 64x16x112_k2, "),
        (["--shape", "1,2,4"], "--shape 1,2,4 needs --kernel_size"),
        (["--shape", "1,2,x", "--kernel_size", "2"], "--shape 1,2,x must be whole numbers"),
        (["--shape", "1,2,4", "--kernel_size", "9" * 20], "must be whole numbers below 2^31"),
        (["--shape", "1,2,4", "--kernel_size", "5"], "shape 1,2,4 cannot be pooled with"),
        (["--shape", "1,2", "--kernel_size", "2"], "shape 1,2 cannot be pooled; give N,C,T"),
        (["--kernel_size", "2"], "--kernel_size 2 is for --shape"),
        (["--padding", "0"], "--padding 0 is for --shape"),
        (["--rounds", "0"], "rounds must be at least 1, got 0"),
        (["--threads", "-1"], "threads must be at least 1, got -1"),
        (["--output", "out.txt"], "out.txt: --output must end in .json"),
        (["--output", "none/out.json"], "none: no such folder"),
    ],
)
def test_mistakes_are_told(capsys, measured, options, message):
    assert main(["bench", "pool", *options]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("vidpool bench: error: ")
    assert message in printed
    assert measured == []


def test_a_gpu_that_is_not_there(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([*SMALL, "--device", "cuda"]) == 1
    assert "device 'cuda' cannot be used" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(capsys):
    assert main([*SMALL, "--device", "cuda", "--output", "out.json"]) == 0
    out = json.loads(Path("out.json").read_text())
    assert out["device_name"] == torch.cuda.get_device_name()
    assert out["heap_kept_warm"] is None
    assert out["results"][0]["peak_bytes"]["clone"]["forward"] >= 512  # its allocator's block
    assert "MiB" in capsys.readouterr().out
