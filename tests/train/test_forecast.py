"""What a training will be, beside numbers worked out by hand."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from vidpool.data.multigrid_schedule import MultigridSchedule
from vidpool.data.schedule import ConstantSchedule
from vidpool.data.views import ClipShape
from vidpool.train.forecast import MAX_DOTS, forecast, forecast_figure

BASE = ClipShape(16, 2, 256)


def pixels(shape):
    return shape.frames * shape.crop**2


def test_clips_of_one_shape():
    training = forecast(ConstantSchedule(BASE, 8), 3, 100, 2, lambda epoch: 0.1 / (1 + epoch))
    assert training.phases == ["all"]
    assert training.shapes() == [BASE]
    # 100 clips in steps of 16: six of them and one of 4
    assert training.batch.tolist() == 3 * [*6 * [16], 4]
    assert training.begin.tolist() == pytest.approx(
        [epoch + 16 * step / 100 for epoch in range(3) for step in range(7)]
    )
    assert training.rate == pytest.approx(0.1 / (1 + training.begin))
    assert training.cost(pixels) == 300 * 16 * 256**2


def test_the_papers_multigrid():
    schedule = MultigridSchedule(BASE, 16, 2)
    training = forecast(schedule, 2, 100_000, 4, lambda _: 0.1)
    assert training.phases == [f"quarter {n}" for n in (1, 2, 3, 4)]
    assert training.batch.sum() == 200_000
    for number in range(4):
        own = training.phase == number
        assert training.batch[own].sum() / 200_000 == pytest.approx(0.25, abs=0.01)
        assert set(training.rate[own]) == {0.1 / 2**number}
    assert len(training.shapes()) == 10  # of the table's twelve, 8 x 182 and 8 x 128 come twice
    assert training.shapes(training.phase == 3) == [
        ClipShape(16, 2, side)
        for side in dict.fromkeys(training.crop[training.phase == 3].tolist())
    ]
    # each of a phase's shapes is used at as many steps, of as many pixels
    steps = sum(0.25 / np.mean([step.batch_size for step in p.steps]) for p in schedule.phases)
    share = training.cost(pixels) / (200_000 * pixels(BASE))
    assert share == pytest.approx(steps * 16, rel=0.02)


@pytest.mark.parametrize("variant", ["paper", "original"])
def test_the_picture(variant):
    schedule = MultigridSchedule(BASE, 1, 60, (20, 40), variant)
    training = forecast(schedule, schedule.epochs, 3000, 1, lambda epoch: 0.1**epoch)
    assert len(training.begin) > MAX_DOTS
    figure = forecast_figure(training, "a title")
    FigureCanvasAgg(figure).draw()
    axes = figure.axes
    assert len(axes) == 6
    assert [ax.get_ylabel() for ax in axes[::2]] == [
        "crop, pixels",
        "clips in a batch",
        "learning rate",
    ]
    assert axes[4].get_xlim() == (0, schedule.epochs)
    assert axes[5].get_xlim() == (0, 1)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["4", "8", "16"]
    for ax in axes:
        dots = sum(len(line.get_xdata()) for line in ax.lines)
        assert 0 < dots <= MAX_DOTS
    # all shapes are among the dots
    for frames, line in zip((4, 8, 16), axes[0].lines, strict=True):
        assert len(set(line.get_ydata())) == len(set(training.crop[training.frames == frames]))
