"""What is measured: the cases, their inputs, and that every pool is called as a user would."""

import pytest
import torch
from torch.nn import functional as F

from vidpool.bench import pool
from vidpool.bench.pool import CASES, CLONE, Case, Measured, Result, make_input, measure
from vidpool.bench.timing import Times
from vidpool.errors import ConfigError

TINY = Case("tiny", (2, 3, 5, 6, 7), (3,), (2,), (1,))


def recorded(monkeypatch, case, **options):
    """The results of what is measured, by key, instead of times."""
    results = {}

    def interleave(calls, _seconds_of, _rounds):
        results.update({key: call() for key, call in calls.items()})
        return {key: Times((1.0,)) for key in calls}

    monkeypatch.setattr(pool, "interleave", interleave)
    measure(case, **options)
    return results


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_the_named_cases_have_windows(case):
    window = case.window
    assert len(window.kernel_size) == len(case.shape) - 2
    assert min(window.output_size(case.shape[2:])) >= 1


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("sizes", [(5,), (5, 6), (5, 6, 7)])
def test_every_pool_pools_x(monkeypatch, sizes, layout):
    ndim = len(sizes)
    case = Case("any", (2, 3, *sizes), (3,), (2,), (1,))
    found = recorded(monkeypatch, case, layout=layout)
    pools = ("soft", "max", "avg", "reference")
    assert set(found) == {CLONE} | {
        Measured(name, to) for name in pools for to in ("forward", "forward_backward")
    }
    x = make_input(case.shape, layout, "float32", "randn")
    assert torch.equal(found[CLONE], x)
    assert found[CLONE].stride() == x.stride()
    names = ("max_pool", "avg_pool")
    largest, average = (getattr(F, f"{name}{ndim}d") for name in names)
    assert torch.equal(found[Measured("max")], largest(x, 3, 2, 1))
    assert torch.equal(found[Measured("avg")], average(x, 3, 2, 1, count_include_pad=False))
    soft = found[Measured("soft")]
    torch.testing.assert_close(soft, found[Measured("reference")])
    assert (soft <= found[Measured("max")] + 1e-6).all()
    for key, result in found.items():
        assert not result.requires_grad
        if key.to == "forward_backward":  # the gradient of x
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
    assert torch.equal(found[Measured("compiled")], found[Measured("reference")] + 1)
    assert Measured("compiled", "forward_backward") in found


def test_what_has_no_kernel_is_missing(monkeypatch):
    def none(*_, **__):
        raise NotImplementedError("no avg here")

    monkeypatch.setattr(F, "avg_pool3d", none)
    result = measure(TINY, rounds=2)
    assert result.missing == dict.fromkeys(
        (Measured("avg"), Measured("avg", "forward_backward")), "no avg here"
    )
    assert result.ratio(Measured("soft"), Measured("avg")) is None
    assert result.ratio(Measured("avg"), CLONE) is None
    assert result.ratio(Measured("soft"), CLONE) > 0
    assert {len(times.rounds) for times in result.times.values()} == {2}


def test_ratios_are_those_of_medians():
    times = {CLONE: Times((1.0, 2.0, 9.0)), Measured("soft"): Times((8.0, 1.0, 5.0))}
    result = Result(TINY, "contiguous", "float32", "randn", times)
    assert result.ratio(Measured("soft"), CLONE) == 2.5


@pytest.mark.parametrize(
    ("values", "deviation", "mean"),
    [("randn", 1, 0), ("spread", 30, 0), ("offset", 1, 300), ("wide", 100, 0)],
)
def test_values(values, deviation, mean):
    x = make_input((4, 8, 10, 10, 10), "contiguous", "float64", values)
    assert x.dtype == torch.float64
    assert x.std().item() == pytest.approx(deviation, rel=0.03)
    assert x.mean().item() == pytest.approx(mean, abs=0.03 * deviation)


@pytest.mark.parametrize("sizes", [(5,), (5, 6), (5, 6, 7)])
def test_layouts_hold_the_same_numbers(sizes):
    plain, last = (
        make_input((2, 3, *sizes), layout, "bfloat16", "randn")
        for layout in ("contiguous", "channels_last")
    )
    assert torch.equal(plain, last)
    assert plain.is_contiguous()
    assert last.stride(1) == 1
    if len(sizes) == 3:
        assert last.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (Case("", (2, 3), (2,)), "shape 2,3 cannot be pooled; give N,C,T or"),
        (Case("", (2, 0, 4), (2,)), "shape 2,0,4 cannot be pooled; give N,C,T or"),
        (Case("", (2, 3, 4), (5,)), "no window has room in it; give a larger shape"),
        (Case("", (2, 3, 4, 4), (2, 2, 2)), r"kernel_size must be an int or 2 ints"),
        (Case("", (2, 3, 4, 4), (2,), (0,)), r"stride should be greater than zero"),
        (Case("", (2, 3, 4, 4), (2,), (), (2,)), r"at most half of kernel_size"),
        (Case("", (10**6, 10**6, 10**6), (2,)), "is too large for cpu"),
    ],
)
def test_cases_that_cannot_be_measured(case, message):
    with pytest.raises(ConfigError, match=message):
        measure(case)
