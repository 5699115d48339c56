"""The picture of Table 3: measured and published ratios, in place and readable."""

import pytest

from vidpool.bench.methods import MethodsResult, Timed
from vidpool.bench.methods_chart import methods_chart
from vidpool.bench.pool import Case
from vidpool.bench.timing import Times

MACHINE = {"device": "cpu", "device_name": "Some CPU", "torch": "9.9", "threads": 3}
CASE = Case("case", (64, 3, 224, 224), (2,))


def test_bars_are_ratios_to_average_pooling():
    seconds = {"soft": (2.0, 3.0), "avg": (1.0, 2.0), "lift": (4.0, 5.0)}
    times = {
        Timed(name, direction): Times((value, value))
        for name, values in seconds.items()
        for direction, value in zip(("forward", "backward"), values, strict=True)
    }
    published = {"soft": {"forward": 3.4, "backward": 3.2}, "avg": {"forward": 1, "backward": 1}}
    result = MethodsResult(CASE, "contiguous", "float32", "randn", times)
    figure = methods_chart(result, MACHINE, published)
    for axes, direction, here in zip(
        figure.axes, ("forward", "backward"), ([2, 4], [1.5, 2.5]), strict=True
    ):
        bars = {bars.get_label(): [bar.get_width() for bar in bars] for bars in axes.containers}
        assert bars["measured here"] == pytest.approx(here)
        assert bars["the paper"] == pytest.approx([published["soft"][direction]])
        assert axes.get_title() == direction
        low, high = axes.get_xlim()
        assert low < 1
        assert high > max(here)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["soft", "lift"]
    for part in ("Some CPU", "CPU threads: 3", "64, 3, 224, 224", "window 2 x 2", "float32"):
        assert part in figure.get_suptitle()
