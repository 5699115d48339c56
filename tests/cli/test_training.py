"""``vidpool fit | validate | test`` on real video files, run as a user would."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tables import read_csv

from vidpool.cli import main
from vidpool.train.run_folder import new_run_folder


def fit(recipe, *options):
    return main(["fit", "--config", str(recipe), *options])


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def last(name, folder="runs/tiny"):
    return f"{folder}/{name}/checkpoints/last.ckpt"


def assert_same_weights(first, second):
    first, second = weights(first), weights(second)
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def test_fit_leaves_checkpoints_logs_and_config(trained):
    checkpoints = sorted(path.name for path in (trained / "checkpoints").iterdir())
    assert checkpoints == ["best.ckpt", "last.ckpt"]
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["model"]["width"] == 4
    assert config["data"]["init_args"]["crop"] == 32
    rows = read_csv(trained / "metrics.csv")
    top1 = [float(row["val/top1"]) for row in rows if row["val/top1"]]
    assert len(top1) == 24
    assert top1[-1] > 0.8  # the classes are colours: chance is 0.17
    assert list(trained.glob("events.out.tfevents.*"))


def test_the_last_checkpoint_is_of_the_last_epoch(recipe):
    # a rate too small to change anything: no epoch is better than the first
    options = ["--model.lr", "1e-12", "--trainer.check_val_every_n_epoch", "2"]
    assert fit(recipe, "--trainer.max_epochs", "3", *options) == 0
    assert torch.load(last("fit_0"), weights_only=True)["epoch"] == 2


def test_checkpoint_loads_safely_and_says_what_prediction_needs(trained):
    checkpoint = torch.load(trained / "checkpoints/last.ckpt", weights_only=True)
    described = checkpoint["vidpool"]
    assert described["class_names"][:2] == ["Red", "Green"]
    assert described["preprocessing"]["crop"] == 32
    assert checkpoint["hyper_parameters"]["backbone"] == "r3d_18"


def test_the_same_seed_gives_the_same_weights_whatever_the_workers(recipe):
    assert fit(recipe) == 0
    assert fit(recipe, "--data.num_workers", "2") == 0
    assert fit(recipe, "--seed_everything", "2") == 0
    assert_same_weights(last("fit_0"), last("fit_1"))
    first, other = weights(last("fit_0")), weights(last("fit_2"))
    assert not torch.equal(first["model.fc.weight"], other["model.fc.weight"])


def test_the_saved_config_makes_the_run_again(recipe):
    assert fit(recipe) == 0
    assert fit("runs/tiny/fit_0/config.yaml") == 0
    assert_same_weights(last("fit_0"), last("fit_1"))


def test_a_resumed_run_ends_as_an_uninterrupted_one(recipe):
    assert fit(recipe, "--trainer.max_epochs", "2") == 0
    assert fit(recipe, "--trainer.max_epochs", "1") == 0
    assert fit(recipe, "--trainer.max_epochs", "2", "--ckpt_path", last("fit_1")) == 0
    assert_same_weights(last("fit_0"), last("fit_2"))


def test_a_resumed_run_keeps_what_the_command_line_says(recipe, trained):
    options = ["--ckpt_path", str(trained / "checkpoints/last.ckpt"), "--model.lr", "0.001"]
    assert fit(recipe, "--trainer.max_epochs", "25", *options) == 0
    config = yaml.safe_load(Path("runs/tiny/fit_0/config.yaml").read_text())
    assert config["model"]["lr"] == 0.001
    rows = read_csv("runs/tiny/fit_0/metrics.csv")
    rates = [float(row["lr"]) for row in rows if row["lr"]]
    assert rates == pytest.approx([0.001] * len(rates))
    assert rates


def test_a_resumed_optimiser_takes_the_present_settings(recipe, trained):
    options = ["--ckpt_path", str(trained / "checkpoints/last.ckpt")]
    options += ["--model.weight_decay", "0.3", "--trainer.max_epochs", "25"]
    assert fit(recipe, *options) == 0
    (optimizer,) = torch.load(last("fit_0"), weights_only=True)["optimizer_states"]
    assert [group["weight_decay"] for group in optimizer["param_groups"]] == [0.3, 0]


def test_another_optimiser_cannot_resume(recipe, trained, capsys):
    options = ["--ckpt_path", str(trained / "checkpoints/last.ckpt"), "--model.optimizer", "sgd"]
    assert fit(recipe, *options) == 1
    assert "optimizer is 'adamw' in the checkpoint and 'sgd' here" in capsys.readouterr().err


def test_without_a_logger_reports_still_go_to_the_runs_folder(recipe, trained):
    command = ["test", "--config", str(recipe), "--trainer.logger", "false"]
    assert main([*command, "--ckpt_path", str(trained / "checkpoints/last.ckpt")]) == 0
    assert Path("runs/tiny/test_0/metrics.json").is_file()
    assert [path.name for path in Path().iterdir()] == ["runs"]


def test_test_writes_its_report(recipe, trained):
    command = ["test", "--config", str(recipe), "--model.width", "64"]  # the checkpoint's is 4
    assert main([*command, "--ckpt_path", str(trained / "checkpoints/last.ckpt")]) == 0
    metrics = json.loads(Path("runs/tiny/test_0/metrics.json").read_text())
    assert metrics["videos"] == 12
    assert metrics["top5"] >= metrics["top1"] > 0.8
    rows = read_csv("runs/tiny/test_0/per_class.csv")
    assert [row["class"] for row in rows][:2] == ["Red", "Green"]
    assert sum(int(row["correct"]) for row in rows) == round(metrics["top1"] * 12)
    picture = Path("runs/tiny/test_0/confusion_matrix.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    videos = read_csv("runs/tiny/test_0/predictions.csv")
    assert len({row["path"] for row in videos}) == 12
    assert all(row["path"].startswith(row["label"] + "/v_") for row in videos)
    right = [row["label"] == row["predicted"] for row in videos]
    assert sum(right) == round(metrics["top1"] * 12)
    assert [row["label_rank"] == "1" for row in videos] == right
    assert sum(int(row["label_rank"]) <= 5 for row in videos) == round(metrics["top5"] * 12)
    run = json.loads(Path("runs/tiny/test_0/run.json").read_text())
    assert run["network"]["backbone"] == "r3d_18"
    assert run["network"]["width"] == 4
    assert run["data"]["datamodule"] == "UCF101DataModule"
    assert run["data"]["preprocessing"]["crop"] == 32
    assert run["seed"] == 1
    assert " test --config " in run["command"]


def test_validate(recipe, trained, capsys):
    command = ["validate", "--config", str(recipe)]
    assert main([*command, "--ckpt_path", str(trained / "checkpoints/last.ckpt")]) == 0
    assert "val/top1" in capsys.readouterr().out


def test_results_are_the_same_on_two_processes(recipe, trained, tmp_path):
    # the installed command and a recipe with a base: the second process is started with the same
    command = [str(Path(sys.executable).with_name("vidpool")), "test", "--config"]
    based = tmp_path / "based.yaml"
    based.write_text(yaml.safe_dump({"base": [str(recipe)], "run": {"name": "tiny"}}))
    command += [str(based), "--ckpt_path", str(trained / "checkpoints/last.ckpt")]
    command += ["--data.eval_batch_size"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # 36 clips in batches of 5: the views of a video fall on both ranks, and the last batch is short
    for options in (["7"], ["5", "--trainer.devices", "2", "--trainer.strategy", "ddp"]):
        subprocess.run([*command, *options], check=True, env=environment, timeout=300)
    one, two = (json.loads(Path(f"runs/tiny/test_{n}/metrics.json").read_text()) for n in (0, 1))
    assert one["videos"] == two["videos"] == 12
    assert one == pytest.approx(two, rel=1e-5)
    of_one, of_two = (read_csv(f"runs/tiny/test_{n}/predictions.csv") for n in (0, 1))
    assert [row["path"] for row in of_one] == [row["path"] for row in of_two]
    assert len(of_one) == 12
    assert [row["predicted"] for row in of_one] == [row["predicted"] for row in of_two]


@pytest.fixture
def five(colours, tmp_path):
    """Lists of the colours without the last class."""
    lists = tmp_path / "five"
    lists.mkdir()
    for file in (colours / "ucfTrainTestlist").iterdir():
        lines = [line for line in file.read_text().splitlines() if "Yellow" not in line]
        (lists / file.name).write_text("\n".join(lines))
    return lists


def test_fine_tuning_starts_from_the_backbone(recipe, trained, five):
    checkpoint = str(trained / "checkpoints/last.ckpt")
    options = ["--data.lists", str(five), "--model.init_from", checkpoint, "--model.lr", "1e-9"]
    assert fit(recipe, *options) == 0
    before, after = weights(checkpoint), weights(last("fit_0"))
    key = "model.layer4.1.conv2.0.0.weight"
    torch.testing.assert_close(after[key], before[key])
    assert after["model.fc.weight"].shape[0] == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.backbone", "r3d50"], "unknown model 'r3d50'.*r3d_50"),
        (["--model.pooling", "sofd"], "unknown pooling 'sofd'"),
        (["--model.width", "0"], "width"),
        (["--model.lr", "0"], "lr must be positive, got 0"),
        (["--data.frames", "0"], "at least 1 frame, got frames=0"),
        (["--data.stride", "0"], "at least 1 frame, got stride=0"),
        (["--data.crop", "-1"], "at least 1 pixel, got crop=-1"),
        (["--data.crop", "64"], r"the short side \(36\) must not be below the crop \(64\)"),
        (["--data.batch_size", "0"], "batch_size must be at least 1, got 0"),
        (["--data.test_crops", "2"], "1 or 3 crops, got crops=2"),
        (["--data.split", "4"], "splits 1, 2 and 3, got split=4"),
        (["--data.root", "nowhere"], "nowhere: no such folder"),
        (["--data.augment.flip", "2"], "flip must be a probability, got 2"),
        (["--model.pooling_options", "{gradient: papre}"], "gradient must be one of .*'papre'"),
        (
            ["--model.pooling_options", "{gardient: paper}"],
            "unexpected keyword argument 'gardient'",
        ),
        (["--model.backbone_options", "{width: '8'}"], "give width as width"),
        (
            ["--model.backbone_options", "{in_channels: three}"],
            "in_channels must be a whole number, but is 'three'",
        ),
        (["--model.lr_schedule", "step"], "step needs milestones"),
        (
            ["--model.lr_schedule", "cosine", "--trainer.max_epochs", "-1"],
            "needs the trainer's max_epochs",
        ),
        (["--trainer.accelerator", "gpu"], "Lightning cannot run this: .*gpu"),
        (["--trainer.precision", "16-mixed"], "16-mixed does not exist on a CPU; use bf16-mixed"),
        (["--trainer.sync_batchnorm", "true"], "sync_batchnorm needs GPUs"),
        (["--ckpt_path", "none.ckpt"], "none.ckpt: no such checkpoint file"),
        (["--config", "none.yaml"], "none.yaml: no such config file"),
    ],
)
def test_mistakes_are_told_in_one_line(recipe, capsys, options, message):
    assert fit(recipe, *options) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    printed = lines[-2] if lines[-1].startswith("  option: --") else lines[-1]
    assert printed.startswith("vidpool fit: error: ")
    assert re.search(message, printed), printed


def test_an_unknown_option_is_told_without_a_page_of_usage(recipe, capsys):
    with pytest.raises(SystemExit) as stopped:
        fit(recipe, "--model.widht", "8")
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert "widht" in printed
    assert len(printed.splitlines()) < 8


def test_a_checkpoint_of_other_classes_says_how_to_fine_tune(
    recipe, trained, colours, tmp_path, capsys
):
    lists = tmp_path / "fewer"
    lists.mkdir()
    for file in (colours / "ucfTrainTestlist").iterdir():
        lines = [line for line in file.read_text().splitlines() if "Yellow" not in line]
        (lists / file.name).write_text("\n".join(lines))
    checkpoint = str(trained / "checkpoints/last.ckpt")
    assert fit(recipe, "--data.lists", str(lists), "--ckpt_path", checkpoint) == 1
    printed = capsys.readouterr().err
    assert "num_classes is 6 in the checkpoint and 5 here" in printed
    assert "init_from" in printed


def test_classes_in_another_order_are_matched_by_name(recipe, trained, colours, tmp_path, capsys):
    lists = tmp_path / "reordered"
    lists.mkdir()
    for file in (colours / "ucfTrainTestlist").iterdir():
        text = file.read_text()
        if file.name == "classInd.txt":
            text = text.replace("1 Red", "1 X").replace("2 Green", "2 Red").replace("X", "Green")
        elif file.name.startswith("train"):
            text = re.sub(r"(?<= )[12]$", lambda n: str(3 - int(n[0])), text, flags=re.M)
        (lists / file.name).write_text(text)
    checkpoint = str(trained / "checkpoints/last.ckpt")
    command = ["--config", str(recipe), "--ckpt_path", checkpoint]
    assert main(["test", *command]) == 0
    assert main(["test", *command, "--data.lists", str(lists)]) == 0
    for name in ("metrics.json", "per_class.csv", "predictions.csv"):
        first, second = (Path(f"runs/tiny/test_{n}", name).read_text() for n in (0, 1))
        assert first == second
    (lists / "classInd.txt").write_text((lists / "classInd.txt").read_text().replace("Red", "RED"))
    assert main(["test", *command, "--data.lists", str(lists)]) == 1
    told = capsys.readouterr().err
    assert "does not know 1 of the data's classes: 'RED'. Its 6 classes are 'Red', 'Green'" in told
    # a training that goes on is of the same classes in the same order
    assert fit(recipe, "--ckpt_path", checkpoint, "--data.lists", str(lists)) == 1
    assert "class 0 is 'Red' in the checkpoint and 'Green' in the data" in capsys.readouterr().err


def test_a_test_set_of_some_classes(recipe, trained, five):
    command = ["--config", str(recipe), "--ckpt_path", str(trained / "checkpoints/last.ckpt")]
    for verb in ("test", "validate"):
        assert main([verb, *command, "--data.lists", str(five)]) == 0
    metrics = json.loads(Path("runs/tiny/test_0/metrics.json").read_text())
    assert metrics["videos"] == 10
    assert all(math.isfinite(value) for value in metrics.values())
    rows = {row["class"]: row for row in read_csv("runs/tiny/test_0/per_class.csv")}
    assert len(rows) == 6
    assert (rows["Yellow"]["videos"], rows["Yellow"]["accuracy"]) == ("0", "")
    videos = read_csv("runs/tiny/test_0/predictions.csv")
    assert all(row["path"].startswith(row["label"] + "/v_") for row in videos)
    assert Path("runs/tiny/test_0/confusion_matrix.png").is_file()


def test_training_without_validation(recipe, capsys):
    assert fit(recipe, "--trainer.limit_val_batches", "0") == 0
    names = [path.name for path in Path("runs/tiny/fit_0/checkpoints").iterdir()]
    assert names == ["last.ckpt"]
    assert "could not find the monitored key" not in capsys.readouterr().err


def with_a_broken_video(colours, folder, name="Red/v_Red_g03_c01.avi"):
    """A copy of the colours, as links, one of whose videos is a text."""
    for path in colours.rglob("*.*"):
        copy = folder / path.relative_to(colours)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(path)
    broken = folder / name
    broken.unlink()
    broken.write_text("not a video")
    return broken


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_undecodable_video_ends_training_by_its_name(recipe, colours, tmp_path, capsys, workers):
    broken = with_a_broken_video(colours, tmp_path / "copy")
    assert fit(recipe, "--data.root", str(tmp_path / "copy"), "--data.num_workers", workers) == 1
    printed = capsys.readouterr().err.strip().splitlines()[-1]
    assert printed.startswith(f"vidpool fit: error: {broken}: ")


@pytest.mark.parametrize("policy", ["skip", "substitute"])
def test_an_undecodable_video_can_be_done_without_and_is_counted(recipe, colours, tmp_path, policy):
    broken = with_a_broken_video(colours, tmp_path / "copy")
    options = ["--data.root", str(tmp_path / "copy"), "--data.on_bad_video", policy]
    with pytest.warns(UserWarning, match="epoch 0, train: 1 of 18 clips could not be read, such"):
        assert fit(recipe, *options) == 0
    rows = read_csv("runs/tiny/fit_0/metrics.csv")
    assert [float(row["train/bad_clips"]) for row in rows if row["train/bad_clips"]] == [1]
    (listed,) = read_csv("runs/tiny/fit_0/bad_videos.csv")
    assert (listed["epoch"], listed["stage"]) == ("0", "train")
    assert listed["message"].startswith(f"{broken}: ")


def test_more_bad_videos_than_allowed_end_training(recipe, colours, tmp_path, capsys):
    with_a_broken_video(colours, tmp_path / "copy")
    options = ["--data.root", str(tmp_path / "copy"), "--data.on_bad_video", "skip"]
    assert fit(recipe, *options, "--data.max_bad_share", "0.05") == 1
    *_, printed, option = capsys.readouterr().err.strip().splitlines()
    assert "1 of 18 clips could not be read" in printed
    assert "more than max_bad_share (0.05)" in printed
    assert option == "  option: --data.max_bad_share"


def test_an_undecodable_video_can_be_left_out_of_a_test(recipe, trained, colours, tmp_path):
    with_a_broken_video(colours, tmp_path / "copy", "Red/v_Red_g01_c01.avi")
    command = ["test", "--config", str(recipe), "--data.root", str(tmp_path / "copy")]
    command += ["--ckpt_path", str(trained / "checkpoints/last.ckpt")]
    assert main(command) == 1
    with pytest.warns(UserWarning, match="test: 3 of 36 clips could not be read"):
        assert main([*command, "--data.on_bad_video", "substitute"]) == 0
    metrics = json.loads(Path("runs/tiny/test_1/metrics.json").read_text())
    assert metrics["videos"] == 11


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_precisions_of_the_cpu(recipe, precision, request):
    if precision.startswith("bf16"):
        request.getfixturevalue("bfloat16_convolutions")
    assert fit(recipe, "--trainer.precision", precision) == 0
    rows = read_csv("runs/tiny/fit_0/metrics.csv")
    assert all(math.isfinite(float(row["train/loss"])) for row in rows if row["train/loss"])


def test_run_folders_are_never_used_twice(tmp_path):
    names = [new_run_folder(tmp_path / "runs", "fit").name for _ in range(3)]
    assert names == ["fit_0", "fit_1", "fit_2"]


def test_the_authors_augmentation_joins_any_recipe(recipe, capsys):
    part = Path(__file__).parents[2] / "configs/augment/authors.yaml"
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(recipe), "--config", str(part), "--print_config"])
    data = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]
    assert data["augment"]["authors"] == 0.8
    assert data["augment"]["crop"] == "short_side"
    assert data["crop"] == 32


def test_averaged_weights_join_any_recipe(recipe, capsys):
    part = str(Path(__file__).parents[2] / "configs/schedule/ema.yaml")
    options = ["--config", part, "--trainer.max_epochs", "2"]
    assert fit(recipe, *options) == 0
    checkpoint = torch.load(last("fit_0"), weights_only=True)
    current = checkpoint["current_model_state"]["model.fc.weight"]
    assert not torch.equal(checkpoint["state_dict"]["model.fc.weight"], current)
    command = ["test", "--config", str(recipe), "--config", part, "--ckpt_path", last("fit_0")]
    assert main(command) == 0
    assert fit(recipe, "--trainer.max_epochs", "3", "--ckpt_path", last("fit_0")) == 1
    assert "are an average (EMA)" in capsys.readouterr().err


def test_averaged_weights_come_before_precise_batch_norm(recipe):
    parts = Path(__file__).parents[2] / "configs/schedule"
    precise = {"class_path": "vidpool.train.callbacks.precise_batch_norm.PreciseBatchNorm"}
    Path("precise.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [precise]}}))
    options = ["--config", "precise.yaml", "--config", str(parts / "ema.yaml")]
    assert fit(recipe, *options) == 0


def test_ones_own_checkpoints_leave_the_last_one(recipe):
    own = {
        "class_path": "pytorch_lightning.callbacks.ModelCheckpoint",
        "init_args": {"filename": "mine", "monitor": "val/loss"},
    }
    Path("own.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [own]}}))
    assert fit(recipe, "--config", "own.yaml") == 0
    folder = Path("runs/tiny/fit_0/checkpoints")
    assert sorted(path.name for path in folder.iterdir()) == ["last.ckpt", "mine.ckpt"]


def test_ones_own_way_of_writing_checkpoints_is_kept(recipe):
    own = {"class_path": "lightning_fabric.plugins.TorchCheckpointIO"}
    Path("own.yaml").write_text(yaml.safe_dump({"trainer": {"plugins": [own]}}))
    assert fit(recipe, "--config", "own.yaml") == 0
    assert Path(last("fit_0")).is_file()


def test_last_is_the_newest_and_may_be_missing(recipe, capsys):
    assert fit(recipe, "--ckpt_path", "last") == 0  # there is none: it begins
    assert fit(recipe) == 0
    assert fit(recipe, "--ckpt_path", "last", "--trainer.max_epochs", "2") == 0
    config = yaml.safe_load(Path("runs/tiny/fit_2/config.yaml").read_text())
    assert config["ckpt_path"] == last("fit_1")
    assert main(["test", "--config", str(recipe), "--ckpt_path", "last"]) == 0
    command = ["test", "--config", str(recipe), "--ckpt_path", "last", "--run.name", "other"]
    assert main(command) == 1
    assert "--ckpt_path must name the checkpoint" in capsys.readouterr().err


def test_a_batch_of_one_clip_too_small_for_batch_norm_is_told(recipe, capsys):
    small = ["--data.batch_size", "1", "--data.crop", "16", "--data.short_side", "16"]
    assert fit(recipe, *small, "--data.frames", "2") == 1
    told = capsys.readouterr().err
    assert "a batch of 1 clip of 2 x 16 x 16 ends as a single value" in told
    assert "set batch_size to 2 or more" in told


def test_an_optimizer_and_a_scheduler_by_class(recipe):
    options = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.004"]
    options += ["--model.lr_scheduler", "torch.optim.lr_scheduler.StepLR"]
    options += ["--model.lr_scheduler.step_size", "1", "--trainer.max_epochs", "2"]
    assert fit(recipe, *options) == 0
    checkpoint = torch.load(last("fit_0"), weights_only=True)
    assert checkpoint["hyper_parameters"]["optimizer"] == "class:torch.optim.sgd.SGD"
    assert checkpoint["hyper_parameters"]["lr"] == 0.004
    (group,) = checkpoint["optimizer_states"][0]["param_groups"]
    assert group["lr"] == pytest.approx(4e-5)
    assert main(["test", "--config", str(recipe), "--ckpt_path", last("fit_0")]) == 0
    assert fit(recipe, *options, "--trainer.max_epochs", "3", "--ckpt_path", last("fit_0")) == 0
