"""Transforms of the user's own: what they get, what they may return, and in which process."""

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn
from torchvision.transforms import v2

from vidpool.data import Augmentation, TrainingClips, VideoFolderDataModule, example_dataset
from vidpool.data.datamodule import VideoDataModule
from vidpool.data.schedule import ClipRequest
from vidpool.data.transforms.custom import apply_transform
from vidpool.data.views import ClipShape
from vidpool.errors import ConfigError

SMALL = {"frames": 4, "stride": 1, "crop": 32, "short_side": 36, "batch_size": 3, "num_workers": 0}


class Darker(nn.Module):
    """A module, as torchvision's transforms are."""

    def __init__(self, factor: float = 0.5):
        super().__init__()
        self.factor = factor

    def forward(self, clip):
        assert clip.dtype == torch.uint8
        assert clip.shape[:2] == (4, 3)
        return (clip * self.factor).byte()


def folder(**options):
    return VideoFolderDataModule(str(example_dataset()), **{**SMALL, **options})


def by_video(data):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(2)
    found = {}
    for batch in loader:
        found |= dict(zip(batch["video"].tolist(), batch["clip"], strict=True))
    return torch.stack([found[video] for video in sorted(found)])


@pytest.fixture(autouse=True)
def seeded_run(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")


def test_training_clips_are_transformed_after_the_crop_and_others_are_not():
    plain, dark = folder(), folder(transform=Darker(0.25))
    assert torch.equal(by_video(dark), (by_video(plain) * 0.25).byte())
    for one, other in zip(plain.val_dataloader(), dark.val_dataloader(), strict=True):
        assert torch.equal(one["clip"], other["clip"])


def test_changes_of_the_augmentation_follow_on_every_device():
    here = Augmentation(brightness=0.5, erase=1.0)
    data = folder(augment=here, transform=Darker())
    dataset = data.train_dataset()
    later = TrainingClips(
        dataset.videos, Augmentation(brightness=0.5, erase=1.0, on_device=True), transform=Darker()
    )
    requests = [ClipRequest(n, ClipShape(4, 1, 32), 7 + n) for n in range(3)]
    changed, unchanged = dataset[requests], later[requests]
    for clip, seed, expected in zip(
        unchanged["clip"], unchanged["seed"], changed["clip"], strict=True
    ):
        assert torch.equal(here.change(clip.transpose(0, 1), seed).transpose(0, 1), expected)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_random_transforms_are_reproducible_in_any_process(start):
    transform = v2.RandomChoice([v2.RandomInvert(1.0), v2.RandomVerticalFlip(1.0), v2.Identity()])
    here = by_video(folder(transform=transform))
    there = by_video(folder(transform=transform, num_workers=2, worker_start=start))
    assert torch.equal(here, there)
    assert not torch.equal(here, by_video(folder()))


def test_a_lambda_cannot_be_sent_to_spawned_processes():
    def grey(clip):
        return clip

    for transform in (lambda clip: clip, grey):
        data = folder(transform=transform, num_workers=1, worker_start="spawn")
        with pytest.raises(ConfigError, match=r"by spawn .*top level of a module") as caught:
            data.train_dataloader()
        assert caught.value.argument == "transform"
        data.val_dataloader()  # which does not need it
        data.num_workers = 0
        data.train_dataloader()


def test_another_size_is_allowed_if_it_is_that_of_the_batch():
    batch = next(iter(folder(transform=v2.Resize((20, 24))).train_dataloader()))
    assert batch["clip"].shape == (3, 3, 4, 20, 24)
    sizes = iter(range(10, 40))
    data = folder(transform=lambda clip: clip[..., : next(sizes)])
    with pytest.raises(
        ConfigError, match=r"one size within a batch.*\(4, 3, 32, 10\) and"
    ) as caught:
        list(data.train_dataloader())
    assert caught.value.argument == "transform"


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda _: None, "must return a tensor, but returned NoneType"),
        (lambda clip: clip / 255, "must return a uint8 clip, but returned torch.float32"),
        (lambda clip: clip[0], r"must keep T and C .*made \(3, 8, 9\) out of \(4, 3, 8, 9\)"),
        (lambda clip: clip[::2], r"must keep T and C .*made \(2, 3, 8, 9\) out of"),
        (lambda clip: clip.transpose(0, 1), r"made \(3, 4, 8, 9\) out of"),
    ],
)
def test_wrong_results_are_named(transform, message):
    with pytest.raises(ConfigError, match=message) as caught:
        apply_transform(transform, torch.zeros(4, 3, 8, 9, dtype=torch.uint8), 1)
    assert caught.value.argument == "transform"


@pytest.mark.parametrize(
    ("options", "argument", "message"),
    [
        ({"transform": 3}, "transform", "must be a callable .*got 3"),
        ({"transform": Darker}, "transform", r"create an object of it: Darker\(…\)"),
        ({"augment": nn.Identity()}, "augment", r"got Identity\(\); .* as transform"),
        ({"augment": None}, "augment", "must be an Augmentation, got None"),
    ],
)
def test_wrong_types_are_refused_at_construction(options, argument, message):
    with pytest.raises(ConfigError, match=message) as caught:
        folder(**options)
    assert caught.value.argument == argument


def test_the_command_line_takes_a_class_or_function():
    parser = ArgumentParser()
    parser.add_subclass_arguments(VideoDataModule, "data")

    def parsed(*options):
        command = ["--data", "VideoFolderDataModule", "--data.root", str(example_dataset())]
        return parser.instantiate(parser.parse_args([*command, *options])).data.transform

    assert parsed() is None
    path = "torchvision.transforms.v2"
    assert isinstance(parsed("--data.transform", f"{path}.Grayscale"), v2.Grayscale)
    resize = parsed("--data.transform", f"{path}.Resize", "--data.transform.size", "9")
    assert resize.size == [9]
    assert parsed("--data.transform", f"{path}.functional.invert") is v2.functional.invert
