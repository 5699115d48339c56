"""The checks of a training: this CPU's bfloat16 convolutions, and batches too small for batch norm.

Small batches are left out by the plan, or told with a way out.
"""

import math
import re

import pytest
import torch
from generated import CLASSES, Generated, quiet_trainer
from torch.nn import functional as F
from torch.utils.data import DataLoader

from vidpool.data.views import ClipShape
from vidpool.errors import ConfigError
from vidpool.train import bfloat16
from vidpool.train.bfloat16 import bfloat16_fault
from vidpool.train.callbacks.multigrid import Multigrid
from vidpool.train.checks import smallest_batches
from vidpool.train.classifier import VideoClassifier

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = {"frames": 2, "stride": 1, "crop": 16, "short_side": 16}
conv3d = F.conv3d


@pytest.fixture(autouse=True)
def _bfloat16_fault_is_not_cached():
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


def fit_in(precision, network="r3d_18", frames=4, **options):
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
    message = rf"precision {precision} .* Set precision to 32-true"
    with pytest.raises(ConfigError, match=message):
        fit_in(precision, width=4)


def test_nothing_is_refused_where_convolutions_are_right(monkeypatch):
    monkeypatch.setattr(F, "conv3d", correct)
    assert bfloat16_fault() is None
    assert fit_in("bf16-mixed", width=4).global_step == 1


def test_other_precisions_and_pictures_are_not_checked(monkeypatch):
    monkeypatch.setattr(F, "conv3d", wrong_output)
    assert fit_in("32-true", width=4).global_step == 1
    assert fit_in("bf16-mixed", "torchvision/resnet18", frames=1, pooling=None).global_step == 1
    assert bfloat16_fault.cache_info().misses == 0


def test_the_check_is_made_once_and_draws_no_random_numbers():
    state = torch.get_rng_state()
    first = bfloat16_fault()
    assert torch.equal(torch.get_rng_state(), state)
    assert bfloat16_fault() == first
    assert bfloat16_fault.cache_info().misses == 1


class Recorded(VideoClassifier):
    """Notes epoch, learning rate and clips of each step."""

    def __init__(self, **options):
        super().__init__("r3d_18", num_classes=CLASSES, width=4, **options)
        self.steps = []

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.steps.append((self.current_epoch, rate, batch["video"].tolist()))
        return loss


def fit(data, *, epochs=2, model=None, **options):
    torch.manual_seed(0)
    network = Recorded(**(model or {}))
    quiet_trainer(max_epochs=epochs, limit_val_batches=0, **options).fit(network, datamodule=data)
    return network


def test_a_last_batch_of_one_small_clip_is_left_out_and_told_once(caplog):
    with caplog.at_level("INFO", logger="pytorch_lightning"):
        steps = fit(Generated(9, **SMALL, batch_size=4)).steps
    assert [(epoch, len(clips)) for epoch, _, clips in steps] == [(0, 4), (0, 4), (1, 4), (1, 4)]
    # the cosine goes over the steps that are made
    rates = [0.1 * (1 + math.cos(math.pi * done / 4)) / 2 for done in range(4)]
    assert [rate for _, rate, _ in steps] == pytest.approx(rates)
    told = [record.message for record in caplog.records if "left out" in record.message]
    assert len(told) == 1
    assert "Of 9 clips, 8 are trained on" in told[0]


@pytest.mark.parametrize(
    ("size", "options", "lengths"),
    [
        (9, {**SMALL, "crop": 64, "short_side": 64}, [4, 4, 1]),  # 2 x 2 values are enough
        (10, SMALL, [4, 4, 2]),
        (8, SMALL, [4, 4]),
    ],
)
def test_other_plans_stay(size, options, lengths, caplog):
    with caplog.at_level("INFO", logger="pytorch_lightning"):
        steps = fit(Generated(size, **options, batch_size=4), epochs=1).steps
    assert [len(clips) for *_, clips in steps] == lengths
    assert "left out" not in caplog.text


def test_a_batch_norm_that_is_frozen_needs_no_second_clip():
    steps = fit(Generated(5, **SMALL, batch_size=4), epochs=1, model={"freeze": ["backbone"]}).steps
    assert [len(clips) for *_, clips in steps] == [4, 1]


def test_smallest_batches_are_found_by_trying():
    network = Recorded()
    shapes = [ClipShape(t, 1, side) for t in (2, 8, 20) for side in (16, 32, 40, 64)]
    smallest = smallest_batches(network, shapes)
    for shape in shapes:
        clip = torch.randn(1, 3, shape.frames, shape.crop, shape.crop)
        try:
            network(clip)
        except ValueError:
            assert smallest.pop(shape) == 2
    assert not smallest


def test_multigrid_leaves_out_what_is_too_small():
    data = Generated(15, frames=2, stride=1, crop=32, short_side=32, batch_size=2)
    model = {"lr_schedule": "step", "milestones": [1]}
    network = fit(data, epochs=1, model=model, callbacks=[Multigrid(long_cycle=False)])
    lengths = [len(clips) for *_, clips in network.steps]
    assert data.smallest_batches == {
        ClipShape(2, 1, 16): 2,
        ClipShape(2, 1, 22): 2,
        ClipShape(2, 1, 32): 2,
    }
    assert sum(lengths) == 14
    assert min(lengths) > 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Generated(4, **SMALL, batch_size=1), "set batch_size to 2 or more"),
        (Generated(1, **SMALL, batch_size=4), "train on more videos"),
    ],
)
def test_what_cannot_be_trained_says_the_way_out(data, message):
    with pytest.raises(ConfigError, match=f"a batch of 1 clip of 2 x 16 x 16 .* {message}"):
        fit(data)


def test_a_batch_that_lost_its_other_clips_says_so(monkeypatch):
    read = Generated(4, **SMALL).train_dataloader().dataset.__class__.__getitem__

    def lossy(self, requests):
        batch = read(self, requests[:1])
        return {**batch, "requested": len(requests), "bad": ["a.mp4: gone"] * (len(requests) - 1)}

    monkeypatch.setattr("generated.GeneratedClips.__getitem__", lossy)
    with pytest.raises(ConfigError, match=r"the others of 2 cannot be read.* to substitute"):
        fit(Generated(4, **SMALL))


def test_sub_batch_norm_of_single_clips_says_so():
    with pytest.raises(ConfigError, match=r"each of 4 clips of .* sub_batch_norm to 2 or more"):
        fit(
            Generated(40, **SMALL, batch_size=4),
            callbacks=[Multigrid(long_cycle=False, sub_batch_norm=1)],
        )


def test_a_loader_by_itself_is_not_planned_for_the_network():
    loader = Generated(5, **SMALL, batch_size=4).train_dataloader()
    assert isinstance(loader, DataLoader)
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0)
    batches = [{**batch, "clip": batch["clip"].float()} for batch in loader]
    with pytest.raises(ConfigError, match="leave incomplete batches out"):
        trainer.fit(Recorded(), DataLoader(batches, batch_size=None))
