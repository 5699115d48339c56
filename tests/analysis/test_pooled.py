import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vidpool.analysis.pooled import make_layer, pool_and_enlarge
from vidpool.errors import ConfigError
from vidpool.nn import POOLING_METHODS


@pytest.mark.parametrize("method", POOLING_METHODS)
@settings(max_examples=8)
@given(
    sizes=st.lists(st.integers(5, 9), min_size=2, max_size=3),
    k=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_any_size_and_window_gives_a_picture_of_the_same_size(method, sizes, k, seed):
    x = torch.rand(3, *sizes, generator=torch.Generator().manual_seed(seed))
    k = 2 if method == "lift" else k
    layer = make_layer(method, k, len(sizes))
    with torch.no_grad():
        pooled = pool_and_enlarge(x, layer, seed)
        again = pool_and_enlarge(x, layer, seed)
    assert pooled.shape == x.shape
    assert torch.equal(pooled, again)
    assert 0 <= pooled.min() <= pooled.max() <= 1


@pytest.mark.parametrize("method", ["soft", "max", "avg"])
def test_enlarged_as_area_interpolation_does(method):
    x = torch.rand(3, 12, 18)
    layer = make_layer(method, 3, 2)
    expected = F.interpolate(layer(x[None]), (12, 18), mode="area")[0]
    torch.testing.assert_close(pool_and_enlarge(x, layer), expected)


def test_windows_beyond_the_border_pool_what_they_have():
    x = torch.full((3, 5, 5), 0.5)
    for method in ("soft", "avg", "max", "stochastic"):
        torch.testing.assert_close(pool_and_enlarge(x, make_layer(method, 3, 2)), x)


def test_what_cannot_be_made():
    with pytest.raises(ConfigError, match="unknown pooling 'median'"):
        make_layer("median", 2, 2)
    with pytest.raises(ConfigError, match="fewer than those of a window, 3 on every axis"):
        pool_and_enlarge(torch.rand(3, 2, 9), make_layer("max", 3, 2))
    with pytest.raises(ConfigError, match="LiftPool halves an axis"):
        make_layer("lift", 3, 2)
    with pytest.raises(ConfigError, match="at least 1 pixel, got k = 0"):
        make_layer("soft", 0, 2)
