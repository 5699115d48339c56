"""Image networks on class folders, with the configs of the paper's Tables 2, 5 and 6."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.models import resnet18

from vidpool.cli import main
from vidpool.cli.training import parse_fit
from vidpool.inference.loading import load_classifier
from vidpool.nn import SoftPool2d
from vidpool.train.classifier import VideoClassifier

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = {
    "data.crop": 40,
    "data.short_side": 44,
    "data.batch_size": 6,
    "data.num_workers": 0,
    "trainer.accelerator": "cpu",
    "trainer.precision": "32-true",
    "trainer.enable_progress_bar": "false",
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    for split in ("train", "val"):
        for label, colour in (("n0", (220, 20, 20)), ("n1", (20, 20, 220)), ("n2", (20, 200, 20))):
            (root / split / label).mkdir(parents=True)
            for number in range(4):
                path = root / split / label / f"{number}.JPEG"
                Image.new("RGB", (60 + number, 48), colour).save(path)
    return root


def options(root, **more):
    given = {**SMALL, "data.root": root, **more}
    return [part for name, value in given.items() for part in (f"--{name}", str(value))]


def table6(column):
    return str(CONFIGS / f"table6/{column}.yaml")


def test_train_and_test(pictures, capsys):
    config = ["--config", str(CONFIGS / "recipes/imagenet.yaml")]
    short = {"trainer.max_epochs": 6, "model.lr": 0.01}
    assert main(["fit", *config, *options(pictures, **short)]) == 0
    (checkpoint,) = Path().glob("runs/imagenet/fit_0/checkpoints/last.ckpt")
    assert main(["test", *config, *options(pictures), "--ckpt_path", str(checkpoint)]) == 0
    (metrics,) = Path().glob("runs/imagenet/test_0/metrics.json")
    assert json.loads(metrics.read_text())["top1"] > 0.5
    capsys.readouterr()
    picture = pictures / "val" / "n1" / "2.JPEG"
    assert main(["predict", str(checkpoint), str(picture)]) == 0
    assert "n1" in capsys.readouterr().out


def test_a_trained_network_is_tested_with_other_pooling_without_training(
    pictures, tmp_path, capsys
):
    torch.manual_seed(0)
    network = resnet18(num_classes=3)
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    (tmp_path / "classes.txt").write_text("n0\nn1\nn2\n")
    command = ["import", str(tmp_path / "resnet18.pth"), "--model", "torchvision/resnet18"]
    command += ["--classes", str(tmp_path / "classes.txt"), "--pooling", "soft"]
    assert main([*command, "--output", str(tmp_path / "soft.ckpt")]) == 0
    config = ["--config", str(CONFIGS / "recipes/imagenet.yaml"), *options(pictures)]
    assert main(["test", *config, "--ckpt_path", str(tmp_path / "soft.ckpt")]) == 0
    command = ["import", str(tmp_path / "resnet18.pth"), "--model", "torchvision/resnet18"]
    assert main([*command, "--output", str(tmp_path / "unnamed.ckpt")]) == 0
    assert main(["test", *config, "--ckpt_path", str(tmp_path / "unnamed.ckpt")]) == 1
    assert "the checkpoint does not know 3 of the data's classes: 'n0', 'n1', 'n2'" in (
        told := capsys.readouterr().err
    )
    assert "imported without their names: see vidpool import --classes" in told
    imported, names, preprocessing = load_classifier(tmp_path / "soft.ckpt")
    assert names == ["n0", "n1", "n2"]
    assert (preprocessing.frames, preprocessing.crop, preprocessing.short_side) == (1, 224, 256)
    assert isinstance(imported.model.maxpool, SoftPool2d)
    picture = torch.randn(2, 3, 64, 64)
    pooled = network.eval()
    pooled.maxpool = SoftPool2d(3, 2, 1)
    assert torch.allclose(imported(picture[:, :, None]), pooled(picture), atol=1e-5)


@pytest.mark.parametrize(
    ("column", "pools"),
    [("N", 0), ("I", 1), ("II", 2), ("III", 5), ("IV", 6), ("V", 10), ("VI", 11), ("VII", 13)],
)
def test_the_columns_of_table_6(pictures, column, pools):
    parsed = parse_fit(["--config", table6(column), "--data.root", str(pictures)])
    model, trainer = parsed.settings["model"], parsed.settings["trainer"]
    assert (model["lr"], model["milestones"], trainer["max_epochs"]) == (0.1, [40, 80], 100)
    with torch.device("meta"):
        network = VideoClassifier(**{**model, "num_classes": 1000})
    found = sum(isinstance(module, SoftPool2d) for module in network.model.modules())
    assert found == pools
    assert parsed.datamodule().preprocessing.crop == 299


def test_a_network_for_pictures_refuses_clips(recipe, capsys):
    backbone = ["--model.backbone", "torchvision/resnet18", "--model.width", "null"]
    assert main(["fit", "--config", str(recipe), *backbone]) == 1
    assert "torchvision/resnet18 takes images, not clips of 4 frames" in capsys.readouterr().err
