"""``vidpool eval`` on real files."""

import csv
import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from matplotlib.image import imread
from PIL import Image

from vidpool.cli import main

pytest.importorskip("skimage")


@pytest.fixture
def urban(tmp_path):
    """A folder called as one of the paper's sets, with two crops of a photograph."""
    from vidpool.analysis.images import photographs

    folder = tmp_path / "urban100" / "HR"
    folder.mkdir(parents=True)
    photograph = Image.open(photographs()[0])
    for left in (0, 150):
        photograph.crop((left, 100, left + 121, 221)).save(folder / f"{left}.png")
    return folder


def test_similarity_measures_beside_the_papers_values(urban, tmp_path, capsys):
    command = [
        "eval",
        "similarity",
        str(urban),
        "--methods",
        "soft",
        "max",
        "lp",
        "--num_workers",
        "1",
    ]
    command += ["--train_folder", str(urban), "--train_steps", "3", "--output", "out.json"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "2 images; the paper's values below: Urban100" in printed
    assert "0.694" in printed  # the paper's SSIM of SoftPool, k = 2
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["command"].startswith("vidpool eval similarity ")
    assert content["seed"] == 0
    rows = {(row["method"], row["k"]): row for row in content["results"]["means"]}
    assert len(rows) == 9
    soft = rows["soft", 2]
    assert (soft["published_ssim"], soft["published_psnr"]) == (0.694, 50.687)
    assert soft["ssim"]["mean"] > rows["max", 2]["ssim"]["mean"]
    assert f"{soft['ssim']['mean']:.4f} ± {soft['ssim']['half_width_95']:.4f}" in printed
    assert rows["lp", 2]["trained"]
    assert set(content["results"]["training_losses"]) == {"lp 2", "lp 3", "lp 5"}
    assert imread("out.png").std() > 0.05
    assert main(command) == 1
    assert "out.json exists; give --overwrite" in capsys.readouterr().err


def test_similarity_tells_what_it_left_out(urban, capsys):
    (urban / "broken.jpg").write_bytes(b"nothing")
    command = ["eval", "similarity", str(urban), "--methods", "avg", "lip", "--kernels", "4"]
    assert main([*command, "--num_workers", "1", "--dataset", "DIV2K"]) == 1
    printed = capsys.readouterr().out
    assert "lip (untrained)" in printed
    assert "broken.jpg: cannot be read as an image" in printed.replace("\n", "")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["similarity", "nowhere"], "nowhere: no such file or folder"),
        (["similarity", "--limit", "0"], "--limit must be at least 1, got 0"),
        (["similarity", "--kernels", "0"], "at least 1 pixel, got k = 0"),
        (["similarity", "--methods", "lift", "--kernels", "3"], "LiftPool halves an axis"),
        (["similarity", "--output", "x.txt"], "x.txt: --output must end in .json"),
        (["mcnemar"], "give two predictions.csv, or --counts ONLY_A ONLY_B, or --paper"),
        (["mcnemar", "a.csv"], "give two predictions.csv"),
        (["mcnemar", "a.csv", "b.csv"], "a.csv: cannot be read (No such file or directory)"),
        (["mcnemar", "--counts", "-1", "2"], "must not be negative"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys, options, told):
    assert main(["eval", *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_values_stand_beside_those_of_the_innermost_folder(urban, tmp_path, capsys):
    other = tmp_path / "Urban100_and_DIV2K" / "manga109"
    shutil.copytree(urban, other)
    options = ["--methods", "soft", "--kernels", "2", "--num_workers", "1"]
    for folders, told in (
        ([other], "below: Manga109"),
        ([other, urban], "that is of other images"),
    ):
        assert main(["eval", "similarity", *map(str, folders), *options]) == 0
        assert told in " ".join(capsys.readouterr().out.split())


def test_results_that_cannot_be_written(monkeypatch, tmp_path, capsys):
    command = ["eval", "mcnemar", "--counts", "1", "2", "--output", str(tmp_path / "out.json")]

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        assert main(command) == 1
    assert "out.json: cannot be written (No space left on device)" in capsys.readouterr().err
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert main(command) == 1
    captured = capsys.readouterr()
    assert "you may not write to this folder" in captured.err
    assert not captured.out  # before anything was computed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seed", ["-1", "4294967296", "1.5", "9" * 30])
def test_seeds_that_not_all_libraries_take(seed, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["eval", "similarity", "--seed", seed])
    assert f"{seed} is no whole number from 0 to 4294967295" in capsys.readouterr().err


def test_mcnemar_of_two_runs(tmp_path, capsys):
    for name, right in (("a", 30), ("b", 2)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["path", "label", "predicted"])
            rows.writerows([f"{i}.mp4", "x", "x" if i < right else "y"] for i in range(40))
    assert main(["eval", "mcnemar", "a.csv", "b.csv", "--output", "m.json"]) == 0
    printed = capsys.readouterr().out
    assert "chi-square 26.04, p = 3.35e-07" in printed
    content = json.loads((tmp_path / "m.json").read_text())["results"]
    assert content["counts"] == {"both": 2, "only_a": 28, "only_b": 0, "neither": 10}
    assert imread("m.png").std() > 0.05


def test_table_4_anew(capsys):
    assert main(["eval", "mcnemar", "--paper", "--output", "t.json"]) == 0
    printed = capsys.readouterr().out
    assert "2.37e-153" in printed
    assert "ResNeXt101 32x8d: Table 4's p-value 2.36e-53 should be 2.37e-153" in printed
    assert len(json.load(open("t.json"))["results"]) == 13  # noqa: PTH123, SIM115


def test_table_7_of_a_real_test(recipe, trained, tmp_path, capsys):
    command = ["test", "--config", str(recipe), "--run.name", "mine"]
    assert main([*command, "--ckpt_path", str(trained / "checkpoints/last.ckpt")]) == 0
    capsys.readouterr()
    assert main(["eval", "table7", "runs/mine", "--output", "t7.json"]) == 0
    printed = capsys.readouterr().out
    assert "r3d_18, width 4, soft pooling" in printed
    assert "12 videos, 9 views of 4x32x32" in printed
    assert "(84.78, 97.72)" in printed  # the paper's best on HACS
    content = json.loads((tmp_path / "t7.json").read_text())["results"]
    (run,) = content["runs"]
    published = {row["method"]: row["accuracies"] for row in content["published"]}
    assert published["SRTG r(2+1)d-50 with SoftPool"]["HACS"] == {"top1": 84.78, "top5": 97.72}
    metrics = json.loads((tmp_path / "runs/mine/test_0/metrics.json").read_text())
    assert run["top1"] == pytest.approx(100 * metrics["top1"])
    assert run["multiply_adds"]["paper"] > run["multiply_adds"]["conv_linear"] > 0
    assert imread("t7.png").std() > 0.05
    assert main(["eval", "mcnemar", "runs/mine/test_0", "runs/mine/test_0"]) == 0
    assert "chi-square 0.00, p = 1" in capsys.readouterr().out
    assert main(["eval", "table7", "nowhere"]) == 1
    assert "nowhere: no such folder" in capsys.readouterr().err
    shutil.copytree("runs/mine/test_0", "runs/cut/test_0")
    (tmp_path / "runs/cut/test_0/metrics.json").write_text("{")
    assert main(["eval", "table7", "runs"]) == 1  # without what is broken, which is said
    printed = capsys.readouterr().out
    assert "12 videos, 9 views of 4x32x32" in printed
    assert "left out: runs/cut/test_0/metrics.json: is not valid JSON" in printed
    assert main(["eval", "table7", "runs/cut"]) == 1
    assert "none of 1 tests can be read: runs/cut/test_0" in capsys.readouterr().err
