"""An exponential moving average of the weights: what is validated, saved and resumed."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from generated import Generated
from pytorch_lightning.callbacks import EMAWeightAveraging
from small_network import small_classifier
from torch.nn.modules.batchnorm import _BatchNorm

from vidpool.data.views import normalize
from vidpool.errors import CheckpointError, ConfigError
from vidpool.models.weights import load_checkpoint
from vidpool.train import network
from vidpool.train.callbacks.interruptions import LastCheckpoint
from vidpool.train.callbacks.multigrid import Multigrid
from vidpool.train.callbacks.precise_batch_norm import PreciseBatchNorm, update_batch_norm
from vidpool.train.network import compile_network

pytestmark = pytest.mark.filterwarnings("ignore")
DECAY = 0.5


class Watch(pl.Callback):
    """Averages the weights by hand; keeps what validation and the end of each step see."""

    def __init__(self, stop_after=None):
        self.average = None
        self.trained = None
        self.validated = None
        self.first_loss = []
        self.stop_after = stop_after

    def on_train_batch_end(self, trainer, module, *_):
        now = {name: value.detach().clone() for name, value in module.state_dict().items()}
        if self.average is None:
            self.average = dict(now)
        else:
            for name, value in now.items():
                # as for batch norm's number of batches, whole numbers lose the fraction
                mean = DECAY * self.average[name] + (1 - DECAY) * value
                self.average[name] = mean.to(value.dtype)
        self.trained = now
        if self.stop_after is not None and trainer.global_step == self.stop_after:
            trainer.save_checkpoint(trainer.default_root_dir + "/stopped.ckpt")
            trainer.should_stop = True

    def on_validation_batch_start(self, trainer, module, *_):
        if trainer.global_step:
            self.validated = {n: value.clone() for n, value in module.state_dict().items()}


def fit(folder, *callbacks, watch=None, resume=None, epochs=2, averaging=True, **model):
    pl.seed_everything(11, verbose=False)
    module = small_classifier(lr=0.005, dropout=0.5, lr_schedule="step", milestones=[1], **model)
    data = Generated(130 if any(isinstance(c, Multigrid) for c in callbacks) else 20)
    watch = watch or Watch()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[
            *([EMAWeightAveraging(decay=DECAY)] if averaging else []),
            *callbacks,
            watch,
            LastCheckpoint(),
        ],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_train_batches=6,
    )
    trainer.fit(module, data, ckpt_path=resume)
    return module, data, watch, trainer


def assert_equal(one, other, but=()):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if not any(part in name for part in but):
            torch.testing.assert_close(value, other[name], msg=name)


def test_the_average_is_validated_saved_and_what_remains(tmp_path):
    module, _, watch, trainer = fit(tmp_path)
    assert trainer.global_step == 12
    assert not torch.equal(watch.trained["model.fc.weight"], watch.average["model.fc.weight"])
    assert_equal(watch.validated, watch.average)
    assert_equal(module.state_dict(), watch.average)
    checkpoint = load_checkpoint(tmp_path / "checkpoints/last.ckpt")
    assert_equal(checkpoint["state_dict"], watch.average)
    assert_equal(checkpoint["current_model_state"], watch.trained)


def test_the_accuracy_is_the_averages(tmp_path):
    _, data, _, trainer = fit(tmp_path, epochs=1)
    logged = float(trainer.callback_metrics["val/loss"])
    other = small_classifier(lr_schedule="constant")
    state = load_checkpoint(tmp_path / "checkpoints/last.ckpt")
    plain = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    results = []
    for key in ("state_dict", "current_model_state"):
        other.load_state_dict(state[key])
        (metrics,) = plain.validate(other, data, verbose=False)
        results.append(metrics["val/loss"])
    assert logged == pytest.approx(results[0])
    assert logged != pytest.approx(results[1])


@pytest.mark.parametrize("multigrid", [False, True])
def test_resumed_in_the_middle_of_an_epoch_it_is_the_same_run(tmp_path, multigrid):
    def parts():
        return [Multigrid("paper", sub_batch_norm=4), PreciseBatchNorm(2)] if multigrid else []

    whole, _, seen, _ = fit(tmp_path / "whole", *parts())
    fit(tmp_path / "stopped", *parts(), watch=Watch(stop_after=8))
    resumed, _, after, trainer = fit(
        tmp_path / "resumed", *parts(), resume=tmp_path / "stopped/stopped.ckpt"
    )
    assert trainer.global_step == 12
    for one, other in ((whole.state_dict(), resumed.state_dict()), (seen.trained, after.trained)):
        for name, value in one.items():
            assert torch.equal(value, other[name]), name


def test_precise_batch_norm_is_of_the_average(tmp_path):
    module, data, watch, _ = fit(tmp_path, PreciseBatchNorm(2), epochs=1)
    assert_equal(watch.validated, watch.average, but=("running", "num_batches"))
    assert_equal(watch.validated, module.state_dict())
    # by hand: the network with the averaged weights, over the epoch's first two batches
    module.load_state_dict(watch.average)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(0)
    batches = [
        normalize(batch["clip"], data.preprocessing.mean, data.preprocessing.std)
        for batch, _ in zip(loader, range(2), strict=False)
    ]
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    update_batch_norm(module.eval(), layers, batches)
    assert_equal(watch.validated, module.state_dict())


def test_precise_batch_norm_before_the_average_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="must come after the average"):
        fit(tmp_path, PreciseBatchNorm(2), EMAWeightAveraging(), averaging=False)


def test_it_cannot_be_resumed_without_the_average(tmp_path):
    fit(tmp_path)
    with pytest.raises(CheckpointError, match=r"an average \(EMA\).*callback that averaged them"):
        fit(tmp_path, resume=tmp_path / "checkpoints/last.ckpt", averaging=False)


def test_a_run_without_an_average_can_be_resumed_with_one(tmp_path):
    fit(tmp_path, averaging=False, epochs=1)
    *_, trainer = fit(tmp_path, resume=tmp_path / "checkpoints/last.ckpt")
    assert trainer.global_step == 12


def test_a_compiled_network_is_averaged(tmp_path, monkeypatch):
    quick = partial(compile_network, backend="eager")  # what it compiles to is not at issue
    monkeypatch.setattr(network, "compile_network", quick)
    module, _, watch, _ = fit(tmp_path, epochs=1, compile=True)
    assert_equal(watch.validated, watch.average)
    assert_equal(module.state_dict(), watch.average)
