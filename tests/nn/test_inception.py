"""Inception v3, which calls pooling functions, and the paper's Table 6."""

from collections import Counter

import pytest
import torch
import torchvision
from torch import nn

from vidpool.nn import SoftPool2d, swap_pooling

# rows of Table 6 (its Mixed 7b-d are torchvision's Mixed_7b and Mixed_7c), with the pooling there
STAGES = {
    "maxpool1": ["maxpool1"],
    "maxpool2": ["maxpool2"],
    "Mixed_5[bcd]": [f"Mixed_5{block}.avg_pool2d" for block in "bcd"],
    "Mixed_6a": ["Mixed_6a.max_pool2d"],
    "Mixed_6[bcde]": [f"Mixed_6{block}.avg_pool2d" for block in "bcde"],
    "Mixed_7a": ["Mixed_7a.max_pool2d"],
    "Mixed_7[bc]": [f"Mixed_7{block}.avg_pool2d" for block in "bc"],
}


def inception():
    torch.manual_seed(0)
    return torchvision.models.inception_v3(weights=None, init_weights=False, num_classes=3)


def run(model, x):
    """Output shapes of the network's parts, and the SoftPool layers in the order of their calls."""
    shapes, called, handles = {}, [], []
    for name, module in model.named_modules():
        if name and "." not in name:
            handles.append(
                module.register_forward_hook(
                    lambda _module, _args, out, name=name: shapes.update({name: out.shape})
                )
            )
        if isinstance(module, SoftPool2d):
            handles.append(module.register_forward_hook(lambda *_, name=name: called.append(name)))
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return shapes, called


def test_table_6():
    model, x = inception().eval(), torch.rand(1, 3, 79, 75)
    keys, (shapes, called) = list(model.state_dict()), run(model, x)
    assert called == []
    for column in range(1, 8):
        stages = list(STAGES)[:column]
        expected = [name for stage in stages for name in STAGES[stage]]
        swaps = swap_pooling(model, "soft", stages, functional=True)
        assert [swap.name for swap in swaps] == expected
        assert run(model, x) == (shapes, expected)
    assert list(model.state_dict()) == keys


def test_all_pooling_is_replaced_by_default():
    swaps = swap_pooling(inception(), functional=True)
    assert Counter((type(swap.old), swap.old.kernel_size) for swap in swaps) == {
        (nn.MaxPool2d, 3): 4,
        (nn.AvgPool2d, 3): 9,
        (nn.AvgPool2d, 5): 1,
    }
    assert "AuxLogits.avg_pool2d" in [swap.name for swap in swaps]


@pytest.mark.parametrize("training", [True, False])
def test_training_flag_and_auxiliary_logits_are_kept(training):
    model = inception().train(not training)
    swap_pooling(model, "max", ["maxpool*", "*.max_pool2d"], functional=True)
    model.train(training)
    other = inception().train(training)
    x = torch.rand(2, 3, 299, 299) if training else torch.rand(1, 3, 91, 80)
    outs = []
    for network in (model, other):
        torch.manual_seed(1)
        with torch.no_grad():
            outs.append(network(x))
    if training:
        assert outs[0].aux_logits.shape == (2, 3)
        for got, expected in zip(*outs, strict=True):
            assert torch.equal(got, expected)
    else:
        assert torch.equal(*outs)


def test_the_auxiliary_pooling_learns_though_only_training_reaches_it():
    model = inception().eval()
    where = ["AuxLogits", "Mixed_7b"]
    swaps = swap_pooling(model, "dpp", where, functional=True, example=(1, 3, 299, 299))
    assert [(swap.name, swap.new.channels) for swap in swaps] == [
        ("AuxLogits.avg_pool2d", 768),
        ("Mixed_7b.avg_pool2d", 1280),
    ]
    assert not model.training
