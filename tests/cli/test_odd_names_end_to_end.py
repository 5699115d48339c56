"""From training to export with names of classes, files and runs that are odd or not UTF-8."""

import csv
import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from vidpool.cli import main
from vidpool.cli.configs import load_yaml
from vidpool.cli.predict import _save
from vidpool.errors import ConfigError
from vidpool.files import open_text
from vidpool.inference.predictor import Prediction

NOT_UTF8 = os.fsdecode(b"caf\xe9")
# pytest-xdist cannot send warnings that name such files
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def tree(colours, tmp_path):
    """Two classes of two videos each for training and validation; one has a class without UTF-8."""
    root = tmp_path / os.fsdecode(b"dat\xe4")
    for split in ("train", "val"):
        for name, colour in ((NOT_UTF8, "Red"), ("[b] 跑,\n步", "Blue")):
            (root / split / name).mkdir(parents=True)
            for group in (2, 4):
                source = colours / colour / f"v_{colour}_g{group:02d}_c01.mp4"
                shutil.copy(source, root / split / name / f"{NOT_UTF8} {group}.mp4")
    return root


def rows_of(path):
    with open_text(path) as file:
        return list(csv.DictReader(file))


def test_every_command(tree, capsys, caplog):
    settings = {
        "data": {
            "class_path": "VideoFolderDataModule",
            "init_args": {
                **{"frames": 4, "stride": 1, "crop": 32, "short_side": 36, "batch_size": 2},
                **{"num_workers": 0, "test_clips": 1, "test_crops": 1},
            },
        },
        "model": {"backbone": "r3d_18", "width": 4, "lr": 0.01},
        "trainer": {
            **{"accelerator": "cpu", "max_epochs": 1},
            **{"enable_progress_bar": False, "enable_model_summary": False},
        },
    }
    Path("c.yaml").write_text(yaml.safe_dump(settings))
    root = ["--data.root", str(tree)]
    assert main(["fit", "--config", "c.yaml", *root, "--run.name", NOT_UTF8]) == 0
    run = Path("runs") / NOT_UTF8 / "fit_0"
    assert "TensorBoard cannot write here" in caplog.text
    assert load_yaml((run / "config.yaml").read_text("utf-8"))["data"]["init_args"]["root"] == str(
        tree
    )
    ckpt_path = str(run / "checkpoints/last.ckpt")
    checkpoint = ["--ckpt_path", ckpt_path]
    saved = ["--config", str(run / "config.yaml")]

    assert main(["test", *saved, *checkpoint]) == 0
    tested = Path("runs") / NOT_UTF8 / "test_0"
    named = {row["path"] for row in rows_of(tested / "predictions.csv")}
    assert {tree / name for name in named} == set((tree / "val").glob("*/*.mp4"))
    assert {row["class"] for row in rows_of(tested / "per_class.csv")} == {NOT_UTF8, "[b] 跑,\n步"}
    assert json.loads((tested / "run.json").read_bytes())

    output = f"p{NOT_UTF8}"
    for suffix in (".csv", ".json"):
        command = ["predict", ckpt_path, str(tree / "val"), "--output", output + suffix]
        assert main(command) == 0
        printed = capsys.readouterr().out
        assert r"caf\udce9" in printed
        assert r"[b] 跑,\n步" in printed
        assert f"wrote pcaf\\udce9{suffix}" in printed
    files = {entry["file"] for entry in json.loads(Path(f"{output}.json").read_bytes())}
    assert files == {row["file"] for row in rows_of(f"{output}.csv")}
    assert files == set(map(str, (tree / "val").glob("*/*.mp4")))

    checks = f"checks{NOT_UTF8}"
    assert main(["data", "check", "--config", "c.yaml", *root, "--output", checks]) == 0
    index = ["--data.index", f"{checks}/index.safetensors"]
    assert main(["validate", *saved, *checkpoint, *index]) == 0
    exported = f"x{NOT_UTF8}.safetensors"
    assert main(["export", ckpt_path, "--output", exported]) == 0
    assert main(["predict", exported, str(tree / "val")]) == 0
    assert r"caf\udce9" in capsys.readouterr().out


class Cats:
    """A predictor that knows cats; it is interrupted at a second video if told so."""

    def __init__(self, *_, interrupted=True, **__):
        self.left = 1 if interrupted else 99

    def __call__(self, video):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return cat(video)


def cat(path):
    return Prediction(Path(path), ["cat", "dog"], torch.tensor([0.75, 0.25]))


def test_predictions_made_before_an_error_are_kept(tree, monkeypatch, capsys):
    monkeypatch.setattr("vidpool.cli.predict.Predictor", Cats)
    monkeypatch.setattr("vidpool.cli.predict.find_videos", lambda _: [NOT_UTF8, "b", "c", "d"])
    command = ["predict", "any.ckpt", str(tree / "val"), "--output", "p.csv"]
    assert main(command) == 130
    row, other = rows_of("p.csv")
    assert (row["file"], row["class"]) == (NOT_UTF8, "cat")
    assert (other["file"], other["class"]) == (NOT_UTF8, "dog")
    printed = capsys.readouterr()
    assert "wrote p.csv (1 of 4 files)" in printed.out
    assert "cat" in printed.out
    assert "interrupted" in printed.err


def test_predictions_that_cannot_be_written_where_they_should_be(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    predictions = [cat(NOT_UTF8)]
    with pytest.raises(
        ConfigError, match=r"gone/p.csv: cannot be written \(No such file"
    ) as caught:
        _save(tmp_path / "gone/p.csv", predictions, top=1)
    kept = str(caught.value).rpartition("the predictions are in ")[2]
    assert rows_of(kept)[0]["file"] == NOT_UTF8


def test_predictions_are_printed_where_nothing_can_be_written(tree, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vidpool.cli.predict.Predictor", partial(Cats, interrupted=False))
    monkeypatch.setattr("vidpool.cli.predict.write_predictions", full)
    command = ["predict", "any.ckpt", str(tree / "val"), "--output", "p.csv"]
    assert main(command) == 1
    printed = capsys.readouterr()
    assert "cat" in printed.out
    assert "p.csv: cannot be written (No space left on device); the predictions are printed" in (
        printed.err
    )
