"""Lightning's tuners find what is run, and run what they find."""

import pytest
import torch
from generated import Generated, quiet_trainer
from pytorch_lightning.callbacks import (
    BatchSizeFinder,
    LearningRateFinder,
    StochasticWeightAveraging,
)
from pytorch_lightning.tuner import Tuner
from small_network import small_network

from vidpool.data.multigrid_schedule import MultigridSchedule
from vidpool.errors import ConfigError
from vidpool.train.callbacks.multigrid import Multigrid
from vidpool.train.classifier import VideoClassifier

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = {"frames": 2, "crop": 16, "short_side": 16, "batch_size": 4}
SEARCH = {"early_stop_threshold": None}


class Recorded(VideoClassifier):
    """Notes the rates of all parameter groups, the batch and the first weight in each step."""

    def __init__(self, **options):
        super().__init__(small_network(), num_classes=3, **options)
        self.rates, self.sizes, self.weights = [], [], []

    def training_step(self, batch, batch_idx):
        groups = self.trainer.optimizers[0].param_groups
        self.rates.append([group["lr"] for group in groups])
        self.sizes.append(len(batch["label"]))
        self.weights.append(self.model.conv.weight.detach().clone())
        return super().training_step(batch, batch_idx)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def trainer(**options):
    return quiet_trainer(**{"max_epochs": 8, "limit_val_batches": 0} | options)


def test_the_tuner_tries_what_it_says_and_its_rate_is_trained_with():
    network = Recorded(lr=0.1, lr_schedule="constant", backbone_lr=0.5)
    tuner = Tuner(trainer())
    found = tuner.lr_find(network, datamodule=Generated(16, **SMALL), num_training=20, **SEARCH)
    assert [rates[0] for rates in network.rates] == found.results["lr"]
    assert all(rates[1] == 0.5 * rates[0] for rates in network.rates)
    best = found.suggestion()
    assert network.hparams.lr == best != 0.1
    network.rates.clear()
    trainer(max_epochs=1).fit(network, Generated(16, **SMALL))
    assert network.rates == [[best, 0.5 * best]] * 4


@pytest.mark.parametrize("own", [False, True])
def test_the_rate_that_the_callback_finds_holds_for_all_later_steps(own):
    options = {"lr_schedule": "step", "milestones": [4]}
    if own:
        options = {"lr_scheduler": lambda made: torch.optim.lr_scheduler.StepLR(made, 4)}
    network = Recorded(lr=0.1, backbone_lr=0.5, **options)
    finder = LearningRateFinder(num_training_steps=20, **SEARCH)
    trainer(callbacks=[finder]).fit(network, Generated(16, **SMALL))
    best = finder.optimal_lr.suggestion()
    assert [rates[0] for rates in network.rates[:20]] == finder.optimal_lr.results["lr"]
    after = network.rates[20:]
    assert len(after) == 32
    assert after[0] == pytest.approx([best, 0.5 * best])
    assert {round(rates[0] / best, 9) for rates in after} == {1.0, 0.1}
    assert all(rates[1] == pytest.approx(0.5 * rates[0]) for rates in after)


def test_weights_to_fine_tune_are_loaded_before_the_search():
    torch.manual_seed(1)
    other = Recorded()
    torch.save(other.model.state_dict(), "other.pth")
    network = Recorded(init_from="other.pth", lr_schedule="constant")
    finder = LearningRateFinder(num_training_steps=12, **SEARCH)
    trainer(callbacks=[finder]).fit(network, Generated(16, **SMALL))
    assert torch.equal(network.weights[0], other.model.conv.weight)
    assert torch.equal(network.weights[12], other.model.conv.weight)


@pytest.mark.parametrize(
    "callback",
    [LearningRateFinder(), BatchSizeFinder(), StochasticWeightAveraging(swa_lrs=0.01)],
    ids=lambda callback: type(callback).__name__,
)
def test_multigrid_refuses_them_in_words(callback):
    name = type(callback).__name__
    network = Recorded(lr_schedule="step", milestones=[2])
    with pytest.raises(ConfigError, match=f"multigrid and {name} exclude each other: .* one shape"):
        trainer(callbacks=[Multigrid(), callback]).fit(network, Generated())


def test_the_batch_size_finder_needs_one_size_and_one_process(monkeypatch):
    data = Generated(16, **SMALL)
    data.schedule = MultigridSchedule(data.preprocessing.shape, 2, 4)
    with pytest.raises(ConfigError, match=r"needs batches of one size, .* a MultigridSchedule"):
        Tuner(trainer()).scale_batch_size(Recorded(), datamodule=data)
    monkeypatch.setattr("pytorch_lightning.Trainer.world_size", 2)
    with pytest.raises(ConfigError, match="needs a single process, but there are 2"):
        Tuner(trainer()).scale_batch_size(Recorded(), datamodule=Generated(16, **SMALL))


@pytest.mark.parametrize("way", ["tuner", "callback"])
def test_the_batch_size_that_is_found_is_trained_with(way):
    # Lightning makes the first trial with the size that the data has
    network = Recorded(lr_schedule="constant")
    data = Generated(64, **{**SMALL, "batch_size": 2})
    options = {"max_trials": 3, "steps_per_trial": 1}
    if way == "tuner":
        assert Tuner(trainer()).scale_batch_size(network, datamodule=data, **options) == 8
        assert network.sizes == [2, 4, 8]
        network.sizes.clear()
        trainer(max_epochs=1).fit(network, data)
    else:
        trainer(max_epochs=1, callbacks=[BatchSizeFinder(**options)]).fit(network, data)
        assert network.sizes[:3] == [2, 4, 8]
        del network.sizes[:3]
    assert data.batch_size == 8
    assert network.sizes == [8] * 8
