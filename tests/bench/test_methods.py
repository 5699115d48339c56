"""Table 3's methods: each pools and propagates as its layer does; memory is what autograd keeps."""

import pytest
import torch
from torch import nn

from vidpool.bench import methods
from vidpool.bench.cases import Case, make_input
from vidpool.bench.methods import (
    BASELINE,
    TABLE_3_CASE,
    MethodCall,
    MethodsResult,
    kept_bytes,
    make_layer,
    measure_methods,
    methods_chart,
)
from vidpool.bench.timing import Times
from vidpool.errors import ConfigError
from vidpool.nn.registry import POOLING_METHODS

TINY = Case("tiny", (2, 3, 6, 8, 10), (3,), (2,), (1,))
MACHINE = {"device": "cpu", "device_name": "Some CPU", "torch": "9.9", "threads": 3}


@pytest.fixture
def called(monkeypatch):
    """The results of what is measured, by key, instead of times."""
    results = {}

    def interleave(calls, seconds_of, _rounds):
        results.update({key: recorded(call) for key, call in calls.items()})
        return {key: Times((seconds_of(call),)) for key, call in calls.items()}

    def recorded(call):
        call.prepare()
        return call()

    monkeypatch.setattr(methods, "interleave", interleave)
    return results


@pytest.mark.parametrize("sizes", [(8,), (8, 10), (6, 8, 10)])
def test_every_method_pools_and_propagates(called, sizes):
    case = Case("any", (2, 3, *sizes), (3,), (2,), (1,))
    result = measure_methods(list(POOLING_METHODS), case)
    assert result.missing == {}
    assert result.methods == list(POOLING_METHODS)
    x = make_input(case.shape, "contiguous", "float32", "randn")
    for name in POOLING_METHODS:
        layer = make_layer(name, case)
        assert layer.training
        y = called[MethodCall(name, "forward")]
        assert y.shape == layer(x).shape
        assert not y.requires_grad
        gradients = called[MethodCall(name, "backward")]
        assert gradients[0].shape == x.shape
        assert gradients[0].abs().sum() > 0
        assert len(gradients) == 1 + len(list(layer.parameters()))


def test_average_pooling_leaves_padding_out(called):
    measure_methods(["avg"], TINY)
    assert [name for name, _ in called] == ["avg", "avg"]
    x = make_input(TINY.shape, "contiguous", "float32", "randn")
    average = nn.functional.avg_pool3d(x, 3, 2, 1, count_include_pad=False)
    assert torch.equal(called[MethodCall("avg", "forward")], average)


def test_average_pooling_is_always_there():
    result = measure_methods(["soft"], TINY, rounds=3)
    assert result.methods == ["soft", BASELINE]
    assert result.ratio(BASELINE, "forward") == 1
    assert result.ratio("soft", "backward") > 0
    assert {len(times.rounds) for times in result.times.values()} == {3}


def test_a_call_is_timed_without_what_it_prepares():
    done = []

    class Call:
        def prepare(self):
            done.append("prepare")

        def __call__(self):
            done.append("call")

    def clock():
        done.append("clock")
        return 0.0

    seconds_of = methods._without_preparation(lambda call: (clock(), call(), clock())[0])
    assert seconds_of(Call()) == 0.0
    assert done == ["prepare", "clock", "call", "clock"]


def test_what_cannot_be_measured_is_missing(monkeypatch):
    def none(*_):
        raise NotImplementedError("no max here\nbut for integers")

    monkeypatch.setattr(nn.MaxPool3d, "forward", none)
    result = measure_methods(["max", "soft"], TINY, rounds=1)
    assert result.missing == {"max": "no max here"}
    assert result.methods == ["soft", "avg"]
    assert result.ratio("max", "forward") is None
    assert result.as_dict()["none"] == {"max": "no max here"}


def test_ratios_are_those_of_medians():
    times = {
        MethodCall("avg", "forward"): Times((1.0, 2.0, 9.0)),
        MethodCall("max", "forward"): Times((8.0, 1.0, 5.0)),
    }
    result = MethodsResult(TINY, "contiguous", "float32", "randn", times)
    assert result.ratio("max", "forward") == 2.5
    assert result.ratio("max", "backward") is None


class Saves(nn.Module):
    """Keeps x, what it learns, x's exponential, and a view of that for its backward pass."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        exponential = x.exp()  # keeps its result
        return exponential[:1] * self.scale * x[:1]  # keeps a view of it, x and the scale


def test_kept_bytes():
    x = torch.randn(4, 5)
    #  the exponential; the view of it shares its memory; the product with the scale
    assert kept_bytes(Saves(), x) == 4 * 20 + 4 * 5
    assert kept_bytes(nn.Identity(), x) == 0


def test_soft_pooling_keeps_nothing_and_max_pooling_its_places():
    x = torch.randn(2, 3, 8, 8, 8)
    assert kept_bytes(make_layer("soft", TINY), x) == 0
    y = make_layer("max", TINY)(x)
    assert kept_bytes(make_layer("max", TINY), x) == 8 * y.numel()  # int64


def test_the_case_of_table_3_is_a_batch_of_the_paper():
    assert TABLE_3_CASE.shape[0] == 64
    assert TABLE_3_CASE.window.output_size(TABLE_3_CASE.shape[2:]) == (112, 112)


def test_a_window_that_does_not_fit():
    with pytest.raises(ConfigError, match="no window has room in it"):
        measure_methods(["soft"], Case("", (2, 3, 4), (5,)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    result = measure_methods(list(POOLING_METHODS), TINY, dtype="float16", device="cuda", rounds=2)
    assert result.missing == {}
    assert all(peak > 0 for peak in result.peak_bytes.values())


def test_bars_are_ratios_to_average_pooling():
    seconds = {"soft": (2.0, 3.0), "avg": (1.0, 2.0), "lift": (4.0, 5.0)}
    times = {
        MethodCall(name, direction): Times((value, value))
        for name, values in seconds.items()
        for direction, value in zip(("forward", "backward"), values, strict=True)
    }
    published = {"soft": {"forward": 3.4, "backward": 3.2}, "avg": {"forward": 1, "backward": 1}}
    result = MethodsResult(TABLE_3_CASE, "contiguous", "float32", "randn", times)
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
