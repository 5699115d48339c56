"""The loading that `vidpool bench data` measures, on small videos."""

import time

import pytest
import torch

from vidpool.bench import data as bench
from vidpool.bench.data import (
    PYTORCHVIDEO,
    STAGES,
    VIDPOOL,
    ClipSource,
    LoadingResult,
    PyTorchVideoTransform,
    loading_chart,
    measure_loading,
    stage_seconds,
)
from vidpool.bench.timing import Times
from vidpool.data.catalogue.table import LabelledVideo
from vidpool.data.datamodule import VideoDataModule
from vidpool.data.dataset import TrainingClips
from vidpool.data.transforms.augmentation import Augmentation
from vidpool.data.views import ClipShape
from vidpool.video import Video


class Settings(VideoDataModule):
    class_names = ("a", "b")


@pytest.fixture(scope="module")
def source(colours):
    augment = Augmentation(crop="short_side")
    videos = [LabelledVideo(str(path), 0) for path in sorted(colours.glob("Red/*"))]
    data = Settings(frames=4, stride=2, crop=24, short_side=24, augment=augment, batch_size=3)
    return ClipSource("red", TrainingClips(videos, augment), data, ClipShape(4, 2, 24), 3)


def test_stages_add_up(source):
    originals = (Video.frames, Augmentation.cut, Augmentation.change)
    started = time.perf_counter()
    seconds = stage_seconds(source, 4, "cpu")
    whole = time.perf_counter() - started
    assert tuple(seconds) == STAGES
    assert all(each > 0 for each in seconds.values())
    assert 3 * sum(seconds.values()) < whole  # medians of four batches of three
    assert (Video.frames, Augmentation.cut, Augmentation.change) == originals


def test_batches_are_of_all_videos_and_reproduce(source):
    batches = source.batches(50, seed=1)
    assert {request.index for batch in batches for request in batch} == set(range(5))
    assert {len(batch) for batch in batches} == {3}
    assert batches == source.batches(50, seed=1) != source.batches(50, seed=2)


def test_clips_of_pytorchvideo_are_like_ours(source):
    torch.manual_seed(0)
    sample = {"video": torch.full((3, 9, 36, 48), 100.0), "label": 7}
    made = PyTorchVideoTransform(source)(sample)
    assert made["label"] == 7
    assert made["clip"].shape == (3, 4, 24, 24)
    p = source.data.preprocessing
    for channel, mean, std in zip(made["clip"], p.mean, p.std, strict=True):
        torch.testing.assert_close(channel, torch.full((4, 24, 24), (100 / 255 - mean) / std))


def test_both_loaders_are_measured(source):
    pytest.importorskip("pytorchvideo.data")
    *_, result = measure_loading(source, [1], clips=6, rounds=2, device="cpu")
    assert result.missing is None
    for loader in (VIDPOOL, PYTORCHVIDEO):
        assert len(result.seconds[loader, 1].rounds) == 2
        assert result.rate(loader, 1) > 0
        assert result.cpu_seconds[loader, 1].median > 0
    assert result.ratio(1) == pytest.approx(result.rate(VIDPOOL, 1) / result.rate(PYTORCHVIDEO, 1))
    figure = loading_chart([result], {"device_name": "a machine"})
    bars = [bar.get_width() for bar in figure.axes[1].patches]
    assert result.rate(VIDPOOL, 1) in bars


def test_a_failure_of_pytorchvideo_is_reported(source, monkeypatch):
    def fail(*_):
        raise ImportError("no such library\nand more")

    monkeypatch.setattr(bench, "pytorchvideo_loader", fail)
    *_, result = measure_loading(source, [1], clips=3, rounds=1, device="cpu")
    assert result.missing == "ImportError: no such library"
    assert list(result.seconds) == [(VIDPOOL, 1)]
    assert result.ratio(1) is None


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (1.0, "x: a step of 1000 ms needs 16 clips/s; 1 worker brings 20"),
        (0.5, "x: a step of 500 ms needs 32 clips/s; 2 workers bring 40"),
        (0.2, "x: a step of 200 ms needs 80 clips/s; 2 workers bring 40, so about 4 would keep it "
              "fed"),
        (0.1, "x: a step of 100 ms needs 160 clips/s; 2 workers bring 40, so about 8 would keep it "
              "fed, more than the 4 CPUs here"),
    ],
)  # fmt: skip
def test_workers_needed(step, text):
    result = LoadingResult(
        "x", 16, {}, {(VIDPOOL, 1): Times((0.05,)), (VIDPOOL, 2): Times((0.025,))}
    )
    assert result.workers_needed(step, cpus=4) == text
