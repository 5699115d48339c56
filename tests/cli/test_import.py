"""``vidpool import``, run as a user would, and what the other commands do with its output."""

import json
from pathlib import Path

import pytest
import torch

from vidpool.cli import main
from vidpool.models import create_model

SHARED = Path(__file__).parents[2].parent / "shared" / "videos"


@pytest.fixture
def authors():
    """A file as the SRTG authors save them, of six classes and width 4."""
    torch.manual_seed(0)
    model = create_model("srtg_r3d_34", num_classes=6, width=4)
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({"epoch": 7, "state_dict": state, "optimizer": {"state": {}}}, "theirs.pth")
    return "theirs.pth"


def run(path, *options, model="srtg_r3d_34", out="x.ckpt"):
    return main(["import", path, "--model", model, "--width", "4", "--output", out, *options])


def test_what_became_of_the_weights_is_printed(authors, capsys):
    Path("names").write_text("\n".join("abcdef") + "\n")
    assert run(authors, "--bgr", "--classes", "names") == 0
    printed = capsys.readouterr().out
    total = len(create_model("srtg_r3d_34", num_classes=6, width=4).state_dict())
    lines = printed.splitlines()
    assert lines[0].split()[:2] == ["matched", str(total)]
    assert [line.split()[-1] for line in lines[1:4]] == ["0", "0", "0"]
    assert "removed the prefix module." in printed
    assert "swapped the input channels of stem.0.weight" in printed
    assert "left out, since they are no weights: epoch, optimizer" in printed
    assert "preprocessing (of the SRTG authors): frames 16" in printed
    assert "wrote x.ckpt" in printed
    assert "BGR" not in printed
    checkpoint = torch.load("x.ckpt", weights_only=True)
    assert checkpoint["vidpool"]["class_names"] == list("abcdef")
    assert checkpoint["hyper_parameters"]["backbone"] == "srtg_r3d_34"


def test_what_is_not_known_is_said(authors, capsys):
    assert run(authors) == 0
    printed = capsys.readouterr().out
    assert "trained on frames in BGR order: see --bgr" in printed
    assert "called by their numbers" in printed


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared videos are not here")
def test_prediction_on_a_real_video(authors):
    assert run(authors, "--bgr", "--crop", "64", "--short_side", "72", "--clips", "2") == 0
    video = str(SHARED / "real_ucf_style.avi")
    assert main(["predict", "x.ckpt", video, "--output", "out.json"]) == 0
    (found,) = json.loads(Path("out.json").read_text())
    assert {entry["class"] for entry in found["predictions"]} < set("012345")


def test_an_imported_checkpoint_is_tested_and_fine_tuned(authors, recipe, colours, capsys):
    index = (colours / "ucfTrainTestlist/classInd.txt").read_text().splitlines()
    Path("names").write_text("\n".join(line.split()[1] for line in index))
    options = ("--classes", "names", "--pooling", "soft", "--pooling_option", "gradient=paper")
    assert run(authors, *options) == 0
    test = ["test", "--config", str(recipe), "--ckpt_path", "x.ckpt"]
    assert main(test) == 1
    assert "Give the data the mean and std of the classifier" in capsys.readouterr().err
    saved = torch.load("x.ckpt", weights_only=True)["vidpool"]["preprocessing"]
    assert main([*test, *(f"--data.{name}={saved[name]}" for name in ("mean", "std"))]) == 0
    assert run(authors, out="x.pth") == 0
    fine = ["--model.init_from", "x.pth", "--model.backbone", "srtg_r3d_34", "--model.lr", "1e-12"]
    assert main(["fit", "--config", str(recipe), *fine]) == 0
    tuned = torch.load("runs/tiny/fit_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    theirs = torch.load(authors, weights_only=True)["state_dict"]
    torch.testing.assert_close(tuned["model.stem.0.weight"], theirs["module.stem.0.weight"])


def test_what_does_not_fit_is_listed(authors, capsys):
    assert run(authors, model="r3d_34") == 1
    printed = capsys.readouterr().err
    assert "unexpected     128  layer1.0.sar.lstm.weight_ih_l0" in printed
    assert "vidpool import: error: theirs.pth: the backbone does not fit" in printed
    assert not Path("x.ckpt").exists()
    assert run(authors, "--partial", model="r3d_34") == 0
    printed = capsys.readouterr().out
    assert "unexpected     128" in printed
    assert "stay as they were made" not in printed
    assert run("x.ckpt", "--partial", out="back.ckpt") == 0
    assert "128 weights of the backbone stay as they were made" in capsys.readouterr().out


def test_a_fresh_classifier_is_said(authors, capsys):
    assert run(authors, "--num_classes", "9") == 0
    printed = capsys.readouterr().out
    assert "other shape      2  fc.weight (6, 32) for (9, 32), fc.bias (6,) for (9,)" in printed
    assert "the classifier starts fresh (fc.bias, fc.weight)" in printed


def test_files_are_not_overwritten_unasked(authors, capsys):
    Path("x.ckpt").write_text("mine")
    assert run(authors) == 1
    assert "x.ckpt exists; give --overwrite" in capsys.readouterr().err
    assert Path("x.ckpt").read_text() == "mine"
    assert run(authors, "--overwrite") == 0
    assert "state_dict" in torch.load("x.ckpt", weights_only=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", "none"], "none: the classes cannot be read"),
        (["--classes", "twice"], "twice: must hold the name of a class on each line, but 'a'"),
        (["--classes", "few"], "the backbone does not fit"),
        (["--pooling", "soft", "--pooling_option", "paper"], "paper must be NAME=VALUE"),
        (["--pooling", "soft", "--pooling_option", "gradient=odd"], "gradient"),
        (["--crop", "999"], "must not be below the crop (999)"),
    ],
)
def test_mistakes_are_told(authors, capsys, options, message):
    Path("twice").write_text("a\na\n")
    Path("few").write_text("a\nb\n")
    model = "r3d_34" if "few" in options else "srtg_r3d_34"
    assert run(authors, *options, model=model) == 1
    printed = capsys.readouterr().err
    assert "vidpool import: error: " in printed
    assert message in printed
    assert not Path("x.ckpt").exists()


def test_a_file_that_is_no_checkpoint(capsys):
    Path("video.mp4").write_bytes(b"\0\0\0 ftypisom")
    assert run("video.mp4") == 1
    printed = capsys.readouterr().err
    assert printed.startswith("vidpool import: error: video.mp4: cannot be read as a checkpoint")
    assert printed.count("\n") == 1
