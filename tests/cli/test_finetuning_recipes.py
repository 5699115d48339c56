"""``vidpool fit`` with the fine-tuning recipes, on real video files."""

from pathlib import Path

import pytest
import torch
import yaml
from trees import Videos, make_hacs, make_kinetics

from vidpool.cli import main

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# what makes a recipe small enough for a CPU
SMALL = [
    *("--config", str(CONFIGS / "trainer/cpu.yaml"), "--trainer.max_epochs", "1"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
    *("--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1"),
    *("--model.backbone", "r3d_18", "--model.width", "4"),
    *("--data.frames", "4", "--data.crop", "32", "--data.short_side", "36"),
    *("--data.batch_size", "2", "--data.num_workers", "0"),
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return Videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def hacs(videos, tmp_path_factory):
    """A checkpoint that `vidpool fit` made of three classes in HACS's layout."""
    folder = tmp_path_factory.mktemp("hacs")
    annotations = make_hacs(folder / "hacs", videos)
    data = ["--data.root", str(folder / "hacs"), "--data.annotations", str(annotations)]
    config = ["--config", str(CONFIGS / "recipes/ucf101.yaml")]
    config += ["--config", str(CONFIGS / "data/hacs.yaml")]
    run = ["--run.root", str(folder), "--run.name", "hacs"]
    assert main(["fit", *config, *SMALL, *data, *run]) == 0
    return folder / "hacs/fit_0/checkpoints/last.ckpt"


def fit(recipe, *options):
    return main(["fit", "--config", str(CONFIGS / f"recipes/{recipe}.yaml"), *SMALL, *options])


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def test_ucf101_with_a_frozen_stem(hacs, colours, caplog):
    data = ["--data.root", str(colours), "--model.init_from", str(hacs)]
    with caplog.at_level("INFO", logger="pytorch_lightning"):
        assert fit("ucf101_finetune", *data, "--model.freeze", "[stem, layer1]") == 0
    told = caplog.text
    assert f"weights from {hacs}; the classifier starts fresh (fc.bias, fc.weight)" in told
    # 6 classes of 32 features and their biases
    assert "classifier: 198 parameters at learning rate 0.05; backbone: 128," in told
    assert "at learning rate 0.03; frozen: 3,532 parameters (stem, layer1)" in told
    before, after = weights(hacs), weights("runs/ucf101_finetune/fit_0/checkpoints/last.ckpt")
    for key, value in before.items():
        if key.startswith(("model.stem", "model.layer1")):
            assert torch.equal(after[key], value), key
    config = yaml.safe_load(Path("runs/ucf101_finetune/fit_0/config.yaml").read_text())
    assert config["model"]["freeze"] == ["stem", "layer1"]
    assert config["model"]["backbone_lr"] == 0.6


def test_kinetics700_has_as_many_classes_but_others(hacs, videos, tmp_path, caplog):
    annotations = make_kinetics(tmp_path / "kinetics700", videos)
    data = ["--data.root", str(tmp_path / "kinetics700"), "--data.annotations", str(annotations)]
    with caplog.at_level("INFO", logger="pytorch_lightning"):
        assert fit("kinetics700_finetune", *data, "--model.init_from", str(hacs)) == 0
    assert "the classifier starts fresh (fc.bias, fc.weight)" in caplog.text


def test_a_checkpoint_that_is_not_there(colours, capsys):
    assert fit("ucf101_finetune", "--data.root", str(colours)) == 1
    assert "hacs.ckpt: no such checkpoint file; init_from names" in capsys.readouterr().err


def test_a_module_that_is_not_there(colours, capsys):
    assert fit("ucf101_finetune", "--data.root", str(colours), "--model.freeze", "[stam]") == 1
    assert (
        "'stam' matches no module of the network. Its stages are stem," in capsys.readouterr().err
    )
