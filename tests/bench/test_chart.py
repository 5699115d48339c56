"""The picture: one bar for each ratio, in place and readable."""

import pytest

from vidpool.bench.chart import ratio_chart
from vidpool.bench.pool import CASES, CLONE, Measured, Result
from vidpool.bench.timing import Times

MACHINE = {"device": "cpu", "device_name": "Some CPU", "torch": "9.9", "threads": 3}


def result(case="tiny_8x4_k2", layout="contiguous", **seconds):
    """A result with a clone of one second."""
    times = {CLONE: Times((1.0,))}
    missing = {}
    for pool, of in seconds.items():
        for to, factor in (("forward", 1), ("forward_backward", 3)):
            if of is None:
                missing[Measured(pool, to)] = "no kernel"
            else:
                times[Measured(pool, to)] = Times((0.9 * of * factor, of * factor, of * factor))
    return Result(CASES[case], layout, "float32", "randn", times, missing)


def test_bars_are_ratios():
    results = [result(soft=2, max=3, avg=None), result(layout="channels_last", soft=4, max=5)]
    figure = ratio_chart(results, MACHINE)
    for panel, factor in zip(figure.axes, (1, 3), strict=True):
        bars = {bars.get_label(): [bar.get_width() for bar in bars] for bars in panel.containers}
        assert bars == {
            "soft": [2 * factor, 4 * factor],
            "max": [3 * factor, 5 * factor],
            "avg": [],
        }
        assert sum(text.get_text() == "none" for text in panel.texts) == 2
    left, right = figure.axes
    assert (left.get_title(), right.get_title()) == ("forward", "forward + backward")
    labels = [label.get_text() for label in left.get_yticklabels()]
    assert labels == ["tiny_8x4_k2\ncontiguous", "tiny_8x4_k2\nchannels_last"]
    title = figure.get_suptitle()
    for part in ("Some CPU", "PyTorch 9.9", "CPU threads: 3", "(float32, randn)"):
        assert part in title
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["soft", "max", "avg"]


@pytest.mark.parametrize(("reference", "scale"), [(3, "linear"), (60, "log")])
def test_the_scale_follows_the_range(reference, scale):
    figure = ratio_chart([result(soft=2, reference=reference)], MACHINE)
    assert {axes.get_xscale() for axes in figure.axes} == {scale}
    for axes in figure.axes:  # every bar's end is within, and so is the clone
        low, high = axes.get_xlim()
        widths = [bar.get_width() for bars in axes.containers for bar in bars]
        assert low < min(1, *widths)
        assert max(widths) < high


def test_the_legend_covers_no_bars(tmp_path):
    figure = ratio_chart([result(case, soft=2, max=3) for case in CASES], MACHINE)
    figure.savefig(tmp_path / "chart.png")
    below = figure.legends[0].get_window_extent()
    assert all(below.y1 < axes.get_window_extent().y0 for axes in figure.axes)
