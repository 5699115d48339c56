"""The loader's state: what it hands out after it was stopped somewhere."""

import copy
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from vidpool.data.loader import ScheduledLoader
from vidpool.data.multigrid_schedule import MultigridSchedule
from vidpool.data.schedule import ConstantSchedule, ScheduledSampler
from vidpool.data.views import ClipShape
from vidpool.errors import CheckpointError

SHAPE = ClipShape(8, 2, 32)
SCHEDULES = (ConstantSchedule(SHAPE, 3), MultigridSchedule(SHAPE, 1, 4))


class Requests(Dataset):
    """An item is what it was asked for."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, requests):
        return requests


def loader(
    size=100, schedule=SCHEDULES[0], epoch=0, ranks=1, rank=0, seed=0, balanced=False, **options
):
    dataset = Requests(size)
    labels = torch.arange(size).sqrt().int() if balanced else None
    sampler = ScheduledSampler(dataset, schedule, ranks, rank, seed=seed, labels=labels)
    sampler.set_epoch(epoch)
    if options.get("num_workers"):
        options |= {"multiprocessing_context": "fork", "timeout": 60}
    return ScheduledLoader(dataset, sampler, **options)


@given(
    st.integers(1, 200),
    st.sampled_from(SCHEDULES),
    st.integers(0, 3),
    st.integers(1, 3),
    st.booleans(),
    st.data(),
)
def test_the_rest_of_an_epoch(size, schedule, epoch, ranks, balanced, data):
    options = {"size": size, "schedule": schedule, "epoch": epoch, "ranks": ranks}
    options["balanced"] = balanced
    whole = list(loader(**options))
    stop = data.draw(st.integers(0, len(whole)))
    stopped = loader(**options)
    begun = iter(stopped)
    first = list(islice(begun, stop))
    resumed = loader(**options)
    resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
    assert len(resumed) == len(whole)
    assert first + list(resumed) == whole
    # stopped once more, and in the next epoch
    assert resumed.state_dict()["batches"] == len(whole)
    resumed.sampler.set_epoch(epoch + 1)
    assert list(resumed) == list(loader(**{**options, "epoch": epoch + 1}))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("persistent", [False, True])
def test_with_workers_what_was_handed_out_counts(persistent):
    """Not what they have read ahead."""
    options = {"num_workers": 2, "persistent_workers": persistent}
    whole = list(loader(**options))
    stopped = loader(**options)
    batches = iter(stopped)
    first = list(islice(batches, 5))
    assert stopped.state_dict()["batches"] == 5
    resumed = loader(**options)
    resumed.load_state_dict(stopped.state_dict())
    assert first + list(resumed) == whole
    resumed.sampler.set_epoch(1)
    assert list(resumed) == list(loader(epoch=1))


def test_nothing_is_read_before_the_first_batch():
    """Lightning begins to iterate before it sets the epoch."""
    own = loader()
    batches = iter(own)
    own.sampler.set_epoch(3)
    assert list(batches) == list(loader(epoch=3))


def test_the_trainers_count_is_preferred():
    own = loader(batches_done=lambda: 2)
    list(own)
    assert own.state_dict()["batches"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 99}, "clips 100 in the checkpoint and 99 here"),
        ({"seed": 1}, "seed 0 in the checkpoint and 1 here"),
        ({"ranks": 2}, "processes 1 in the checkpoint and 2 here"),
        ({"epoch": 2}, "epoch 0 in the checkpoint and 2 here"),
        ({"balanced": True}, "class-balanced 0 in the checkpoint and 1 here"),
        ({"schedule": SCHEDULES[1]}, "used clips 12 in the checkpoint and"),
    ],
)
def test_an_epoch_of_other_batches_is_refused(options, message):
    stopped = loader()
    list(islice(iter(stopped), 4))
    with pytest.raises(CheckpointError, match=message):
        loader(**options).load_state_dict(stopped.state_dict())
