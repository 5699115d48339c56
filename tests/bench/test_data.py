"""What `vidpool bench data` measures, on small videos."""

import time

import pytest
import torch

from vidpool.bench import data as bench
from vidpool.bench.data import OURS, PEER, STAGES, PeerTransform, Result, Subject, measure, stages
from vidpool.bench.data_chart import rate_chart
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
def subject(colours):
    augment = Augmentation(crop="short_side")
    videos = [LabelledVideo(str(path), 0) for path in sorted(colours.glob("Red/*"))]
    data = Settings(frames=4, stride=2, crop=24, short_side=24, augment=augment, batch_size=3)
    return Subject("red", TrainingClips(videos, augment), data, ClipShape(4, 2, 24), 3)


def test_a_stage_does_not_count_what_is_within_it(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(bench.time, "perf_counter", lambda: now[0])

    def spend(seconds):
        now[0] += seconds

    class Owner:
        def work(self, seconds):
            spend(seconds)
            return "done"

    watch = bench._Stopwatch()

    def whole():
        spend(1)
        with watch.on(Owner, "work", "inner"):
            assert Owner().work(4) == "done"
            assert Owner().work(seconds=2) == "done"
        spend(3)
        Owner().work(8)

    watch.time("outer", whole)
    watch.time("outer", lambda: spend(5))
    assert watch.seconds == {"outer": 17, "inner": 6}


def test_stages_add_up(subject):
    originals = (Video.frames, Augmentation.cut, Augmentation.change)
    started = time.perf_counter()
    taken = stages(subject, 4, "cpu")
    whole = time.perf_counter() - started
    assert tuple(taken) == STAGES
    assert all(seconds > 0 for seconds in taken.values())
    assert 3 * sum(taken.values()) < whole  # medians of four batches of three
    assert (Video.frames, Augmentation.cut, Augmentation.change) == originals


def test_batches_are_of_all_videos_and_reproduce(subject):
    batches = subject.batches(50, seed=1)
    assert {request.index for batch in batches for request in batch} == set(range(5))
    assert {len(batch) for batch in batches} == {3}
    assert batches == subject.batches(50, seed=1) != subject.batches(50, seed=2)


def test_the_peers_clips_are_as_ours(subject):
    torch.manual_seed(0)
    sample = {"video": torch.full((3, 9, 36, 48), 100.0), "label": 7}
    made = PeerTransform(subject)(sample)
    assert made["label"] == 7
    assert made["clip"].shape == (3, 4, 24, 24)
    p = subject.data.preprocessing
    for channel, mean, std in zip(made["clip"], p.mean, p.std, strict=True):
        torch.testing.assert_close(channel, torch.full((4, 24, 24), (100 / 255 - mean) / std))


def test_both_loaders_are_measured(subject):
    pytest.importorskip("pytorchvideo.data")
    *_, result = measure(subject, [1], clips=6, rounds=2, device="cpu")
    assert result.missing is None
    for loader in (OURS, PEER):
        assert len(result.seconds[loader, 1].rounds) == 2
        assert result.rate(loader, 1) > 0
        assert result.cpu_seconds[loader, 1].median > 0
    assert result.ratio(1) == pytest.approx(result.rate(OURS, 1) / result.rate(PEER, 1))
    figure = rate_chart([result], {"device_name": "a machine"})
    bars = [bar.get_width() for bar in figure.axes[1].patches]
    assert result.rate(OURS, 1) in bars


def test_a_peer_that_fails_is_told(subject, monkeypatch):
    def fail(*_):
        raise ImportError("no such library\nand more")

    monkeypatch.setattr(bench, "peer_loader", fail)
    *_, result = measure(subject, [1], clips=3, rounds=1, device="cpu")
    assert result.missing == "ImportError: no such library"
    assert list(result.seconds) == [(OURS, 1)]
    assert result.ratio(1) is None


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (1.0, "x: a step of 1000 ms needs 16 clips/s; 1 worker brings 20"),
        (0.5, "x: a step of 500 ms needs 32 clips/s; 2 workers bring 40"),
        (0.2, "x: a step of 200 ms needs 80 clips/s; 2 workers bring 40, so about 4 would keep it "
              "fed"),
        (0.1, "x: a step of 100 ms needs 160 clips/s; 2 workers bring 40, so about 8 would keep it "
              "fed, more than the 4 CPUs here"),
    ],
)  # fmt: skip
def test_the_verdict(step, told):
    result = Result("x", 16, {}, {(OURS, 1): Times((0.05,)), (OURS, 2): Times((0.025,))})
    assert result.verdict(step, cpus=4) == told
