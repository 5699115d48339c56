"""What each rank is given at each step of training and of evaluation."""

from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from watched import watch

from vidpool.data.schedule import (
    ConstantSchedule,
    ScheduledSampler,
    Step,
    class_balanced_order,
    plan_epoch,
)
from vidpool.data.views import ClipShape
from vidpool.errors import ConfigError

SHAPE = ClipShape(frames=4, stride=2, crop=16)


class Sized(Dataset):
    """As many items as it is told; an item is what it was asked for."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, requests):
        return requests


class Plain(Sized):
    """An item tells what it was asked for in a form that Lightning can move to a device."""

    def __getitem__(self, requests):
        return [[request.index, request.shape, request.seed] for request in requests]


class Varying:
    """Shape and batch size change from step to step and from epoch to epoch."""

    def step(self, epoch, step, used):  # noqa: ARG002
        shape = ClipShape(2 + (epoch + step) % 3, 1 + step % 2, 16 * (1 + (2 * epoch + step) % 4))
        return Step(shape, 1 + (3 * epoch + 2 * step) % 5)


schedules = st.one_of(
    st.integers(1, 9).map(lambda batch_size: ConstantSchedule(SHAPE, batch_size)),
    st.just(Varying()),
)
worlds = st.integers(1, 5)
sizes = st.integers(0, 60)
epochs = st.integers(0, 6)


def samplers(size, schedule, world, *, shuffle, epoch=0, **options):
    """The samplers of all ranks."""
    ranks = [
        ScheduledSampler(Sized(size), schedule, world, rank, shuffle=shuffle, **options)
        for rank in range(world)
    ]
    for sampler in ranks:
        sampler.set_epoch(epoch)
    return ranks


def steps_of(ranks):
    """The batches of all ranks at each step; every rank must have as many as it says."""
    batches = [list(sampler) for sampler in ranks]
    for sampler, own in zip(ranks, batches, strict=True):
        assert len(sampler) == len(own)
    return list(zip(*batches, strict=True))


def check_steps(steps, schedule, epoch, world, size):
    """What holds in training and evaluation: equal batches, of the schedule's shape and size."""
    left = size
    for number, batches in enumerate(steps):
        shape, batch_size, _ = schedule.step(epoch, number, 1 - left / size)
        assert len({len(batch) for batch in batches}) == 1
        length = len(batches[0])
        if left >= batch_size * world:
            assert length == batch_size
        else:
            assert 1 <= length <= batch_size
            assert number == len(steps) - 1
        for batch in batches:
            assert {request.shape for request in batch} == {shape}
        left -= length * world


@given(sizes, schedules, worlds, epochs, st.integers(0, 2**31))
def test_training_uses_a_clip_once_at_most_and_leaves_out_few(size, schedule, world, epoch, seed):
    steps = steps_of(samplers(size, schedule, world, shuffle=True, epoch=epoch, seed=seed))
    check_steps(steps, schedule, epoch, world, size)
    requests = [request for batches in steps for batch in batches for request in batch]
    indices = [request.index for request in requests]
    assert len(set(indices)) == len(indices)
    assert set(indices) <= set(range(size))
    assert size - len(indices) < world
    assert all(request.counted for request in requests)
    assert len({request.seed for request in requests}) == len(requests)


@given(sizes, schedules, worlds, epochs, st.integers(1, 3))
def test_an_incomplete_batch_that_is_too_small_is_left_out(size, schedule, world, epoch, fewest):
    usual = plan_epoch(schedule, epoch, size, world)
    expected = usual
    if len(usual) > 1:
        last = usual[-1]
        wanted = schedule.step(epoch, len(usual) - 1, last.first / size).batch_size
        if last.batch_size < min(wanted, fewest):
            expected = usual[:-1]
    smallest = {step.shape: fewest for step in usual}
    plain = samplers(size, schedule, world, shuffle=True, epoch=epoch)
    careful = samplers(size, schedule, world, shuffle=True, epoch=epoch, smallest=smallest)
    for one, other in zip(plain, careful, strict=True):
        assert other.plan == expected
        assert list(other) == list(one)[: len(expected)]
        used = sum(step.batch_size for step in expected) * world
        assert other.left_out == size - used
    # only the shapes that are named need more than one clip; evaluation leaves nothing out
    assert plan_epoch(schedule, epoch, size, world, smallest={ClipShape(9, 9, 9): 3}) == usual
    (first, *_) = samplers(size, schedule, world, shuffle=False, smallest=smallest)
    assert first.plan == plan_epoch(schedule, 0, size, world, fill_up=True)


@given(sizes, schedules, worlds, epochs)
def test_evaluation_counts_every_clip_once_in_order(size, schedule, world, epoch):
    steps = steps_of(samplers(size, schedule, world, shuffle=False, epoch=epoch))
    check_steps(steps, schedule, epoch, world, size)
    requests = [request for batches in steps for batch in batches for request in batch]
    counted = [request.index for request in requests if request.counted]
    assert counted == list(range(size))
    assert all(0 <= request.index < size for request in requests)
    assert len(requests) - len(counted) < world


@given(st.integers(1, 60), st.integers(1, 4), st.sampled_from([1, 2, 3, 4]), epochs)
def test_the_same_clips_make_a_step_on_however_many_ranks(size, each, world, epoch):
    """Twelve clips a step in all; whole steps do not depend on how they are shared out."""

    def whole_steps(world):
        schedule = ConstantSchedule(SHAPE, 12 * each // world)
        steps = steps_of(samplers(size, schedule, world, shuffle=True, epoch=epoch))
        return [list(chain(*batches)) for batches in steps][: size // (12 * each)]

    assert whole_steps(world) == whole_steps(1)


def test_batches_left_over_by_hand():
    def lengths(size, batch_size, world, shuffle):
        ranks = samplers(size, ConstantSchedule(SHAPE, batch_size), world, shuffle=shuffle)
        return [[len(batch) for batch in batches] for batches in steps_of(ranks)]

    assert lengths(11, 2, 2, shuffle=True) == [[2, 2], [2, 2], [1, 1]]
    assert lengths(9, 2, 2, shuffle=True) == [[2, 2], [2, 2]]
    assert lengths(11, 2, 2, shuffle=False) == [[2, 2], [2, 2], [2, 2]]
    assert lengths(9, 2, 2, shuffle=False) == [[2, 2], [2, 2], [1, 1]]
    assert lengths(1, 8, 3, shuffle=True) == []
    assert lengths(1, 8, 3, shuffle=False) == [[1, 1, 1]]


def test_epochs_have_other_orders_and_other_seeds():
    (sampler,) = samplers(200, ConstantSchedule(SHAPE, 16), 1, shuffle=True)
    orders, seeds = [], set()
    for epoch in range(4):
        sampler.set_epoch(epoch)
        requests = list(chain(*sampler))
        orders.append([request.index for request in requests])
        seeds |= {request.seed for request in requests}
    for order in orders:
        assert sorted(order) == list(range(200))
        assert order != sorted(order)
        assert sum(order == other for other in orders) == 1
    assert len(seeds) == 4 * 200
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_order_is_uniform():
    """Each clip comes first equally often: 12 clips, 1,200 epochs."""
    (sampler,) = samplers(12, ConstantSchedule(SHAPE, 1), 1, shuffle=True)
    first = torch.zeros(12)
    for epoch in range(1200):
        sampler.set_epoch(epoch)
        first[next(iter(sampler))[0].index] += 1
    chi_square = float((first - 100).square().sum() / 100)
    assert chi_square < 31.3  # 11 degrees of freedom: exceeded by chance once in 1,000


labelled = st.lists(st.sampled_from([-3, 0, 1, 4, 5, 700]), max_size=80).map(
    lambda labels: torch.tensor(labels, dtype=torch.int32)
)


@given(labelled, st.integers(0, 9))
def test_balanced_classes_have_as_many_clips_and_clips_come_in_turn(labels, seed):
    order = class_balanced_order(labels, torch.Generator().manual_seed(seed))
    assert order.dtype == torch.int64
    assert len(order) == len(labels)
    if not len(labels):
        return
    classes, members = labels.unique(return_counts=True)
    drawn = torch.bincount(order, minlength=len(labels))
    for label, size in zip(classes, members, strict=True):
        own = drawn[labels == label]
        assert len(labels) // len(classes) <= own.sum() <= -(-len(labels) // len(classes))
        assert own.max() - own.min() <= 1, size


@given(labelled, schedules, worlds, epochs)
def test_balanced_training_is_shared_out_like_any_other(labels, schedule, world, epoch):
    size = len(labels)
    plain = steps_of(samplers(size, schedule, world, shuffle=True, epoch=epoch))
    ranks = samplers(size, schedule, world, shuffle=True, epoch=epoch, labels=labels)
    steps = steps_of(ranks)
    assert [[len(batch) for batch in step] for step in steps] == [
        [len(batch) for batch in step] for step in plain
    ]
    requests = [request for step in steps for batch in step for request in batch]
    # clips that come again have another seed, so that they are other clips
    assert len({request.seed for request in requests}) == len(requests)
    (alone,) = samplers(
        size, ConstantSchedule(SHAPE, 1), 1, shuffle=True, epoch=epoch, labels=labels
    )
    whole = [request.index for (request,) in alone]
    assert [request.index for request in requests] == whole[: len(requests)]


def test_which_class_gets_one_more_is_drawn():
    """Three classes of 1, 3 and 6 clips, 3,000 epochs."""
    labels = torch.tensor([0, 1, 1, 1, 2, 2, 2, 2, 2, 2])
    (sampler,) = samplers(10, ConstantSchedule(SHAPE, 1), 1, shuffle=True, labels=labels)
    drawn = torch.zeros(10)
    for epoch in range(3000):
        sampler.set_epoch(epoch)
        drawn += torch.bincount(torch.tensor([r.index for (r,) in sampler]), minlength=10)
    expected = 10_000 / torch.tensor([1, 3, 6])[labels]
    # the deviation of a clip's count is at most sqrt(3000) / 2: six times that
    assert (drawn - expected).abs().max() < 165


def test_labels_that_cannot_be_balanced():
    with pytest.raises(ConfigError, match="3 labels for 4 clips"):
        samplers(4, Varying(), 1, shuffle=True, labels=torch.zeros(3))
    with pytest.raises(ConfigError, match="in training only"):
        samplers(4, Varying(), 1, shuffle=False, labels=torch.zeros(4))


def test_the_same_seed_gives_the_same_and_another_does_not():
    schedule = ConstantSchedule(SHAPE, 4)

    def requests(seed):
        (sampler,) = samplers(50, schedule, 1, shuffle=True, epoch=3, seed=seed)
        torch.manual_seed(seed + 1)  # of no influence
        return list(chain(*sampler))

    assert requests(7) == requests(7)
    other = requests(8)
    assert [r.index for r in requests(7)] != [r.index for r in other]
    assert not {r.seed for r in requests(7)} & {r.seed for r in other}


def test_iterating_changes_nothing():
    (sampler,) = samplers(20, Varying(), 1, shuffle=True, epoch=2)
    assert list(sampler) == list(sampler)


def test_length_follows_the_epoch():
    (sampler,) = samplers(40, Varying(), 1, shuffle=True)
    lengths = []
    for epoch in range(5):
        sampler.set_epoch(epoch)
        lengths.append(len(sampler))
        assert len(list(sampler)) == lengths[-1]
    assert len(set(lengths)) > 1


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_loader_hands_out_the_samplers_batches(workers):
    (sampler,) = samplers(30, Varying(), 1, shuffle=True, epoch=1)
    loader = DataLoader(
        Sized(30),
        sampler=sampler,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
        timeout=60 if workers else 0,
    )
    assert list(loader) == list(sampler)
    assert len(loader) == len(sampler)


@pytest.mark.parametrize("strategy", ["auto", "ddp"])
def test_lightning_leaves_it_alone_and_tells_it_the_epoch(strategy, tmp_path, monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")  # so that they are put back
        monkeypatch.delenv(name)
    (sampler,) = samplers(13, ConstantSchedule(SHAPE, 4), 1, shuffle=True)
    loader = DataLoader(Plain(13), sampler=sampler, batch_size=None)
    try:
        model, trainer = watch(loader, tmp_path, strategy=strategy)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    assert trainer.train_dataloader.sampler is sampler
    for epoch in range(3):
        sampler.set_epoch(epoch)
        assert model.seen[epoch] == [Plain(13)[requests] for requests in sampler]


def test_it_is_a_distributed_sampler():
    # what Lightning asks before it replaces a sampler by one of its own
    assert isinstance(ScheduledSampler(Sized(3), Varying()), DistributedSampler)


@pytest.mark.parametrize("rank", [-1, 2])
def test_rank_out_of_range(rank):
    with pytest.raises(ValueError, match=f"rank {rank}"):
        ScheduledSampler(Sized(3), Varying(), 2, rank)


@given(st.integers(1, 99), st.integers(1, 9), st.integers(1, 500))
def test_a_shape_that_works_is_itself(frames, stride, crop):
    shape = ClipShape(frames, stride, crop)
    assert shape.check() is shape


@pytest.mark.parametrize("value", [0, -3])
@pytest.mark.parametrize("name", ["frames", "stride", "crop"])
def test_a_shape_that_cannot_work_is_named(name, value):
    shape = SHAPE._replace(**{name: value})
    with pytest.raises(ConfigError, match=f"{name}={value}$"):
        shape.check()
    with pytest.raises(ConfigError, match=f"{name}={value}$"):
        ConstantSchedule(shape, 4)


@pytest.mark.parametrize("value", [0, -3])
def test_batch_size_below_1_is_named(value):
    with pytest.raises(ConfigError, match=f"batch_size .*{value}$"):
        ConstantSchedule(SHAPE, value)


def test_the_constant_schedule_is_constant():
    schedule = ConstantSchedule(SHAPE, 4)
    found = {schedule.step(epoch, step, step / 3) for epoch in range(3) for step in range(3)}
    assert found == {(SHAPE, 4, 1.0)}
    assert schedule.recipe_epoch(2.5) == 2.5
