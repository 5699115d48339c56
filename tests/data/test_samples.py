"""Datasets as PyTorch's: samples by index, and DataLoaders of the user's own over them."""

import itertools

import numpy as np
import pytest
import torch
from numbered_set import LABELS
from numbered_video import numbers
from torch.utils.data import DataLoader, Subset, random_split

from vidpool.data import Augmentation, ShardDataModule, VideoFolderDataModule, example_dataset
from vidpool.data.dataset import EvaluationViews, TrainingClips
from vidpool.data.schedule import ClipRequest
from vidpool.data.shards.writer import make_shards
from vidpool.data.views import ClipShape, Preprocessing
from vidpool.errors import VideoError

SHAPE = ClipShape(4, 2, 32)
VIEWS = Preprocessing(4, 2, 40, 32, clips=2, crops=3, mean=(0.5,) * 3, std=(0.2,) * 3)
SMALL = {"frames": 4, "stride": 2, "crop": 32, "short_side": 40, "test_clips": 2, "num_workers": 0}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "out"
    make_shards(VideoFolderDataModule(str(example_dataset()), **SMALL), folder, num_workers=0)
    return str(folder)


def training(videos, **options):
    return TrainingClips(videos, options.pop("augment", Augmentation()), shape=SHAPE, **options)


def test_a_training_sample(numbered):
    sample = training(numbered)[3]
    assert sample["clip"].shape == (3, 4, 32, 32)
    assert sample["clip"].dtype == torch.uint8
    assert (sample["label"], sample["video"], sample["counted"]) == (LABELS[3], 3, True)
    assert not any(value is None for value in sample.values())


@pytest.mark.parametrize("make", [training, lambda videos: EvaluationViews(videos, VIEWS)])
def test_indices_are_those_of_a_list(numbered, make):
    dataset = make(numbered)
    size = len(dataset)
    assert (
        dataset[-1]["video"] == dataset[size - 1]["video"] == dataset[np.int64(size - 1)]["video"]
    )
    assert dataset[torch.tensor(0)]["video"] == 0
    for index in (size, -size - 1):
        with pytest.raises(IndexError, match=f"index {index} .* has {size} samples"):
            dataset[index]
    for index in ("0", 0.0, slice(2)):
        with pytest.raises(TypeError):
            dataset[index]
    assert sum(1 for _ in dataset) == size  # ends


def test_views_come_clip_by_clip_and_crop_by_crop(numbered):
    dataset = EvaluationViews(numbered, VIEWS)
    assert (len(dataset), dataset.clips) == (5 * 2 * 3, 10)
    batch = dataset[[ClipRequest(n, VIEWS.shape, 0) for n in range(dataset.clips)]]
    samples = list(dataset)
    assert torch.equal(torch.stack([sample["clip"] for sample in samples]), batch["clip"])
    assert [sample["label"] for sample in samples] == batch["label"].tolist()
    assert [sample["video"] for sample in samples] == batch["video"].tolist()


def test_samples_are_random_by_pytorchs_seed(numbered):
    dataset = training(numbered)

    def drawn(seed):
        torch.manual_seed(seed)
        return dataset[0]["clip"], dataset[0]["clip"]

    with torch.random.fork_rng():
        (one, other), (again, _), (third, _) = drawn(1), drawn(1), drawn(2)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one, third)


def test_samples_are_changed_even_if_the_device_was_to(numbered):
    options = {"scale": (1, 1), "ratio": (1, 1), "flip": 0}

    def sample(**more):
        torch.manual_seed(3)
        return training(numbered, augment=Augmentation(**options, **more))[0]

    with torch.random.fork_rng():
        here, there = sample(brightness=0.9), sample(brightness=0.9, on_device=True)
        plain = sample()
    assert set(there) == {"clip", "label", "video", "counted"}
    assert torch.equal(here["clip"], there["clip"])
    assert not torch.equal(here["clip"], plain["clip"])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_of_the_users_own(numbered, workers):
    augment = Augmentation(mixup=1.0, on_device=True, scale=(1, 1), ratio=(1, 1), flip=0)
    dataset = training(numbered, augment=augment)
    context = "fork" if workers else None
    loader = DataLoader(dataset, 4, True, num_workers=workers, multiprocessing_context=context)
    weight = torch.zeros(3, 3, requires_grad=True)
    passes = []
    for _ in range(2):
        seen = []
        for batch in loader:
            assert batch["clip"].shape[1:] == (3, 4, 32, 32)
            assert batch["counted"].dtype == torch.bool
            logits = batch["clip"].float().mean((2, 3, 4)) @ weight
            torch.nn.functional.cross_entropy(logits, batch["label"]).backward()
            clips = [tuple(numbers(clip.transpose(0, 1))) for clip in batch["clip"]]
            seen += zip(batch["video"].tolist(), clips, strict=True)
        assert sorted(video for video, _ in seen) == [0, 1, 2, 3, 4]
        passes.append(sorted(seen))
    assert passes[0] != passes[1]
    assert weight.grad is not None


def test_subsets_and_splits(numbered):
    dataset = training(numbered)
    assert [sample["video"] for sample in Subset(dataset, [4, 2])] == [4, 2]
    one, other = random_split(dataset, [2, 3])
    batches = [next(iter(DataLoader(part, batch_size=9)))["video"] for part in (one, other)]
    assert sorted(torch.cat(batches).tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("policy", ["skip", "substitute"])
def test_a_bad_video(numbered, broken, policy):
    videos = [broken[0], *numbered]
    assert training(videos, on_bad_video=policy)[0]["video"] > 0
    view = EvaluationViews(videos, VIEWS, on_bad_video=policy)[0]
    assert (view["video"], view["counted"], int(view["clip"].max())) == (0, False, 0)
    for dataset in (training(videos), EvaluationViews(videos, VIEWS)):
        with pytest.raises(VideoError, match=f"^{broken[0].path}"):
            dataset[0]


def test_the_datamodule_gives_its_datasets():
    data = VideoFolderDataModule(str(example_dataset()), **SMALL)
    sizes = [len(getattr(data, f"{split}_dataset")()) for split in ("train", "val", "test")]
    assert sizes == [6, 4, 4 * 2 * 3]
    assert data.train_dataset()[0]["clip"].shape == (3, 4, 32, 32)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2])
def test_samples_of_shards(shards, workers):
    data = ShardDataModule(shards, **SMALL)
    dataset = data.train_dataset()
    loader = DataLoader(
        dataset, 4, num_workers=workers, multiprocessing_context="fork" if workers else None
    )
    passes = []
    for _ in range(3):
        batches = list(loader)
        assert sorted(itertools.chain(*(b["video"].tolist() for b in batches))) == [*range(6)]
        assert batches[0]["clip"].shape[1:] == (3, 4, 32, 32)
        passes.append(torch.cat([batch["clip"] for batch in batches]))
    assert not torch.equal(passes[0], passes[1])
    assert not torch.equal(passes[1], passes[2])
    assert len(dataset) == 6
    views = list(data.test_dataset())
    assert len(views) == len(data.test_dataset()) == 4 * 2 * 3
    assert views[0]["clip"].shape == (3, 4, 32, 32)
