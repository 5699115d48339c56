"""Every pool is called as a user would call it, and its bars are in place and readable."""

import pytest
import torch
from torch.nn import functional as F

from vidpool.bench import pool
from vidpool.bench.cases import CASES, Case, make_input
from vidpool.bench.pool import CLONE, PoolCall, PoolResult, measure_pools, pool_chart
from vidpool.bench.timing import Times

MACHINE = {"device": "cpu", "device_name": "Some CPU", "torch": "9.9", "threads": 3}
TINY = Case("tiny", (2, 3, 5, 6, 7), (3,), (2,), (1,))


def recorded(monkeypatch, case, **options):
    """The results of what is measured, by key, instead of times."""
    results = {}

    def interleave(calls, _seconds_of, _rounds):
        results.update({key: call() for key, call in calls.items()})
        return {key: Times((1.0,)) for key in calls}

    monkeypatch.setattr(pool, "interleave", interleave)
    measure_pools(case, **options)
    return results


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("sizes", [(5,), (5, 6), (5, 6, 7)])
def test_every_pool_pools_x(monkeypatch, sizes, layout):
    ndim = len(sizes)
    case = Case("any", (2, 3, *sizes), (3,), (2,), (1,))
    found = recorded(monkeypatch, case, layout=layout)
    pools = ("soft", "max", "avg", "reference")
    assert set(found) == {CLONE} | {
        PoolCall(name, passes) for name in pools for passes in ("forward", "forward_backward")
    }
    x = make_input(case.shape, layout, "float32", "randn")
    assert torch.equal(found[CLONE], x)
    assert found[CLONE].stride() == x.stride()
    names = ("max_pool", "avg_pool")
    largest, average = (getattr(F, f"{name}{ndim}d") for name in names)
    assert torch.equal(found[PoolCall("max")], largest(x, 3, 2, 1))
    assert torch.equal(found[PoolCall("avg")], average(x, 3, 2, 1, count_include_pad=False))
    soft = found[PoolCall("soft")]
    torch.testing.assert_close(soft, found[PoolCall("reference")])
    assert (soft <= found[PoolCall("max")] + 1e-6).all()
    for key, result in found.items():
        assert not result.requires_grad
        if key.passes == "forward_backward":  # the gradient of x
            assert result.shape == x.shape
            assert result.abs().sum() > 0


def test_the_compiler_gets_the_reference(monkeypatch):
    compiled = []

    def compiler(function, dynamic):
        compiled.append((function, dynamic))
        return lambda x: function(x) + 1

    monkeypatch.setattr(torch, "compile", compiler)
    found = recorded(monkeypatch, TINY, compiled=True)
    assert [dynamic for _, dynamic in compiled] == [False]
    assert torch.equal(found[PoolCall("compiled")], found[PoolCall("reference")] + 1)
    assert PoolCall("compiled", "forward_backward") in found


def test_what_has_no_kernel_is_missing(monkeypatch):
    def none(*_, **__):
        raise NotImplementedError("no avg here")

    monkeypatch.setattr(F, "avg_pool3d", none)
    result = measure_pools(TINY, rounds=2)
    assert result.missing == dict.fromkeys(
        (PoolCall("avg"), PoolCall("avg", "forward_backward")), "no avg here"
    )
    assert result.ratio(PoolCall("soft"), PoolCall("avg")) is None
    assert result.ratio(PoolCall("avg"), CLONE) is None
    assert result.ratio(PoolCall("soft"), CLONE) > 0
    assert {len(times.rounds) for times in result.times.values()} == {2}


def result(case="tiny_8x4_k2", layout="contiguous", **seconds):
    """A result with a clone of one second."""
    times = {CLONE: Times((1.0,))}
    missing = {}
    for name, ratio in seconds.items():
        for passes, factor in (("forward", 1), ("forward_backward", 3)):
            if ratio is None:
                missing[PoolCall(name, passes)] = "no kernel"
            else:
                times[PoolCall(name, passes)] = Times(
                    (0.9 * ratio * factor, ratio * factor, ratio * factor)
                )
    return PoolResult(CASES[case], layout, "float32", "randn", times, missing)


def test_bars_are_ratios():
    results = [result(soft=2, max=3, avg=None), result(layout="channels_last", soft=4, max=5)]
    figure = pool_chart(results, MACHINE)
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
    figure = pool_chart([result(soft=2, reference=reference)], MACHINE)
    assert {axes.get_xscale() for axes in figure.axes} == {scale}
    for axes in figure.axes:  # every bar's end is within, and so is the clone
        low, high = axes.get_xlim()
        widths = [bar.get_width() for bars in axes.containers for bar in bars]
        assert low < min(1, *widths)
        assert max(widths) < high


def test_the_legend_covers_no_bars(tmp_path):
    figure = pool_chart([result(case, soft=2, max=3) for case in CASES], MACHINE)
    figure.savefig(tmp_path / "chart.png")
    below = figure.legends[0].get_window_extent()
    assert all(below.y1 < axes.get_window_extent().y0 for axes in figure.axes)
