"""Multigrid training under Lightning: shapes, rates, lengths, progress, validation, options."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
from generated import Generated
from pytorch_lightning.callbacks import RichProgressBar
from small_network import small_classifier
from torch import nn

from vidpool.data.multigrid_schedule import MultigridSchedule
from vidpool.data.schedule import plan_epoch
from vidpool.errors import ConfigError
from vidpool.nn import SubBatchNorm
from vidpool.train.callbacks.multigrid import Multigrid
from vidpool.train.classifier import VideoClassifier
from vidpool.train.lr_scheduler import lr_factor

pytestmark = pytest.mark.filterwarnings("ignore")
STEPS = {"lr_schedule": "step", "milestones": [2.0, 3.0]}


class Log(pl.Callback):
    """What each step was, and when validation came."""

    def __init__(self):
        self.steps = []
        self.lengths = {}
        self.validated = []

    def on_before_optimizer_step(self, trainer, module, optimizer):  # noqa: ARG002
        self.rate = optimizer.param_groups[0]["lr"]

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):  # noqa: ARG002
        clip = tuple(batch["clip"].shape)
        self.steps.append((trainer.current_epoch, batch_idx, clip, self.rate))
        self.lengths[trainer.current_epoch] = trainer.num_training_batches

    def on_validation_end(self, trainer, module):  # noqa: ARG002
        if not trainer.sanity_checking:
            self.validated.append((trainer.current_epoch, trainer.fit_loop.batch_idx))


class Bar(RichProgressBar):
    """Keeps the totals that it shows."""

    def __init__(self):
        super().__init__()
        self.totals = []

    def on_train_epoch_start(self, trainer, module):
        super().on_train_epoch_start(trainer, module)
        self.totals.append(self.total_train_batches)


def fit(folder, *callbacks, size=130, model=STEPS, epochs=4, batch_size=2, **options):
    log = Log()
    pl.seed_everything(3, verbose=False)
    module = small_classifier(lr=0.01, **model)
    data = Generated(size, batch_size=batch_size)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[*callbacks, log],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        **{"enable_progress_bar": False} | options,
    )
    trainer.fit(module, data)
    return log, data, module


@pytest.mark.parametrize("variant", ["paper", "original"])
def test_steps_are_the_schedules(tmp_path, variant):
    log, data, _ = fit(tmp_path, Multigrid(variant))
    schedule = MultigridSchedule(data.preprocessing.shape, 2, 4, (2, 3), variant)
    assert data.schedule.phases == schedule.phases
    expected = []
    for epoch in range(schedule.epochs):
        plan = plan_epoch(schedule, epoch, 130)
        assert log.lengths[epoch] == len(plan)
        for number, step in enumerate(plan):
            clip = (step.batch_size, 3, step.shape.frames, step.shape.crop, step.shape.crop)
            recipe = schedule.recipe_epoch(epoch + step.first / 130)
            rate = 0.01 * lr_factor(recipe, "step", 4, milestones=(2, 3)) * step.lr_factor
            expected.append((epoch, number, clip, pytest.approx(rate)))
    assert log.steps == expected
    assert schedule.epochs == (4 if variant == "paper" else 6)


def test_lengths_progress_and_validation_follow_the_epoch(tmp_path):
    bar = Bar()
    multigrid = Multigrid("original")
    options = {"enable_progress_bar": True, "check_val_every_n_epoch": 2}
    log, *_ = fit(tmp_path, multigrid, bar, **options)
    assert len(set(log.lengths.values())) > 2
    assert bar.totals == list(log.lengths.values())
    # after the last step of every other epoch
    assert log.validated == [(epoch, log.lengths[epoch] - 1) for epoch in (1, 3, 5)]


def test_validation_within_an_epoch(tmp_path):
    log, *_ = fit(tmp_path, Multigrid(), epochs=1, val_check_interval=0.5, model=STEPS)
    half = log.lengths[0] // 2
    assert log.validated == [(0, half - 1), (0, 2 * half - 1)]


def test_a_cosine_falls_to_its_end_with_the_clips(tmp_path):
    model = {"lr_schedule": "cosine", "warmup_epochs": 0.25}
    log, data, _ = fit(
        tmp_path, Multigrid(long_cycle=False, epoch_factor=1.5), model=model, epochs=2
    )
    assert data.schedule.epochs == 3
    for epoch, number, _, rate in log.steps:
        first = plan_epoch(data.schedule, epoch, 130)[number].first
        recipe = (epoch + first / 130) / 1.5
        assert rate == pytest.approx(0.01 * lr_factor(recipe, "cosine", 2, 0.25))
    assert log.steps[-1][-1] < 1e-4


def test_a_limit_of_steps_ends_the_rates_too(tmp_path):
    """A trial run of few batches still falls over all of its epochs."""
    model = {"lr_schedule": "cosine"}
    log, *_ = fit(tmp_path, model=model, epochs=2, size=60, limit_train_batches=5)
    rates = [rate for *_, rate in log.steps]
    assert rates == pytest.approx([0.01 * lr_factor(k / 5, "cosine", 2) for k in range(10)])


def test_sub_batch_norm_by_option(tmp_path):
    multigrid = Multigrid(sub_batch_norm=4)
    *_, module = fit(tmp_path, multigrid, limit_train_batches=2)
    norms = [layer for layer in module.modules() if isinstance(layer, SubBatchNorm)]
    assert len(norms) == 1
    assert {layer.clips for layer in norms} == {4}
    assert not any(isinstance(layer, nn.BatchNorm3d) for layer in module.modules())
    plain = small_classifier()
    plain.load_state_dict(module.state_dict())
    # what trainer.sync_batchnorm does, which Lightning has on GPUs only
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    sampler = SimpleNamespace(total=130, num_replicas=1)
    trainer = SimpleNamespace(train_dataloader=SimpleNamespace(scheduled=sampler))
    with pytest.raises(ConfigError, match="exclude each other"):
        multigrid.on_train_start(trainer, converted)


def test_a_second_fit_does_not_stretch_again(tmp_path):
    multigrid, log = Multigrid("original"), Log()
    pl.seed_everything(3, verbose=False)
    module = small_classifier(lr=0.01, **STEPS)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=4,
        callbacks=[multigrid, log],
        default_root_dir=tmp_path,
        limit_train_batches=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    for _ in range(2):
        trainer.fit(module, Generated())
        assert trainer.max_epochs == 6


@pytest.mark.parametrize(
    ("multigrid", "options", "message"),
    [
        ({}, {"size": 50}, r"batch_size 2 .* 50 training clips.*short cycle alone"),
        ({}, {"size": 70, "batch_size": 3}, r"up to 84 clips; batch_size must be 1 or less"),
        ({"variant": "original"}, {"model": {"lr_schedule": "cosine"}}, "must be step"),
        ({}, {"epochs": -1, "max_steps": 9}, "max_epochs of the Trainer"),
        ({"sub_batch_norm": 0}, {}, "at least 1 clip"),
        ({}, {"model": {**STEPS, "backbone": "torchvision/mvit_v2_s"}}, "16x224x224 only"),
    ],
)
def test_what_does_not_go_together(tmp_path, multigrid, options, message):
    model = options.get("model", STEPS)
    if "backbone" in model:
        module = VideoClassifier(num_classes=3, pooling=None, **model)
        with pytest.raises(ConfigError, match=message):
            Multigrid(**multigrid).schedule(Generated().preprocessing.shape, 2, 9, module.hparams)
        return
    with pytest.raises(ConfigError, match=message):
        fit(tmp_path, Multigrid(**multigrid), **options)
