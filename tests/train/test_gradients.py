"""Accumulated, scaled and clipped gradients, and batch norm over several processes."""

import pytest
import pytorch_lightning as pl
import torch
from generated import Generated, quiet_trainer
from pytorch_lightning.plugins import MixedPrecision
from small_network import small_classifier
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vidpool.errors import ConfigError
from vidpool.models import create_model
from vidpool.nn import SoftPool3d, split_batch_norm
from vidpool.train.callbacks.multigrid import Multigrid

pytestmark = pytest.mark.filterwarnings("ignore")


class FrozenBatchNorm(pl.Callback):
    """Statistics are those of all clips seen before: a batch has no say in them."""

    def on_train_batch_start(self, _, module, *__):
        for layer in module.modules():
            if isinstance(layer, _BatchNorm):
                layer.eval()


class Watch(pl.Callback):
    """Weights after each step, and the precision of what SoftPool takes and gives."""

    def __init__(self):
        self.weights = []
        self.scales = []
        self.pooled = set()

    def on_fit_start(self, _, module):
        for layer in module.modules():
            if isinstance(layer, SoftPool3d):
                layer.register_forward_hook(self._pooled)

    def _pooled(self, _, inputs, output):
        self.pooled.add((inputs[0].dtype, output.dtype))

    def on_train_batch_start(self, trainer, module, *_):
        if not self.weights:
            self._keep(trainer, module)

    def on_train_batch_end(self, trainer, module, *_):
        self._keep(trainer, module)

    def _keep(self, trainer, module):
        self.weights.append(nn.utils.parameters_to_vector(module.parameters()).detach().clone())
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self.scales.append(scaler and scaler.get_scale())


def fit(folder, *callbacks, batch_size=4, size=16, model=None, **options):
    pl.seed_everything(2, verbose=False)
    settings = {"lr": 0.01, "momentum": 0.0, "weight_decay": 0.0, "lr_schedule": "constant"}
    module = small_classifier(**settings | (model or {}))
    watch = Watch()
    trainer = quiet_trainer(
        **{"max_epochs": 1} | options,
        callbacks=[*callbacks, watch],
        default_root_dir=folder,
        limit_val_batches=0,
    )
    trainer.fit(module, Generated(size, batch_size=batch_size))
    return watch


def test_accumulated_batches_are_one_large_batch(tmp_path):
    options = {"precision": "64-true", "max_epochs": 2}
    once = fit(tmp_path, FrozenBatchNorm(), batch_size=4, **options)
    twice = fit(tmp_path, FrozenBatchNorm(), batch_size=2, accumulate_grad_batches=2, **options)
    assert len(once.weights) == 1 + 8
    assert not torch.equal(once.weights[0], once.weights[-1])
    torch.testing.assert_close(twice.weights[2::2], once.weights[1:], rtol=1e-12, atol=1e-14)


def test_multigrid_does_not_accumulate(tmp_path):
    model = {"lr_schedule": "step", "milestones": [1]}
    with pytest.raises(ConfigError, match="accumulate_grad_batches exclude each other"):
        fit(tmp_path, Multigrid(), size=130, model=model, accumulate_grad_batches=2)


def float16(scale):
    """Lightning's float16 with loss scaling, which it offers on GPUs only."""
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))


def test_float16_clips_what_the_gradients_are_without_the_scale(tmp_path):
    clip = {"gradient_clip_val": 0.05, "limit_train_batches": 3}
    half = fit(tmp_path, plugins=[float16(2.0**12)], model={"lr": 1.0}, **clip)
    for before, after in zip(half.weights, half.weights[1:], strict=False):
        assert float((after - before).norm()) == pytest.approx(0.05, rel=1e-3)
    assert half.scales[-1] == 2.0**12
    assert half.pooled == {(torch.float16, torch.float16)}


def test_float16_learns_as_float32(tmp_path):
    # batch norm over the few cells of such small clips would multiply what is rounded
    half = fit(tmp_path, FrozenBatchNorm(), plugins=[float16(2.0**10)])
    full = fit(tmp_path, FrozenBatchNorm())
    for one, other in zip(full.weights[1:], half.weights[1:], strict=True):
        moved, instead = one - full.weights[0], other - full.weights[0]
        assert float((moved - instead).norm() / moved.norm()) < 0.02
    assert full.pooled == {(torch.float32, torch.float32)}


def test_float16_leaves_out_a_step_that_overflows(tmp_path):
    half = fit(tmp_path, plugins=[float16(2.0**60)], limit_train_batches=2)
    assert torch.equal(half.weights[0], half.weights[2])
    assert half.scales == [2.0**60, 2.0**59, 2.0**58]


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18", "srtg_r3d_18", "i3d"])
def test_networks_take_synchronised_batch_norm(name):
    """What trainer.sync_batchnorm does; in training PyTorch has it on GPUs only."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=3).eval()
    clip = torch.randn(1, 3, 16, 64, 64)
    with torch.no_grad():
        expected = model(clip)
        before = list(model.state_dict())
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        norms = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
        assert norms
        assert {type(layer) for layer in norms} == {nn.SyncBatchNorm}
        assert list(model.state_dict()) == before
        torch.testing.assert_close(model(clip), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("split", [False, True])
def test_synchronised_batch_norm_on_one_gpu_is_batch_norm(split):
    torch.manual_seed(0)
    plain = create_model("r3d_18", num_classes=3, width=8).cuda().train()
    other = create_model("r3d_18", num_classes=3, width=8)
    if split:  # it becomes synchronised batch norm too, which the multigrid callback refuses
        split_batch_norm(other, 2)
    other.load_state_dict(plain.state_dict())
    other = nn.SyncBatchNorm.convert_sync_batchnorm(other).cuda().train()
    clip = torch.randn(4, 3, 8, 32, 32, device="cuda")
    torch.testing.assert_close(other(clip), plain(clip), rtol=1e-3, atol=1e-3)
