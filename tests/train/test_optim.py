import math
from functools import partial

import pytest
import torch
from generated import Generated, quiet_trainer
from pytorch_lightning.cli import ReduceLROnPlateau
from torch import nn
from torch.optim.lr_scheduler import StepLR

from vidpool.errors import ConfigError
from vidpool.train.classifier import VideoClassifier
from vidpool.train.lr_scheduler import lr_factor
from vidpool.train.optim import make_optimizer


@pytest.mark.parametrize(("epochs", "factor"), [(0, 1), (39.9, 1), (40, 0.1), (80, 0.01)])
def test_step_falls_at_its_milestones(epochs, factor):
    found = lr_factor(epochs, "step", 100, milestones=[40, 80], gamma=0.1)
    assert found == pytest.approx(factor)


@pytest.mark.parametrize("epochs", [0, 0.25, 3, 10, 11])
def test_cosine_ends_at_zero(epochs):
    expected = (1 + math.cos(math.pi * min(epochs, 10) / 10)) / 2
    assert lr_factor(epochs, "cosine", 10) == pytest.approx(expected)


def test_warm_up_is_linear_and_then_over():
    found = [lr_factor(e, "constant", 10, warmup_epochs=2) for e in (0, 1, 2, 5)]
    assert found == pytest.approx([0.01, 0.505, 1, 1])


def test_optimisers():
    model = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4))
    sgd = make_optimizer(model, "sgd", 0.1, 0.9, 1e-4)
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["nesterov"]
    assert make_optimizer(model, "sgd", 0.1, 0.0, 0).defaults["nesterov"] is False
    decayed, others = make_optimizer(model, "adamw", 0.1, 0.9, 0.05).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.05, 0)
    assert [p.ndim for p in decayed["params"]] == [5]
    assert len(others["params"]) == 3


def classifier(**options):
    return VideoClassifier("r3d_18", num_classes=3, width=2, **options)


def fit(network, epochs=2, **options):
    trainer = quiet_trainer(max_epochs=epochs, limit_val_batches=0)
    trainer.fit(network, Generated(8, frames=2, crop=16, short_side=16, batch_size=4), **options)
    return trainer


class Rates(VideoClassifier):
    seen = ()

    def training_step(self, batch, batch_idx):
        self.seen += (tuple(group["lr"] for group in self.trainer.optimizers[0].param_groups),)
        return super().training_step(batch, batch_idx)


def adamw(groups):
    return torch.optim.AdamW(groups, lr=2e-3, weight_decay=0.3, betas=(0.8, 0.9))


@pytest.mark.filterwarnings("ignore")
def test_a_callable_gets_the_groups_and_its_lr_is_the_base_rate():
    network = Rates("r3d_18", 3, width=2, optimizer=adamw, backbone_lr=0.5, lr_schedule="constant")
    assert network.hparams.lr == 2e-3
    assert network.hparams.optimizer == "class:torch.optim.adamw.AdamW"
    (optimizer,) = fit(network).optimizers
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["betas"] == (0.8, 0.9)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.3}
    assert set(network.seen) == {(2e-3, 1e-3)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({}, [0.1, 0.1, 0.01, 0.01]),
        ({"lr_scheduler_interval": "step"}, [0.1, 0.01, 0.001, 0.0001]),
    ],
)
def test_a_scheduler_is_stepped_each_epoch_unless_told_otherwise(options, rates):
    network = Rates(
        "r3d_18", 3, width=2, lr_scheduler=lambda made: StepLR(made, 1, gamma=0.1), **options
    )
    fit(network)
    assert [rate for (rate,) in network.seen] == pytest.approx(rates)


def test_lightnings_dict_and_monitor_are_taken():
    network = classifier(lr_scheduler=lambda made: {"scheduler": StepLR(made, 1), "frequency": 2})
    network.trainer = quiet_trainer(max_epochs=1)
    config = network.configure_optimizers()["lr_scheduler"]
    assert (config["interval"], config["frequency"]) == ("epoch", 2)
    network._lr_scheduler = lambda made: ReduceLROnPlateau(made, monitor="val/loss")
    assert network.configure_optimizers()["lr_scheduler"]["monitor"] == "val/loss"
    network._lr_scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau
    with pytest.raises(ConfigError, match=r"use pytorch_lightning\.cli\.ReduceLROnPlateau"):
        network.configure_optimizers()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adam"}, "optimizer must be sgd or adamw, or a callable .* got 'adam'"),
        ({"optimizer": lambda groups: groups}, "must return a torch.optim.Optimizer .*list"),
        ({"optimizer": lambda groups: torch.optim.SGD(groups, lr=0.0)}, "positive lr.*lr=0.0"),
    ],
)
def test_what_is_no_optimizer(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        classifier(**options)
    assert caught.value.argument == "optimizer"


@pytest.mark.filterwarnings("ignore")
def test_a_callable_is_passed_again_to_train_on(tmp_path):
    options = {"optimizer": adamw, "lr_scheduler": partial(StepLR, step_size=1)}
    fit(classifier(**options), epochs=1).save_checkpoint(tmp_path / "a.ckpt")
    loaded = VideoClassifier.load_from_checkpoint(tmp_path / "a.ckpt")
    name = "class:torch.optim.lr_scheduler.StepLR"
    assert loaded.hparams.lr_scheduler == name
    with pytest.raises(ConfigError, match=r"trained with torch\.optim\.adamw\.AdamW, .* again"):
        fit(loaded)
    with pytest.raises(ConfigError, match=r"got torch\.optim\.lr_scheduler\.StepLR"):
        fit(classifier(lr_scheduler=name))
    decayed = {**options, "optimizer": partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.6)}
    trainer = fit(classifier(**decayed), ckpt_path=tmp_path / "a.ckpt")
    assert trainer.global_step == 4
    assert {group["weight_decay"] for group in trainer.optimizers[0].param_groups} == {0.6}
