from types import SimpleNamespace

import pytest
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn, optim

from vidpool.train.metrics import warn_of_unknown_monitors

LOGGED = ["val/loss", "val/top1", "lr"]


def trainer(*callbacks, schedulers=()):
    return SimpleNamespace(callbacks=list(callbacks), lr_scheduler_configs=list(schedulers))


def test_known_metrics_are_silent(recwarn):
    watched = trainer(EarlyStopping("val/loss"), ModelCheckpoint(monitor="lr"), ModelCheckpoint())
    assert warn_of_unknown_monitors(watched, LOGGED) == []
    assert not recwarn.list


def test_unknown_metrics_are_named_with_those_there_are():
    watched = trainer(EarlyStopping("val_loss"), ModelCheckpoint(monitor="nothing like it"))
    with pytest.warns(UserWarning, match="monitors") as warned:
        assert warn_of_unknown_monitors(watched, LOGGED) == ["val_loss", "nothing like it"]
    first, second = (str(warning.message) for warning in warned)
    assert "EarlyStopping monitors 'val_loss'" in first
    assert "did you mean 'val/loss'?" in first
    assert first.endswith("Logged are: val/loss, val/top1, lr")
    assert "ModelCheckpoint" in second
    assert "did you mean" not in second


def test_plateau_schedulers_are_looked_at():
    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), 0.1)
    scheduler = optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    config = SimpleNamespace(scheduler=scheduler, monitor="val_top1", reduce_on_plateau=True)
    with pytest.warns(UserWarning, match="ReduceLROnPlateau monitors 'val_top1'.*'val/top1'"):
        assert warn_of_unknown_monitors(trainer(schedulers=[config]), LOGGED) == ["val_top1"]
