"""The cases that are timed, and their inputs."""

import pytest
import torch

from vidpool.bench.cases import CASES, Case, make_input
from vidpool.bench.pool import measure_pools
from vidpool.errors import ConfigError


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_the_named_cases_have_windows(case):
    window = case.window
    assert len(window.kernel_size) == len(case.shape) - 2
    assert min(window.output_size(case.shape[2:])) >= 1


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
        measure_pools(case)
