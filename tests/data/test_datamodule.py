"""The loaders that training, validation and testing get."""

import operator
import traceback
import warnings
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from numbered_set import LABELS
from torch.utils.data import DistributedSampler
from watched import watch

from vidpool.data.catalogue.listing import Listing
from vidpool.data.catalogue.table import VideoTable
from vidpool.data.datamodule import MEAN, STD
from vidpool.data.datasets.ucf101 import UCF101DataModule
from vidpool.data.listed import ListedDataModule
from vidpool.data.schedule import Step
from vidpool.data.transforms.augmentation import Augmentation
from vidpool.data.views import ClipShape
from vidpool.errors import ConfigError, DataError, VideoError
from vidpool.train.batches import prepare
from vidpool.video import open_video

SMALL = {
    "frames": 4,
    "stride": 2,
    "crop": 32,
    "short_side": 40,
    "batch_size": 2,
    "test_clips": 3,
    "test_crops": 3,
    "num_workers": 0,
}


class Videos(ListedDataModule):
    """The same videos in every split."""

    def __init__(self, videos, **options):
        super().__init__(root=".", **{**SMALL, **options})
        self.list = videos

    def annotation_files(self):
        return []

    def read_listing(self):
        splits = dict.fromkeys(("train", "val", "test"), (0, len(self.list)))
        return Listing(["a", "b", "c"], VideoTable.of(self.list), splits)


class Varying:
    """Shape and batch size change from step to step and from epoch to epoch."""

    def step(self, epoch, step, used):  # noqa: ARG002
        return Step(ClipShape(2 + step, 1 + epoch, 16 + 8 * epoch), 1 + (epoch + step) % 3)


def test_training_loader(numbered):
    loader = Videos(numbered).train_dataloader()
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert [batch["clip"].shape[0] for batch in batches] == [2, 2, 1]
    for batch in batches:
        assert batch["clip"].dtype == torch.uint8
        assert batch["clip"].shape[1:] == (3, 4, 32, 32)
        assert batch["label"].tolist() == [LABELS[index] for index in batch["video"].tolist()]
        assert batch["counted"].all()
    order = torch.cat([batch["video"] for batch in batches]).tolist()
    assert sorted(order) == [0, 1, 2, 3, 4]


def test_class_balanced_sampling_is_of_training_alone(numbered):
    videos = [video._replace(label=2 * (n == 4)) for n, video in enumerate(numbered)]
    data = Videos(videos, sampling="class_balanced", batch_size=5)
    (batch,) = data.train_dataloader()
    assert sorted(batch["label"].tolist()) in ([0, 0, 0, 2, 2], [0, 0, 2, 2, 2])
    (batch,) = data.val_dataloader()
    assert batch["label"].tolist() == [0, 0, 0, 0, 2]


def test_validation_loader_takes_one_view_of_each_video(numbered):
    loader = Videos(numbered, batch_size=9, eval_batch_size=3).val_dataloader()
    batches = list(loader)
    assert [batch["clip"].shape for batch in batches] == [(3, 3, 4, 32, 32), (2, 3, 4, 32, 32)]
    assert {batch["clip"].dtype for batch in batches} == {torch.uint8}
    assert torch.cat([batch["video"] for batch in batches]).tolist() == [0, 1, 2, 3, 4]
    assert torch.cat([batch["label"] for batch in batches]).tolist() == list(LABELS)


def test_test_loader_takes_all_views(numbered):
    batches = list(Videos(numbered, batch_size=4).test_dataloader())
    # 15 clips of three crops each, four clips a batch
    assert [batch["clip"].shape[0] for batch in batches] == [12, 12, 12, 9]
    videos = torch.cat([batch["video"] for batch in batches]).tolist()
    assert videos == np.repeat(range(5), 9).tolist()


def test_validation_is_the_central_view_of_testing(numbered):
    data = Videos(numbered, test_clips=1, batch_size=5)
    (testing,) = data.test_dataloader()
    (validation,) = data.val_dataloader()
    views = testing["clip"].unflatten(0, (5, 3))  # videos, crops
    assert torch.equal(views[:, 1], validation["clip"])


def test_static_is_of_evaluation_alone(numbered):
    data = Videos(numbered, static=True, stride=4)
    for loader in (data.val_dataloader(), data.test_dataloader()):
        for batch in loader:
            assert (batch["clip"] == batch["clip"][:, :, :1]).all()
    clips = torch.cat([batch["clip"] for batch in data.train_dataloader()])
    assert (clips != clips[:, :, :1]).flatten(1).any(dim=1).all()


def test_batches_are_normalised_on_arrival(numbered):
    data = Videos(numbered, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    batch = next(iter(data.val_dataloader()))
    arrived = prepare(batch, data.preprocessing.mean, data.preprocessing.std, 3)
    exact = batch["clip"].double() / 255
    exact -= torch.tensor([0.1, 0.2, 0.3], dtype=torch.double).view(3, 1, 1, 1)
    exact /= torch.tensor([0.4, 0.5, 0.6], dtype=torch.double).view(3, 1, 1, 1)
    assert arrived["clip"].dtype == torch.float32
    assert (arrived["clip"] - exact).abs().max() < 1e-6
    assert batch["clip"].dtype == torch.uint8
    for key in ("label", "video", "counted"):
        assert torch.equal(arrived[key], batch[key])


def arrivals(numbered, folder, **augment):
    """What training gets, by video, in the first epoch."""
    data = Videos(numbered, batch_size=5, augment=Augmentation(**augment))
    model, _ = watch(data, folder)
    (batch,) = model.seen[0]
    return prepare(batch, MEAN, STD, data.num_classes)


def test_changes_on_the_device_are_those_in_the_loader(numbered, tmp_path):
    options = {"authors": 1.0, "rand_augment": 1, "erase": 1.0, "brightness": 0.2}
    here = arrivals(numbered, tmp_path, **options)
    there = arrivals(numbered, tmp_path, on_device=True, **options)
    assert here["video"].tolist() == there["video"].tolist()
    assert torch.equal(here["clip"], there["clip"])
    assert not torch.equal(here["clip"], arrivals(numbered, tmp_path)["clip"])


def test_mixed_clips_have_shares_of_classes_and_a_main_label(numbered, tmp_path):
    plain = arrivals(numbered, tmp_path)
    mixed = arrivals(numbered, tmp_path, mixup=1.0)
    assert "target" not in plain
    labels = plain["label"]
    share = mixed["target"][0, labels[0]]
    expected = share * plain["clip"] + (1 - share) * plain["clip"].roll(1, 0)
    if labels[0] != labels[-1]:
        torch.testing.assert_close(mixed["clip"], expected)
    assert torch.equal(mixed["label"], mixed["target"].argmax(1))
    assert torch.equal(mixed["video"], plain["video"])


def test_evaluation_is_neither_changed_nor_mixed(numbered):
    augment = Augmentation(authors=1.0, erase=1.0, mixup=1.0, on_device=True)
    data = Videos(numbered, augment=augment)
    assert next(iter(data.train_dataloader()))["augment"] == augment
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert all("augment" not in batch for batch in loader)


def test_normalisation_is_by_default_that_of_kinetics(numbered):
    data = Videos(numbered)
    assert data.describe()["preprocessing"]["mean"] == list(MEAN)
    assert data.describe()["preprocessing"]["std"] == list(STD)


def test_description_is_what_prediction_needs(numbered):
    description = Videos(numbered).describe()
    assert description["class_names"] == ["a", "b", "c"]
    named = ("frames", "stride", "short_side", "crop", "clips", "crops")
    values = [description["preprocessing"][name] for name in named]
    assert values == [4, 2, 40, 32, 3, 3]


def ranks(numbered, world, epoch=0):
    """The datamodule as each rank of a trainer has it."""
    for rank in range(world):
        data = Videos(numbered)
        data.trainer = SimpleNamespace(world_size=world, global_rank=rank, current_epoch=epoch)
        yield data


def test_ranks_share_the_videos(numbered):
    training = [[batch["video"] for batch in r.train_dataloader()] for r in ranks(numbered, 2)]
    assert [[len(videos) for videos in own] for own in training] == [[2], [2]]
    assert len(set(torch.cat([*chain.from_iterable(training)]).tolist())) == 4

    testing = [list(r.test_dataloader()) for r in ranks(numbered, 2)]
    assert len(testing[0]) == len(testing[1]) == 4
    counted = [b["video"][b["counted"]] for own in testing for b in own]
    assert sorted(torch.cat(counted).tolist()) == np.repeat(range(5), 9).tolist()


def test_the_trainers_epoch_reaches_the_loader(numbered):
    orders = []
    for epoch in (0, 1, 2):
        (data,) = ranks(numbered, 1, epoch)
        loader = data.train_dataloader()
        assert loader.sampler.epoch == epoch
        orders.append([r.seed for requests in loader.sampler for r in requests])
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_lightnings_seed_is_the_samplers(numbered, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # so that it is put back
    seeds = {}
    for seed in (3, 4):
        with torch.random.fork_rng():
            pl.seed_everything(seed, verbose=False)
            sampler = Videos(numbered).train_dataloader().sampler
        seeds[seed] = [r.seed for requests in sampler for r in requests]
    assert seeds[3] != seeds[4]
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    sampler = Videos(numbered).train_dataloader().sampler
    assert [r.seed for requests in sampler for r in requests] == seeds[3]


def test_the_same_clips_with_any_number_of_workers(numbered, broken, monkeypatch):
    """In this process, in forked ones and in spawned ones, in two epochs."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "11")

    def two_epochs(workers, worker_start):
        data = Videos(
            [*numbered, broken[2]],
            augment=Augmentation(brightness=0.4, hue=0.1),
            on_bad_video="substitute",
            num_workers=workers,
            worker_start=worker_start,
        )
        torch.manual_seed(workers)  # of no influence
        loader = data.train_dataloader()
        loader.timeout = 120 if workers else 0
        batches = []
        for epoch in (0, 1):
            loader.sampler.set_epoch(epoch)
            batches.append(list(loader))
        return batches

    here = two_epochs(0, None)
    assert sum(len(batch["bad"]) for batch in here[0]) == 1
    assert not torch.equal(here[0][0]["clip"], here[1][0]["clip"])
    for workers, worker_start in ((1, "fork"), (3, "fork"), (1, "spawn")):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            there = two_epochs(workers, worker_start)
        for one, other in zip(chain(*here), chain(*there), strict=True):
            assert one.keys() == other.keys()
            for key, value in one.items():
                equal = torch.equal if isinstance(value, torch.Tensor) else operator.eq
                assert equal(value, other[key]), (key, workers, worker_start)


def failure(loader):
    """Read until a video cannot be decoded; return what the error says."""
    loader.timeout = 60  # a hang would be an error of another type
    try:
        list(loader)
    except VideoError as error:
        # else the workers are waited for, 5 s, when the garbage collector finds them
        traceback.clear_frames(error.__traceback__)
        return str(error)
    pytest.fail("no error")


def test_a_broken_video_in_a_worker_ends_the_run_by_its_name(numbered, broken):
    data = Videos([*numbered, broken[2]], num_workers=1, worker_start="fork")
    assert broken[2].path in failure(data.train_dataloader())
    assert broken[2].path in failure(data.test_dataloader())


def test_a_broken_data_set_ends_the_run_though_substituting(broken):
    data = Videos(broken, num_workers=1, worker_start="fork", on_bad_video="substitute")
    message = failure(data.train_dataloader())
    assert any(video.path in message for video in broken)
    assert "check the data set" in message


def test_a_schedule_that_varies_runs_under_lightning(numbered, tmp_path):
    data = Videos(numbered)
    data.schedule = Varying()
    model, trainer = watch(data, tmp_path, reload_dataloaders_every_n_epochs=1)
    seen = {
        epoch: [tuple(batch["clip"].shape) for batch in batches]
        for epoch, batches in model.seen.items()
    }
    assert {batch["clip"].dtype for batch in chain(*model.seen.values())} == {torch.uint8}
    # shapes are N C T H W; T grows with the step, the crop with the epoch
    assert seen == {
        0: [(1, 3, 2, 16, 16), (2, 3, 3, 16, 16), (2, 3, 4, 16, 16)],
        1: [(2, 3, 2, 24, 24), (3, 3, 3, 24, 24)],
        2: [(3, 3, 2, 32, 32), (1, 3, 3, 32, 32), (1, 3, 4, 32, 32)],
    }
    assert isinstance(trainer.train_dataloader.sampler, DistributedSampler)


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("frames", 0, "frames=0"),
        ("stride", 0, "stride=0"),
        ("stride", -2, "stride=-2"),
        ("crop", 0, "crop=0"),
        ("crop", 50, r"\(40\) .*\(50\)"),
        ("batch_size", 0, "batch_size .* 0"),
        ("eval_batch_size", 0, "batch_size .* 0"),
        ("test_clips", 0, "clips=0"),
        ("test_crops", 5, "crops=5"),
        ("num_workers", -1, "num_workers .* -1"),
        ("on_bad_video", "ignore", "on_bad_video must be one of error, .* 'ignore'"),
        ("sampling", "balanced", "sampling must be one of uniform, class_balanced, .* 'balanced'"),
        ("max_bad_share", 1.1, r"max_bad_share must lie within \[0, 1\], got 1\.1"),
        ("std", (0.1, 0.1, 0), "std"),
    ],
)
def test_options_that_cannot_work_are_named(numbered, option, value, named):
    with pytest.raises(ConfigError, match=named):
        Videos(numbered, **{option: value})


def test_options_of_decoding_reach_the_decoder(numbered, monkeypatch):
    asked = []

    def opening(path, decoder, length, fast, square_pixels):
        asked.append((decoder, fast, square_pixels))
        return open_video(path, decoder, length, fast, square_pixels=square_pixels)

    monkeypatch.setattr("vidpool.data.dataset.open_video", opening)
    for decode, square in (("exact", False), ("fast", True)):
        data = Videos(numbered, decode=decode, square_pixels=square, batch_size=5)
        next(iter(data.train_dataloader()))
        next(iter(data.val_dataloader()))
        assert data.describe()["preprocessing"]["square_pixels"] is square
    assert asked == [("auto", False, False)] * 10 + [("auto", True, True)] * 10
    with pytest.raises(ConfigError, match="decode fast is for decoder auto or pyav, not decord"):
        Videos(numbered, decode="fast", decoder="decord")
    with pytest.raises(ConfigError, match="square_pixels is for decoder auto or pyav, not decord"):
        Videos(numbered, square_pixels=True, decoder="decord")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_without_videos(split):
    with pytest.raises(DataError, match=f"{split} split has no videos") as caught:
        getattr(Videos([]), f"{split}_dataloader")()
    told = "to train without validation, set limit_val_batches of the Trainer to 0" in str(
        caught.value
    )
    assert told == (split == "val")


def test_ucf101_from_files_to_batches(numbered, tmp_path):
    """The datamodule of a data set that lies on disk, read by the numbers in its frames."""
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 a\n2 b\n3 c\n")
    train, test = [], []
    for number, video in enumerate(numbered):
        name = "abc"[video.label]
        source = Path(video.path)
        path = tmp_path / name / f"v_{name}_g0{number}_c01{source.suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(source.read_bytes())
        line = f"{name}/{path.name}"
        if number < 3:
            train.append(f"{line} {video.label + 1}\n")
        else:
            test.append(f"{line}\n")
    (lists / "trainlist02.txt").write_text("".join(train))
    (lists / "testlist02.txt").write_text("".join(test))

    data = UCF101DataModule(str(tmp_path), split=2, **SMALL)
    own = Videos(numbered[3:])
    for ours, theirs in (
        (data.val_dataloader(), own.val_dataloader()),
        (data.test_dataloader(), own.test_dataloader()),
    ):
        for batch, other in zip(ours, theirs, strict=True):
            assert torch.equal(batch["clip"], other["clip"])
            assert torch.equal(batch["label"], other["label"])
    labels = torch.cat([batch["label"] for batch in data.train_dataloader()])
    assert sorted(labels.tolist()) == sorted(LABELS[:3])
    assert data.num_classes == 3
