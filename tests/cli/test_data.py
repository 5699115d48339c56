"""``vidpool data`` on real video files: prepare, shard, and each layout from check to test."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tables import read_csv
from trees import HACS_FORMS, Videos, make_hacs, make_kinetics, make_video_folder

from vidpool.cli import main
from vidpool.data.datasets.ucf101 import UCF101DataModule

ROOT = Path(__file__).parents[2]
SMALL = {
    "frames": 4,
    "stride": 2,
    "crop": 32,
    "short_side": 36,
    "batch_size": 4,
    "test_clips": 2,
    "test_crops": 1,
    "num_workers": 0,
}
MODEL = {"backbone": "r3d_18", "width": 4, "lr": 0.001, "lr_schedule": "constant"}
TRAINER = {
    "accelerator": "cpu",
    "max_epochs": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return Videos(tmp_path_factory.mktemp("made"))


def write_recipe(folder, data, name="data.yaml", **options):
    """A recipe whose part with the data is that of `configs/data`, but for size and paths."""
    content = yaml.safe_load((ROOT / "configs" / "data" / name).read_text())
    content["data"]["init_args"] |= SMALL | options
    content |= {"model": MODEL, "trainer": TRAINER, "run": {"name": "x"}}
    path = folder / f"{data}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def fit_and_test(path, *options):
    command = ["--config", str(path), *options]
    assert main(["fit", *command]) == 0
    run = max(Path("runs/x").glob("fit_*"))
    assert main(["test", *command, "--ckpt_path", str(run / "checkpoints/last.ckpt")]) == 0
    (row,) = [row for row in read_csv(run / "metrics.csv") if row["train/loss"]]
    assert float(row["train/loss"]) > 0
    assert float(row["train/bad_clips"]) == 0
    return json.loads(Path("runs/x/test_0/metrics.json").read_text())


def test_prepare_a_data_set_and_read_it(colours, tmp_path, capsys):
    source = tmp_path / "source"
    source.mkdir()
    for folder in colours.iterdir():
        (source / folder.name).symlink_to(folder)
    (source / "Red" / "broken.mp4").write_text("no video")
    target = tmp_path / "target"
    try:
        assert main(["data", "prepare", str(source), str(target), "--num_workers", "1"]) == 1
    finally:
        (source / "Red" / "broken.mp4").unlink()
    told = capsys.readouterr()
    assert told.out == f"{target}: 30 videos prepared, 0 were there already\n"
    assert "1 could not be prepared" in told.err
    assert "Red/broken.mp4: is not a video" in told.err
    assert main(["data", "prepare", str(source), str(target), "--shard", "1/2"]) == 0
    assert "0 videos prepared, 15 were there already" in capsys.readouterr().out
    prepared = UCF101DataModule(str(target), lists=str(colours / "ucfTrainTestlist"))
    assert len(prepared.videos("train")) == 18
    assert all(video.path.endswith(".mp4") for video in prepared.videos("train"))


def test_mistakes_of_prepare_are_told(tmp_path, capsys):
    assert main(["data", "prepare", str(tmp_path / "none"), str(tmp_path / "target")]) == 1
    assert f"{tmp_path / 'none'}: no such folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["data", "prepare", "a", "b", "--shard", "3"])
    assert "'3' is not of the form I/N" in capsys.readouterr().err


def test_shard_a_data_set_and_train_on_it(recipe, tmp_path, capsys):
    pytest.importorskip("webdataset")
    out = tmp_path / "shards"
    command = ["data", "shard", "--config", str(recipe), "--output", str(out), "--num_workers", "1"]
    assert main(command) == 0
    told = f"{out}: 2 shards written, 0 were there already\ntrain: 18 videos, test: 12 videos\n"
    assert capsys.readouterr().out == told
    config = yaml.safe_load(recipe.read_text())
    options = config["data"]["init_args"]
    del options["root"]
    config["data"] = {"class_path": "ShardDataModule", "init_args": {**options, "shards": str(out)}}
    (tmp_path / "shards.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(tmp_path / "shards.yaml")]) == 0
    checkpoint = next(tmp_path.glob("runs/tiny/fit_0/checkpoints/last.ckpt"))
    options = ["--config", str(tmp_path / "shards.yaml"), "--ckpt_path", str(checkpoint)]
    assert main(["test", *options]) == 0


def test_check_in_processes_and_train_with_the_index(videos, tmp_path, capsys):
    root = make_video_folder(tmp_path / "my videos", videos)
    broken = root / "train" / "jump" / "-'ü.mp4"
    broken.write_text("not a video")
    path = write_recipe(tmp_path, "mine", "video_folder.yaml", root=str(root))
    assert main(["data", "check", "--config", str(path), "--num_workers", "1"]) == 0
    folder = Path("checks") / "my videos"
    assert f"wrote {folder / 'index.safetensors'}" in capsys.readouterr().out
    (problem,) = [r for r in read_csv(folder / "problems.csv") if r["problem"] == "unreadable"]
    assert problem["path"] == str(broken)

    index = ["--data.index", str(folder / "index.safetensors")]
    assert main(["fit", "--config", str(path), *index]) == 1
    assert f"error: {broken}: cannot be read" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="1 of the 5 train videos are missing or bad"):
        metrics = fit_and_test(
            path, *index, "--data.on_bad_video", "skip", "--data.max_bad_share", "0.2"
        )
    assert metrics["videos"] == 4
    # a second check reads the broken file alone
    assert main(["data", "check", "--config", str(path), *index, "--num_workers", "1"]) == 0
    assert "1 files were read by this run" in capsys.readouterr().out


def test_check_says_what_cannot_be(videos, tmp_path, capsys):
    root = make_video_folder(tmp_path / "v", videos)
    path = write_recipe(tmp_path, "mine", "video_folder.yaml", root=str(root))
    assert main(["data", "check", "--config", str(path), "--num_workers", "0"]) == 1
    assert "--num_workers must be at least 1, got 0" in capsys.readouterr().err
    assert main(["data", "check"]) == 1
    assert "needs --config" in capsys.readouterr().err
    options = ["--data.index", "none.safetensors"]
    assert main(["fit", "--config", str(path), *options]) == 1
    assert "none.safetensors: no such index file; make it with" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("layout", HACS_FORMS)
def test_hacs(videos, tmp_path, layout):
    annotations = make_hacs(tmp_path / "hacs", videos, layout, underscores=layout != "trimmed")
    options = {"root": str(tmp_path / "hacs"), "annotations": str(annotations)}
    path = write_recipe(tmp_path, "hacs", "hacs.yaml", **options)
    assert fit_and_test(path)["videos"] == 12


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kinetics700.yaml", "kinetics700_2020.yaml"])
@pytest.mark.parametrize(("flat", "underscores"), [(True, False), (False, False), (False, True)])
@pytest.mark.filterwarnings("ignore:the test videos have no labels")
def test_kinetics(videos, tmp_path, name, flat, underscores):
    annotations = make_kinetics(tmp_path / "k700", videos, flat, underscores)
    options = {"root": str(tmp_path / "k700"), "annotations": str(annotations)}
    path = write_recipe(tmp_path, "k700", name, **options)
    assert fit_and_test(path)["videos"] == 6


@pytest.mark.slow
def test_ucf101(colours, tmp_path):
    path = write_recipe(tmp_path, "ucf", "ucf101.yaml", root=str(colours))
    assert fit_and_test(path)["videos"] == 12


def gone(group, seconds):
    """Whether no process of a group is left, but for what may take some seconds to end."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_an_interrupted_check_goes_on(videos, tmp_path):
    """Ctrl-C, as a terminal sends it to all processes of the command."""
    root = make_video_folder(tmp_path / "v", videos, each=150)
    path = write_recipe(tmp_path, "mine", "video_folder.yaml", root=str(root))
    command = [sys.executable, "-m", "vidpool", "data", "check", "--config", str(path)]
    command += ["--num_workers", "2"]
    run = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    notes = Path("checks/v/files.jsonl")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (
        notes.exists() and len(notes.read_bytes().splitlines()) > 20
    ):
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    _, printed = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "repeat the command to continue" in printed
    assert "Traceback" not in printed
    assert gone(run.pid, seconds=20)
    done = len(notes.read_text().splitlines()) - 1
    assert 20 <= done < 900
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert f"{900 - done} files were read by this run" in again.stdout.replace(",", "")
