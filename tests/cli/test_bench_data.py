"""``vidpool bench data`` on small videos."""

import json

import pytest

from vidpool.cli import main

QUICK = ["--clips", "6", "--rounds", "1", "--num_workers", "1"]


def test_a_data_set_of_a_config(recipe, tmp_path, capsys):
    out = tmp_path / "result.json"
    command = ["bench", "data", "--config", str(recipe), "--step_ms", "1e6", "--output", str(out)]
    assert main([*command, *QUICK]) == 0
    told = capsys.readouterr().out
    assert "UCF101DataModule: a step of 1e+06 ms needs 0.006 clips/s; 1 worker brings" in told
    (case,) = json.loads(out.read_text())["results"]
    assert set(case["seconds_a_clip_by_stage"]) >= {"read", "decode", "transform", "collate"}
    assert case["loaders"][0]["clips_a_second"] > 0
    assert out.with_suffix(".png").stat().st_size > 10_000


def test_files_one_by_one(colours, capsys):
    files = sorted(map(str, colours.glob("Red/*")))[:2]
    assert main(["bench", "data", "--files", *files, "--no_peer", *QUICK]) == 0
    told = capsys.readouterr().out
    for name in ("v_Red_g01_c01.avi", "v_Red_g02_c01.mp4"):
        assert f"{name}: a step of 250 ms needs 64 clips/s" in told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "needs --config FILE, or --files"),
        (["--files", "none.mp4"], "none.mp4: no such file"),
        (["--files", "a.mp4", "--clips", "0"], "--clips must be at least 1, got 0"),
        (["--files", "a.mp4", "--step_ms", "nan"], "--step_ms must be at least 0.001, got nan"),
        (
            ["--files", "a.mp4", "--num_workers", "1", "0"],
            "--num_workers must be at least 1, got 0",
        ),
    ],
)
def test_mistakes_are_told(options, told, capsys):
    assert main(["bench", "data", *options]) == 1
    assert told in capsys.readouterr().err
