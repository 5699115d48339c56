"""The scripts in ``examples/`` run as their first lines say."""

import subprocess
import sys
from pathlib import Path

import pytest
from trees import write_clip

EXAMPLES = Path(__file__).parents[1] / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("the examples are not installed with the package", allow_module_level=True)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Videos in class folders."""
    root = tmp_path_factory.mktemp("videos")
    for split, count in (("train", 3), ("val", 1)):
        for shade, name in enumerate(("left", "right")):
            for number in range(count):
                write_clip(root / split / name / f"{number}.mp4", 12, shade=100 * shade)
    return root


def run(folder, *command):
    """Run a command in a folder and return what it prints."""
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_each_is_short(path):
    assert len(path.read_text().splitlines()) < 40


def test_softpool_in_networks(tmp_path):
    pytest.importorskip("timm")
    out = run(tmp_path, EXAMPLES / "softpool_in_networks.py")
    assert "custom network: torch.Size([2, 10])" in out
    assert "torchvision s3d: replaced features.1" in out
    assert "SoftPool2d(kernel_size=3, stride=2, padding=1" in out


def test_training_and_prediction(tmp_path, videos):
    run(tmp_path, EXAMPLES / "train_own_videos.py", videos, 1)
    folder = tmp_path / "runs" / "own_videos" / "fit_0" / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert list((tmp_path / "runs" / "own_videos").glob("test_0/metrics.json"))
    video = next(videos.glob("val/left/*.mp4"))
    out = run(tmp_path, EXAMPLES / "predict_and_features.py", folder / "best.ckpt", video)
    assert "features (512,)" in out
    assert "h264, 48x36, 0.5 s" in out


def test_own_training_loop(tmp_path, videos):
    out = run(tmp_path, EXAMPLES / "own_training_loop.py", videos, 1)
    assert "epoch 0: loss" in out
    assert "top-1:" in out


def test_plugin(tmp_path, videos):
    size = ["--data.frames", "4", "--data.crop", "32", "--data.short_side", "32"]
    trainer = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"]
    run(
        tmp_path,
        *("-m", "vidpool", "fit", "--plugin", EXAMPLES / "my_plugin.py"),
        *("--model.backbone", "tiny", "--model.pooling", "median"),
        *("--data", "TwoFolders", "--data.root", videos, "--data.transform", "my_plugin.darken"),
        *(*size, "--data.batch_size", "2", "--data.num_workers", "0", *trainer),
    )
    assert (tmp_path / "runs/default/fit_0/checkpoints/last.ckpt").is_file()
