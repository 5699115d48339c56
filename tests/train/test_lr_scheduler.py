"""The learning rate lives in the optimizer and a scheduler that Lightning knows."""

import pytest
import pytorch_lightning as pl
import torch
from generated import CLASSES, Generated, quiet_trainer
from pytorch_lightning.callbacks import LearningRateMonitor, StochasticWeightAveraging
from pytorch_lightning.loggers import CSVLogger
from small_network import small_network
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.data import DataLoader, IterableDataset

from vidpool.train.classifier import VideoClassifier
from vidpool.train.lr_scheduler import ScheduledLR, lr_factor

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = {"frames": 2, "crop": 16, "short_side": 16, "batch_size": 4}


class Recorded(VideoClassifier):
    """Notes rate and weight decay of the first parameter group in each step."""

    def __init__(self, **options):
        super().__init__(small_network(), num_classes=CLASSES, **options)
        self.steps = []

    def training_step(self, batch, batch_idx):
        group = self.trainer.optimizers[0].param_groups[0]
        self.steps.append((group["lr"], group["weight_decay"]))
        return super().training_step(batch, batch_idx)

    @property
    def rates(self):
        return [rate for rate, _ in self.steps]


def fit(network, size=16, **options):
    trainer = quiet_trainer(**{"max_epochs": 2, "limit_val_batches": 0} | options)
    trainer.fit(network, Generated(size, **SMALL))
    return trainer


def cosine(steps, lr=0.1):
    return [lr * lr_factor(k / steps, "cosine", 1) for k in range(steps)]


def test_lightning_knows_the_scheduler():
    network = Recorded(lr=0.1)
    trainer = fit(network)
    (config,) = trainer.lr_scheduler_configs
    assert isinstance(config.scheduler, ScheduledLR)
    assert config.interval == "step"
    assert config.scheduler.state_dict() == {}
    assert "initial_lr" not in trainer.optimizers[0].param_groups[0]
    assert network.rates == pytest.approx(cosine(8))


def test_the_monitor_sees_the_rate_of_each_step(tmp_path):
    class Monitor(LearningRateMonitor):
        seen = ()

        def on_train_batch_start(self, trainer, *rest):
            self.seen += (trainer.optimizers[0].param_groups[0]["lr"],)
            super().on_train_batch_start(trainer, *rest)

    network, monitor = Recorded(lr=0.1), Monitor()
    pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        limit_val_batches=0,
        callbacks=[monitor],
        logger=CSVLogger(tmp_path),
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(network, Generated(16, **SMALL))
    assert list(monitor.seen) == network.rates == pytest.approx(cosine(8))


def test_gradients_that_are_accumulated_have_the_rate_of_their_last_batch():
    class Rates(pl.Callback):
        seen = ()

        def on_before_optimizer_step(self, trainer, module, optimizer):  # noqa: ARG002
            self.seen += (optimizer.param_groups[0]["lr"],)

    rates = Rates()
    fit(Recorded(lr=0.1), size=20, accumulate_grad_batches=2, callbacks=[rates])
    done = [1, 3, 4, 6, 8, 9]  # 5 batches an epoch, the last step is of one
    assert rates.seen == pytest.approx([cosine(10)[k] for k in done])


def test_an_own_configure_optimizers_counts():
    class Own(Recorded):
        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.3)
            scheduler = {"scheduler": ExponentialLR(optimizer, 0.5), "interval": "step"}
            return {"optimizer": optimizer, "lr_scheduler": scheduler}

    network = Own(lr=0.1)
    trainer = fit(network, max_epochs=1)
    assert network.steps == [(1e-3 * 0.5**k, 0.3) for k in range(4)]
    assert float(trainer.callback_metrics["lr"]) == pytest.approx(1e-3 * 0.5**3)


@pytest.mark.parametrize("hook", ["on_train_start", "on_train_epoch_start", "on_train_batch_start"])
def test_a_callback_that_sets_the_rate_is_obeyed(hook):
    class Set(pl.Callback):
        pass

    def set_rate(self, trainer, *_):  # noqa: ARG001
        for group in trainer.optimizers[0].param_groups:
            group.update(lr=0.025, weight_decay=0.7)

    setattr(Set, hook, set_rate)
    network = Recorded(lr=0.1, lr_schedule="constant")
    fit(network, callbacks=[Set()])
    assert network.rates == pytest.approx([0.025] * 8)
    assert {decay for _, decay in network.steps} == {0.7}


def test_the_schedule_scales_a_rate_that_a_callback_set():
    class Half(pl.Callback):
        def on_train_epoch_start(self, trainer, module):  # noqa: ARG002
            if trainer.current_epoch == 1:
                trainer.optimizers[0].param_groups[0]["lr"] *= 0.5

    network = Recorded(lr=0.1)
    fit(network, callbacks=[Half()])
    expected = [rate * (0.5 if k >= 4 else 1) for k, rate in enumerate(cosine(8))]
    assert network.rates == pytest.approx(expected)


def test_a_resumed_run_takes_rate_and_decay_of_now(tmp_path):
    trainer = fit(Recorded(lr=0.1), max_epochs=2)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    network = Recorded(lr=0.2, weight_decay=0.5)
    trainer = quiet_trainer(max_epochs=4, limit_val_batches=0)
    trainer.fit(network, Generated(16, **SMALL), ckpt_path=tmp_path / "a.ckpt")
    assert network.rates == pytest.approx(cosine(16, 0.2)[8:])
    assert {decay for _, decay in network.steps} == {0.5}


def test_stochastic_weight_averaging_runs_to_its_end_without_a_longer_cosine():
    averaging = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=3, annealing_epochs=1)
    network = Recorded(lr=0.1)
    trainer = fit(network, max_epochs=4, callbacks=[averaging])
    assert network.rates[:8] == pytest.approx(cosine(16)[:8])
    assert network.rates[-4:] == [0.01] * 4
    assert trainer.max_epochs == 4
    assert int(averaging.n_averaged) == 2


class Endless(IterableDataset):
    """Six batches, of which the loader does not know the number."""

    def __iter__(self):
        for k in range(6):
            yield torch.zeros(4, 3, 2, 16, 16) + k, torch.tensor([0, 1, 2, 0])


def test_with_a_loader_of_unknown_length_the_rate_follows_the_epochs():
    network = Recorded(lr=0.1)
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(network, DataLoader(Endless(), batch_size=None))
    assert network.rates == pytest.approx([0.1] * 6 + [0.05] * 6)


def test_without_a_trainer_there_is_the_optimizer_alone():
    optimizer = Recorded(lr=0.1, backbone_lr=0.5).configure_optimizers()
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.05]
