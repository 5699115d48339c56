"""What a checkpoint has that is saved because a job's time is up."""

import os
import signal
import sys

import pytest
import pytorch_lightning as pl
import torch
from generated import Generated, quiet_trainer
from pytorch_lightning.callbacks import EMAWeightAveraging

from vidpool.train.callbacks.interruptions import RequeueBetweenBatches
from vidpool.train.classifier import VideoClassifier

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(sys.platform == "win32", reason="signals"),
]


class Signal(pl.Callback):
    """Gives the signal in validation, or at a batch of training; saves where Lightning would."""

    def __init__(self, path, batch=None):
        self.path = path
        self.batch = batch
        self.trained = None

    def on_fit_start(self, trainer, _):
        signal.signal(signal.SIGUSR1, lambda *_: trainer.save_checkpoint(self.path))

    def on_train_batch_end(self, _trainer, module, _outputs, _batch, batch_idx):
        self.trained = {name: value.clone() for name, value in module.state_dict().items()}
        if batch_idx == self.batch:
            os.kill(os.getpid(), signal.SIGUSR1)

    def on_validation_batch_start(self, *_):
        if self.batch is None:
            os.kill(os.getpid(), signal.SIGUSR1)


@pytest.fixture
def fit():
    """Trains a small network for an epoch of 16 batches."""
    before = signal.getsignal(signal.SIGUSR1)

    def train(*callbacks, **options):
        trainer = quiet_trainer(max_epochs=1, callbacks=list(callbacks), **options)
        trainer.fit(VideoClassifier("r3d_18", 3, width=4, lr=0.01), Generated(32))

    yield train
    signal.signal(signal.SIGUSR1, before)


def test_in_validation_the_trained_weights_are_not_taken_for_their_average(fit, tmp_path):
    given = Signal(tmp_path / "saved.ckpt")
    fit(EMAWeightAveraging(decay=0.5), given, RequeueBetweenBatches())
    saved = torch.load(given.path, weights_only=True)
    for name, value in given.trained.items():
        assert torch.equal(saved["current_model_state"][name], value), name
    weight = "model.fc.weight"
    assert not torch.equal(saved["state_dict"][weight], given.trained[weight])


def test_gradients_that_add_up_are_not_lost(fit, tmp_path):
    given = Signal(tmp_path / "saved.ckpt", batch=1)
    fit(given, RequeueBetweenBatches(), accumulate_grad_batches=4)
    saved = torch.load(given.path, weights_only=True)
    batches = saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["processed"]
    assert batches == 4
