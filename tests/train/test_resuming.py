"""A run that is stopped in the middle of an epoch and resumed is the run that was not stopped."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import interrupted
import pytest
import torch
from interrupted import STOP_AT, train
from trees import Videos, make_video_folder

from vidpool.data.datasets.video_folder import VideoFolderDataModule
from vidpool.data.shards.datamodule import ShardDataModule
from vidpool.data.shards.writer import make_shards
from vidpool.errors import CheckpointError

pytestmark = pytest.mark.filterwarnings("ignore")


def assert_same_run(whole, stopped, resumed, stop_at):
    """Equal weights; the batches are those of before the stop and those of after it."""
    assert whole[1] == stopped[1][:stop_at] + resumed[1]
    assert whole[0].keys() == resumed[0].keys()
    for key, value in whole[0].items():
        assert torch.equal(value, resumed[0][key]), key


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A training without a stop, by its schedule."""
    return cache(lambda schedule: train(tmp_path_factory.mktemp(schedule), schedule))


@pytest.mark.parametrize(
    ("schedule", "workers"),
    [
        *(("constant", 0), ("constant", 2), ("paper", 0), ("original", 0)),
        *(pytest.param(schedule, 2, marks=pytest.mark.slow) for schedule in ("paper", "original")),
    ],
)
def test_stopped_in_the_middle_of_an_epoch(uninterrupted, tmp_path, schedule, workers):
    stop_at = STOP_AT[schedule]
    whole = uninterrupted(schedule)
    stopped = train(tmp_path, schedule, stop_at=stop_at, workers=workers)
    epoch, batch = stopped[1][stop_at - 1][:2]
    assert epoch > 0
    assert (epoch, batch + 1) in [step[:2] for step in whole[1]]  # so the epoch was not over
    resumed = train(tmp_path, schedule, resume=stopped[2], workers=workers)
    assert_same_run(whole, stopped, resumed, stop_at)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """132 training videos of two classes in shards of 20."""
    pytest.importorskip("webdataset")
    root = tmp_path_factory.mktemp("videos")
    videos = Videos(tmp_path_factory.mktemp("made"))
    make_video_folder(root, videos, ("train",), each=66)
    make_video_folder(root, videos, ("val",))
    out = tmp_path_factory.mktemp("sharded") / "shards"
    make_shards(VideoFolderDataModule(str(root)), out, size=0.05, num_workers=1)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["paper", "original"])
def test_shards_stopped_in_the_middle_of_an_epoch(shards, tmp_path, schedule):
    def run(**options):
        shape = {"frames": 8, "stride": 1, "crop": 32, "short_side": 36, "batch_size": 2}
        data = ShardDataModule(str(shards), num_workers=2, worker_start="fork", **shape)
        return train(tmp_path, schedule, data=data, **options)

    stop_at = STOP_AT[schedule]
    whole, stopped = run(), run(stop_at=stop_at)
    epoch, batch = stopped[1][stop_at - 1][:2]
    assert (epoch, batch + 1) in [step[:2] for step in whole[1]]
    resumed = run(resume=stopped[2])
    assert_same_run(whole, stopped, resumed, stop_at)
    assert len({step[2] for step in whole[1]}) > 3
    for epoch in range(3):
        seen = [video for step in whole[1] if step[0] == epoch for video in step[3]]
        assert len(set(seen)) == len(seen) == 132


@pytest.mark.parametrize("schedule", ["constant", "paper"])
def test_stopped_in_the_middle_of_a_step(uninterrupted, tmp_path, schedule):
    """As by a signal: the step is made again; batch norm has seen its clips twice."""
    stop_at = STOP_AT[schedule]
    whole = uninterrupted(schedule)
    stopped = train(tmp_path, schedule, stop_at=stop_at, hook="on_before_backward")
    resumed = train(tmp_path, schedule, resume=stopped[2])
    clips = [step[:4] for step in whole[1]]
    assert clips == [step[:4] for step in stopped[1][: stop_at - 1] + resumed[1]]
    for key, value in whole[0].items():
        if "running" not in key and "num_batches" not in key:
            assert torch.equal(value, resumed[0][key]), key


@pytest.mark.parametrize(("schedule", "steps"), [("constant", 9), ("paper", 12)])
def test_stopped_after_the_last_step_of_an_epoch(uninterrupted, tmp_path, schedule, steps):
    whole = uninterrupted(schedule)
    assert whole[1][steps][:2] == (1, 0)
    stopped = train(tmp_path, schedule, stop_at=steps)
    resumed = train(tmp_path, schedule, resume=stopped[2], workers=2)
    assert_same_run(whole, stopped, resumed, steps)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["constant", "paper"])
def test_stopped_on_two_processes(tmp_path, schedule):
    script = Path(__file__).with_name("interrupted.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
        environment.pop(name, None)
    subprocess.run(
        [sys.executable, "-W", "ignore", script, tmp_path, "2", schedule, "1"],
        check=True,
        env=environment,
        timeout=900,
    )
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    for results in ranks:
        assert_same_run(*results.values(), STOP_AT[schedule])
    one, other = (results["whole"] for results in ranks)
    for key, value in one[0].items():
        # precise batch norm makes statistics those of the clips of both
        if schedule == "paper" or "running" not in key:
            assert torch.equal(value, other[0][key]), key
    # the same shapes at each step, other clips
    assert [step[:3] for step in one[1]] == [step[:3] for step in other[1]]
    for epoch in range(3):
        videos = [v for step in one[1] + other[1] if step[0] == epoch for v in step[3]]
        assert len(set(videos)) == len(videos) >= len(one[1])


def test_another_number_of_clips_is_refused(tmp_path, monkeypatch):
    stopped = train(tmp_path, "constant", stop_at=STOP_AT["constant"])

    class Fewer(interrupted.Generated):
        def __init__(self, size, **options):
            super().__init__(size - 2, **options)

    monkeypatch.setattr(interrupted, "Generated", Fewer)
    with pytest.raises(CheckpointError, match="clips 70 in the checkpoint and 68 here"):
        train(tmp_path, "constant", resume=stopped[2])
