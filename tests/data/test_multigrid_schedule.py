"""Multigrid's phases, shapes, batches and rates: the paper's table, and SlowFast's epochs."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidpool.data.multigrid_schedule import MultigridSchedule
from vidpool.data.schedule import plan_epoch
from vidpool.data.views import ClipShape
from vidpool.errors import ConfigError
from vidpool.train.lr_scheduler import lr_factor

BASE = ClipShape(16, 2, 256)
# batch x T x S of each long phase and short step, and the learning rate's factor
TABLE = (
    (((512, 4, 182), (1024, 4, 128), (2048, 4, 90)), 1),
    (((256, 8, 182), (512, 8, 128), (1024, 8, 90)), 1 / 2),
    (((128, 8, 256), (256, 8, 182), (512, 8, 128)), 1 / 4),
    (((64, 16, 256), (128, 16, 182), (256, 16, 128)), 1 / 8),
)


def sizes(step):
    return step.batch_size, step.shape.frames, step.shape.crop


def original(epochs=239, milestones=(94, 154, 196), **options):
    shape = BASE._replace(crop=224)
    return MultigridSchedule(shape, 64, epochs, milestones, "original", **options)


def ends(schedule):
    return [phase.epochs[1] for phase in schedule.phases]


def test_the_papers_table():
    schedule = MultigridSchedule(BASE, 64, 120)
    assert schedule.epochs == 120
    found = [
        (tuple(sizes(step) for step in phase.steps), phase.steps[0].lr_factor)
        for phase in schedule.phases
    ]
    assert found == list(TABLE)
    steps = [step for phase in schedule.phases for step in phase.steps]
    assert {step.shape.stride for step in steps} == {2}
    # "on average 8 x 160 x 160", as recipes.md has it: T = 9.0, S = 161
    assert sum(step.shape.frames for step in steps) / 12 == 9
    assert round(sum(step.shape.crop for step in steps) / 12) == 161


def test_the_papers_phases_are_quarters_of_every_epoch():
    schedule = MultigridSchedule(BASE, 64, 120)
    for epoch in (0, 1, 57, 119, 300):
        for step in range(7):
            for used, quarter in ((0, 0), (0.2499, 0), (0.25, 1), (0.6, 2), (0.75, 3), (0.999, 3)):
                found = schedule.step(epoch, step, used)
                shapes, factor = TABLE[quarter]
                assert (sizes(found), found.lr_factor) == (shapes[step % 3], factor)


def test_the_papers_epoch_on_hacs():
    """The phases' shares of an epoch of half a million clips, on four processes."""
    schedule = MultigridSchedule(BASE, 16, 120)
    plan = plan_epoch(schedule, 3, 500_003, 4)
    assert sum(step.batch_size for step in plan) * 4 == 500_000
    clips = dict.fromkeys(range(4), 0)
    for step in plan:
        quarter = (1, 1 / 2, 1 / 4, 1 / 8).index(step.lr_factor)
        clips[quarter] += 4 * step.batch_size
    assert all(abs(count / 500_003 - 0.25) < 2048 / 500_003 for count in clips.values())
    assert [step.shape.crop for step in plan[:4]] == [182, 128, 90, 182]


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        # what slowfast/utils/multigrid.py gives for SOLVER.STEPS, MAX_EPOCH and EPOCH_FACTOR
        (
            {},
            [73, 110, 142, 158, 205, 228, 248, 259, 291, 308, 322, 329, 358],
        ),
        (
            {"epoch_factor": 1.0},
            [49, 73, 95, 105, 136, 152, 166, 172, 194, 205, 215, 219, 239],
        ),
        (
            {"epochs": 120, "milestones": (40, 60, 75, 90)},
            [33, 49, 63, 70, 87, 95, 102, 106, 118, 124, 129, 132, 144, 151, 156, 159, 180],
        ),
        (
            {"epochs": 100, "milestones": (40, 80)},
            [32, 47, 61, 68, 100, 115, 129, 136, 150],
        ),
        (
            {"epochs": 100, "milestones": (40, 80), "short_cycle": False},
            [38, 56, 66, 70, 108, 127, 136, 141, 150],
        ),
    ],
)
def test_the_originals_epochs_are_slowfasts(recipe, expected):
    schedule = original(**recipe)
    assert ends(schedule) == expected
    assert schedule.epochs == expected[-1]
    assert schedule.phases[-1].name == "fine-tuning"
    assert all(one.epochs[1] == other.epochs[0] for one, other in pairwise(schedule.phases))


def test_the_originals_shapes():
    grids = original().phases[:4]
    assert [[sizes(step) for step in grid.steps] for grid in grids] == [
        [(1024, 4, 112), (512, 4, 158), (512, 4, 158)],
        [(512, 8, 112), (256, 8, 158), (256, 8, 158)],
        [(512, 8, 112), (256, 8, 158), (128, 8, 224)],
        [(256, 16, 112), (128, 16, 158), (64, 16, 224)],
    ]
    # the rate is that of the long cycle's batch, whatever the short cycle's
    assert [{step.lr_factor for step in grid.steps} for grid in grids] == [{8}, {4}, {2}, {1}]
    # a clip spans the same time
    assert [{step.shape.stride for step in grid.steps} for grid in grids] == [{8}, {4}, {4}, {2}]
    assert original().phases[-1].steps == grids[-1].steps


def test_the_originals_rate():
    """SlowFast's: the step's rate times the long batch; fine-tuning begins at the rate before."""
    schedule = original()

    def rate(epoch):
        recipe = schedule.recipe_epoch(epoch)
        base = lr_factor(recipe, "step", 239, milestones=(94, 154, 196))
        return base * schedule.step(int(epoch), 0, 0.0).lr_factor

    starts = (0, *ends(schedule)[:-1])
    expected = [0.1**step * batch for step in range(3) for batch in (8, 4, 2, 1)]
    for start, end, value in zip(starts, starts[1:], expected, strict=False):
        for epoch in (start, (start + end) / 2, end - 0.01):
            assert rate(epoch) == pytest.approx(value), epoch
    # the last phase goes from 329 to 358: (329 + 358) // 2 = 343
    assert [rate(epoch) for epoch in (329, 342.9)] == pytest.approx([0.01, 0.01])
    assert [rate(epoch) for epoch in (343, 357.9)] == pytest.approx([0.001, 0.001])


@pytest.mark.parametrize("variant", ["paper", "original"])
def test_the_recipes_epochs_rise_to_their_end(variant):
    schedule = MultigridSchedule(BASE, 64, 239, (94, 154, 196), variant)
    epochs = [schedule.epochs * k / 1000 for k in range(1001)]
    found = [schedule.recipe_epoch(epoch) for epoch in epochs]
    assert found[0] == 0
    assert found[-1] == 239
    assert all(one < other for one, other in pairwise(found))


@pytest.mark.parametrize("variant", ["paper", "original"])
def test_cycles_alone(variant):
    long = MultigridSchedule(BASE, 64, 100, (40, 80), variant, short_cycle=False)
    assert {len(phase.steps) for phase in long.phases} == {1}
    crop = 182 if variant == "paper" else 181
    shapes = [(512, 4, crop), (256, 8, crop), (128, 8, 256), (64, 16, 256)]
    assert [sizes(phase.steps[0]) for phase in long.phases[:4]] == shapes

    short = MultigridSchedule(BASE, 64, 100, (40, 80), variant, long_cycle=False)
    (phase,) = short.phases
    assert {step.shape.frames for step in phase.steps} == {16}
    assert {step.lr_factor for step in phase.steps} == {1}
    assert sorted(step.batch_size for step in phase.steps) == [64, 128, 256]
    assert short.epochs == (100 if variant == "paper" else 150)
    assert short.recipe_epoch(short.epochs * 0.4) == pytest.approx(40)


shapes = st.builds(ClipShape, st.integers(1, 64), st.integers(1, 8), st.integers(8, 320))


@given(
    shapes,
    st.integers(1, 64),
    st.integers(5, 300),
    st.sampled_from(["paper", "original"]),
    st.sampled_from([(True, True), (True, False), (False, True)]),
)
def test_memory_stays_level(shape, batch_size, epochs, variant, cycles):
    """The batch has as many values as one of full clips, up to the rounding of its factor."""
    schedule = MultigridSchedule(shape, batch_size, epochs, (epochs / 2,), variant, *cycles)
    full = shape.frames * shape.crop**2
    assert schedule.phases[0].epochs[0] == 0
    assert schedule.phases[-1].epochs[1] == schedule.epochs
    for phase in schedule.phases:
        for step in phase.steps:
            clip = step.shape.check()
            factor = step.batch_size / batch_size
            exact = full / (clip.frames * clip.crop**2)
            assert factor == max(1, round(exact))
            assert clip.frames <= shape.frames
            assert clip.crop <= shape.crop
            span = clip.stride * clip.frames
            if variant == "paper":
                assert clip.stride == shape.stride
            else:
                assert abs(span - shape.stride * shape.frames) <= clip.frames / 2
    assert schedule.step(10**6, 0, 0.999) in schedule.phases[-1].steps


@given(
    st.integers(1, 9),
    st.integers(1, 3000),
    st.integers(1, 4),
    st.sampled_from(["paper", "original"]),
    st.booleans(),
)
def test_a_schedule_that_passes_its_check_uses_all_phases(batch, clips, ranks, variant, short):
    schedule = MultigridSchedule(BASE, batch, 60, (20, 40), variant, True, short)
    try:
        schedule.check(clips, ranks)
    except ConfigError as error:
        message = str(error)
        assert f"batch_size {batch} on {ranks} process" in message
        if "or less" in message:
            fits = int(message.rpartition("must be ")[2].split()[0])
            assert 1 <= fits < batch
            better = MultigridSchedule(BASE, fits, 60, (20, 40), variant, True, short)
            better.check(clips, ranks)
        else:
            assert message.endswith("or with the short cycle alone")
            least = MultigridSchedule(BASE, 1, 60, (20, 40), variant, True, short)
            with pytest.raises(ConfigError):
                least.check(clips, ranks)
        return
    seen = set()
    for epoch in range(schedule.epochs):
        for step in plan_epoch(schedule, epoch, clips, ranks):
            seen.add(schedule.phase(epoch, step.first / clips))
    assert seen == set(schedule.phases)


def test_a_batch_too_large_is_told_with_what_would_do():
    schedule = MultigridSchedule(BASE, 64, 100)
    message = "quarter 1 are of up to 2048 clips; batch_size must be 50 or less"
    with pytest.raises(ConfigError, match=message):
        schedule.check(1600)
    schedule = MultigridSchedule(BASE, 16, 100)
    with pytest.raises(ConfigError, match=r"16 on 4 processes .* never comes"):
        schedule.check(2100, 4)


def test_too_few_epochs_are_told():
    schedule = original(epochs=9, milestones=(4, 6, 8))
    (warning,) = schedule.check(100_000)
    assert warning.startswith("14 epochs are too few: no epoch for step 1, grid 4, step 2, grid 3")
    assert original().check(100_000) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "own"}, "paper or original, got 'own'"),
        ({"long_cycle": False, "short_cycle": False}, "the long cycle, the short cycle or both"),
        ({"batch_size": 0}, r"batch_size .* 0"),
        ({"epochs": 0}, "max_epochs of the Trainer, got 0"),
        ({"epoch_factor": 0.0}, r"epoch_factor .* 0"),
        ({"shape": BASE._replace(crop=0)}, "crop=0"),
        ({"variant": "original"}, "lr_schedule must be step"),
        ({"variant": "original", "milestones": (40, 30)}, r"must rise .* \[40, 30\]"),
        ({"variant": "original", "milestones": (40, 100)}, r"\[40, 100\] and 100"),
        ({"variant": "original", "milestones": (0, 50)}, r"\[0, 50\]"),
    ],
)
def test_settings_that_cannot_work(options, message):
    with pytest.raises(ConfigError, match=message):
        MultigridSchedule(**{"shape": BASE, "batch_size": 64, "epochs": 100} | options)
