import math

import pytest
import torch
from torch import nn

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
