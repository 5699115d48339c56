"""The check of this CPU's bfloat16 convolutions, which runs on every CPU."""

import re

import pytest
import torch
from generated import Generated, quiet_trainer
from torch.nn import functional as F

from vidpool.errors import ConfigError
from vidpool.train import bfloat16
from vidpool.train.bfloat16 import bfloat16_fault
from vidpool.train.classifier import VideoClassifier

conv3d = F.conv3d


@pytest.fixture(autouse=True)
def _measured_anew():
    bfloat16_fault.cache_clear()
    yield
    bfloat16_fault.cache_clear()


def correct(x, weight, *rest, **options):
    """A convolution in bfloat16 that is right on every CPU."""
    return conv3d(x.float(), weight.float(), *rest, **options).to(x.dtype)


class _Spoilt(torch.autograd.Function):
    """Identity whose gradient in bfloat16 is spoilt."""

    @staticmethod
    def forward(ctx, x, spoil):
        ctx.spoil = spoil
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.spoil(gradient) if gradient.dtype == torch.bfloat16 else gradient, None


def wrong_output(x, weight, *rest, **options):
    return correct(x, weight, *rest, **options) * (2 if x.dtype == torch.bfloat16 else 1)


def wrong_gradient_of_input(x, weight, *rest, **options):
    return correct(_Spoilt.apply(x, torch.zeros_like), weight, *rest, **options)


def wrong_gradient_of_weight(x, weight, *rest, **options):
    return correct(x, _Spoilt.apply(weight, lambda gradient: gradient.flip(0)), *rest, **options)


def wrong_in_kernels_of_time_alone(x, weight, *rest, **options):
    if weight.shape[3:] == (1, 1):
        return wrong_gradient_of_weight(x, weight, *rest, **options)
    return correct(x, weight, *rest, **options)


FAULTS = {
    wrong_output: "of the output",
    wrong_gradient_of_input: "of the gradient of the input",
    wrong_gradient_of_weight: "of the gradient of the weight",
    wrong_in_kernels_of_time_alone: r"kernel size \(3, 1, 1\).*of the gradient of the weight",
}


def fit(precision, network="r3d_18", frames=4, **options):
    classifier = VideoClassifier(network, 3, lr_schedule="constant", **options)
    trainer = quiet_trainer(precision=precision, max_epochs=1, limit_val_batches=0)
    trainer.fit(classifier, Generated(2, frames=frames, crop=32, short_side=32))
    return trainer


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_faulty_convolution_is_found(fault, monkeypatch):
    monkeypatch.setattr(F, "conv3d", fault)
    assert re.search(FAULTS[fault], bfloat16_fault())


def test_freed_memory_is_filled_before_each_pass(monkeypatch):
    calls = []

    def recorded(*args, **options):
        calls.append("forward")
        return correct(*args, **options)

    monkeypatch.setattr(F, "conv3d", recorded)
    monkeypatch.setattr(bfloat16, "_fill_freed_memory", lambda: calls.append("fill"))
    bfloat16_fault()
    assert calls
    assert calls == ["fill", "forward", "fill"] * (len(calls) // 3)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_bfloat16_is_refused_with_the_way_out(precision, monkeypatch):
    monkeypatch.setattr(F, "conv3d", wrong_gradient_of_weight)
    message = rf"trainer.precision {precision} .* Set trainer.precision to 32-true"
    with pytest.raises(ConfigError, match=message):
        fit(precision, width=4)


def test_nothing_is_refused_where_convolutions_are_right(monkeypatch):
    monkeypatch.setattr(F, "conv3d", correct)
    assert bfloat16_fault() is None
    assert fit("bf16-mixed", width=4).global_step == 1


def test_other_precisions_and_pictures_are_not_checked(monkeypatch):
    monkeypatch.setattr(F, "conv3d", wrong_output)
    assert fit("32-true", width=4).global_step == 1
    assert fit("bf16-mixed", "torchvision/resnet18", frames=1, pooling=None).global_step == 1
    assert bfloat16_fault.cache_info().misses == 0


def test_the_check_is_made_once_and_draws_no_random_numbers():
    state = torch.get_rng_state()
    first = bfloat16_fault()
    assert torch.equal(torch.get_rng_state(), state)
    assert bfloat16_fault() == first
    assert bfloat16_fault.cache_info().misses == 1
