"""Narrow networks in float64, and their logits compared."""

import torch
from torch import nn

from vidpool.models import create_model


def tiny(name="r3d_18", **options):
    """Return a network of width 4 and five classes in evaluation mode."""
    return create_model(name, **{"num_classes": 5, "width": 4} | options).double().eval()


def randomised(model):
    """Return the model in evaluation mode and float64, with random batch norm statistics."""
    for module in model.double().modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            for tensor in (module.weight, module.running_var):
                tensor.data.uniform_(0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                tensor.data.normal_(0, 0.1)
    return model.eval()


@torch.no_grad()
def assert_same_logits(first, second, clip):
    """Check that two networks compute the same logits, not all 0."""
    expected = first(clip)
    assert expected.abs().max() > 0
    assert (second(clip) - expected).abs().max() <= 1e-8 * expected.abs().max()
