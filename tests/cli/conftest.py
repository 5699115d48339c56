"""A tiny recipe and a checkpoint that the command line made of it."""

import pytest
import yaml

from vidpool.cli import main

TINY = {
    "run": {"name": "tiny"},
    "data": {
        "class_path": "vidpool.data.datasets.ucf101.UCF101DataModule",
        "init_args": {
            "frames": 4,
            "stride": 2,
            "crop": 32,
            "short_side": 36,
            "batch_size": 6,
            "test_clips": 3,
            "test_crops": 3,
            "num_workers": 0,
            "augment": {"flip": 0.5},
        },
    },
    "model": {
        "backbone": "r3d_18",
        "width": 4,
        "optimizer": "adamw",
        "lr": 0.003,
        "lr_schedule": "constant",
    },
    "trainer": {
        "accelerator": "cpu",
        "max_epochs": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    },
}


@pytest.fixture(scope="session")
def recipe(colours, tmp_path_factory):
    """Path of a config that trains on the colours in a second."""
    TINY["data"]["init_args"]["root"] = str(colours)
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="session")
def trained(recipe, tmp_path_factory):
    """The run folder of a training of 24 epochs, which learns the colours."""
    root = tmp_path_factory.mktemp("runs")
    options = ["--run.root", str(root), "--trainer.max_epochs", "24"]
    options += ["--model.lr_schedule", "cosine"]
    assert main(["fit", "--config", str(recipe), *options]) == 0
    return root / "tiny" / "fit_0"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """Runs that are not told otherwise leave their files here."""
    monkeypatch.chdir(tmp_path)
