"""Loaders that Lightning makes again, that go without it, and whose batch size is searched for."""

import copy
import pickle
import warnings

import pytest
import pytorch_lightning as pl
import torch
from generated import Generated, quiet_trainer
from pytorch_lightning.callbacks import BatchSizeFinder
from pytorch_lightning.tuner import Tuner
from torch.utils.data import RandomSampler
from torch.utils.data._utils.pin_memory import pin_memory
from watched import Watched

from vidpool.data import Augmentation, ShardDataModule, VideoFolderDataModule, example_dataset
from vidpool.data.multigrid_schedule import MultigridSchedule
from vidpool.data.schedule import ConstantSchedule
from vidpool.data.shards.writer import make_shards
from vidpool.data.views import ClipShape
from vidpool.errors import ConfigError

SMALL = {
    "frames": 4,
    "stride": 1,
    "crop": 16,
    "short_side": 20,
    "batch_size": 2,
    "test_clips": 2,
    "num_workers": 0,
}


class Both(Watched):
    """Keeps what it is trained on, and returns what it predicts on."""

    def validation_step(self, batch):
        pass

    def predict_step(self, batch):
        return batch["video"].tolist(), tuple(batch["clip"].shape)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "out"
    make_shards(VideoFolderDataModule(str(example_dataset()), **SMALL), folder, num_workers=0)
    return str(folder)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(params=["files", "shards"])
def data(request):
    def make(**options):
        if request.param == "shards":
            folder = request.getfixturevalue("shards")
            return ShardDataModule(folder, **{**SMALL, **options})
        return VideoFolderDataModule(str(example_dataset()), **{**SMALL, **options})

    return make


def seeds(batches):
    return [batch["seed"] for batch in batches]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("through_datamodule", [True, False])
def test_overfit_batches_has_the_same_batches_in_every_epoch(data, workers, through_datamodule):
    model, module = Both(), data(num_workers=workers, worker_start="fork")
    trainer = quiet_trainer(max_epochs=3, overfit_batches=2)
    if through_datamodule:
        trainer.fit(model, datamodule=module)
    else:
        trainer.fit(model, module.train_dataloader(), module.val_dataloader())
    first, second, third = (model.seen[epoch] for epoch in range(3))
    assert len(first) == 2
    assert seeds(first) == seeds(second) == seeds(third)
    assert all(torch.equal(a["clip"], b["clip"]) for a, b in zip(first, third, strict=True))
    assert trainer.train_dataloader.scheduled.total == 6


def test_overfit_batches_resumes_after_an_epoch(data, tmp_path):
    def fit(epochs, ckpt_path=None):
        model, trainer = Both(), quiet_trainer(max_epochs=epochs, overfit_batches=2)
        trainer.fit(model, data(), ckpt_path=ckpt_path, weights_only=False)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return {epoch: seeds(batches) for epoch, batches in model.seen.items()}

    whole = fit(1)
    assert fit(2, tmp_path / "last.ckpt") == {1: whole[0]}


def test_predict_gets_every_view(data):
    module = data(test_crops=3)
    views = quiet_trainer().predict(Both(), module)
    assert [video for videos, _ in views for video in videos] == [
        n for n in range(4) for _ in range(6)
    ]
    assert {shape[1:] for _, shape in views} == {(3, 4, 16, 16)}
    given = quiet_trainer().predict(Both(), data().val_dataloader())
    assert [video for videos, _ in given for video in videos] == [0, 1, 2, 3]


def test_another_sampler_is_refused():
    loader = VideoFolderDataModule(str(example_dataset()), **SMALL).train_dataloader()
    with pytest.raises(
        ConfigError, match="follow a schedule, which RandomSampler cannot"
    ) as caught:
        type(loader)(loader.dataset, loader.scheduled, sampler=RandomSampler(range(3)))
    assert caught.value.argument == "sampler"


def test_passes_without_a_trainer_are_epochs(data):
    loader, other = data().train_dataloader(), data().train_dataloader()
    passes = [seeds(loader) for _ in range(3)]
    assert passes[0] != passes[1] != passes[2] != passes[0]
    for epoch in (2, 0, 1):
        other.sampler.set_epoch(epoch)
        assert seeds(other) == passes[epoch]
    assert seeds(other) == passes[2]
    begun = iter(loader)
    next(begun)  # a pass that is not finished
    other.sampler.set_epoch(4)
    assert seeds(loader) == seeds(other)


def test_evaluation_passes_are_alike(data):
    loader = data().val_dataloader()
    assert seeds(loader) == seeds(loader)


def test_the_seed_without_a_trainer_is_pytorchs(data, monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)

    def drawn(seed):
        torch.manual_seed(seed)
        return seeds(data().train_dataloader())

    with torch.random.fork_rng():
        assert drawn(1) == drawn(1) != drawn(2)
        monkeypatch.setenv("PL_GLOBAL_SEED", "9")
        assert drawn(1) == drawn(2)


def test_shards_of_another_seed_cannot_resume(shards, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    loader = ShardDataModule(shards, **SMALL).train_dataloader()
    next(iter(loader))
    state = loader.state_dict()
    monkeypatch.setenv("PL_GLOBAL_SEED", "2")
    other = ShardDataModule(shards, **SMALL).train_dataloader()
    other.load_state_dict(state)
    with pytest.raises(ConfigError, match="the seed was 1 and is 2"):
        list(other)


@pytest.mark.parametrize(
    ("augment", "carried"),
    [
        (Augmentation(), False),
        (Augmentation(brightness=0.2, erase=1.0), False),
        (Augmentation(on_device=True), True),
        (Augmentation(mixup=0.5), True),
        (Augmentation(cutmix=0.5), True),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_carry_what_is_left_for_the_device(data, augment, carried, workers, monkeypatch):
    """Through worker processes and Lightning's transfer."""
    module = data(augment=augment, num_workers=workers, worker_start="fork")
    assert not any("augment" in batch for batch in module.val_dataloader())
    seen = []
    monkeypatch.setattr(
        type(module), "on_after_batch_transfer", lambda _, batch, __: seen.append(batch) or batch
    )
    quiet_trainer(max_epochs=1).fit(Watched(), module)
    assert len(seen) == 3
    for batch in seen:
        assert batch.get("augment") == (augment if carried else None)


def test_an_augmentation_survives_pickling_and_pinning():
    batch = {"augment": Augmentation(mixup=0.3), "seed": [1]}
    assert pin_memory(batch) == batch  # tensors need a GPU
    assert pickle.loads(pickle.dumps(batch)) == batch


def sizes(loader):
    return [len(batch["label"]) for batch in loader]


def test_the_batch_size_is_that_of_the_attribute(data):
    module = data()
    module.batch_size = 4
    assert sizes(module.train_dataloader()) == [4, 2]
    assert sizes(module.val_dataloader()) == [4]
    fixed = data(eval_batch_size=3)
    fixed.batch_size = 4
    assert sizes(fixed.val_dataloader()) == [3, 1]
    for bad in (0, -1):
        with pytest.raises(ConfigError, match=f"at least 1, got {bad}") as caught:
            module.batch_size = bad
        assert caught.value.argument == "batch_size"
    assert module.batch_size == 4


def test_a_constant_schedule_of_another_shape_stays_so(data):
    module = data()
    module.schedule = ConstantSchedule(ClipShape(2, 1, 8), 3)
    module.batch_size = 6
    (batch,) = module.train_dataloader()
    assert batch["clip"].shape == (6, 3, 2, 8, 8)


@pytest.mark.parametrize("callback", [True, False])
def test_lightning_finds_the_batch_size(data, callback, tmp_path):
    model, module = Both(), data()
    options = {"max_trials": 2, "steps_per_trial": 1, "init_val": 2}
    trainer = quiet_trainer(
        max_epochs=1,
        default_root_dir=tmp_path,
        callbacks=[BatchSizeFinder(**options)] if callback else [],
    )
    if callback:
        trainer.fit(model, module)
    else:
        assert Tuner(trainer).scale_batch_size(model, datamodule=module, **options) == 4
    tried = [len(batch["label"]) for batch in model.seen[0]]
    assert tried[:2] == [2, 4]
    assert module.batch_size == 4
    assert tried[2:] == ([4, 2] if callback else [])


def test_a_batch_size_with_multigrid_is_refused(data):
    module = data()
    module.schedule = MultigridSchedule(ClipShape(4, 1, 16), 2, 4)
    with pytest.raises(ConfigError, match=r"batch_size .*MultigridSchedule .*without multigrid"):
        Tuner(quiet_trainer(max_epochs=1)).scale_batch_size(Both(), datamodule=module)
    assert module.batch_size == 2


def test_a_batch_size_of_several_running_processes_is_refused():
    module = Generated(6)
    trainer = quiet_trainer(max_epochs=1)
    module.trainer = trainer
    module.batch_size = 3  # not running

    class Spread(pl.Callback):
        def on_train_start(self, trainer, _):
            copied = copy.copy(trainer)
            copied.__class__ = type("Two", (pl.Trainer,), {"world_size": 2})
            module.trainer = copied
            with pytest.raises(ConfigError, match="cannot become 4 while 2 processes run"):
                module.batch_size = 4
            module.trainer = trainer

    trainer.callbacks.append(Spread())
    trainer.fit(Both(), module)
    assert module.batch_size == 3
