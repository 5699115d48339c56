"""Detail-preserving pooling against loops; extreme values; with random sampling."""

import torch
from loops import by_loops, make, maps
from torch import nn

from vidpool.nn import pooling


def detail_by_loops(layer, x, ndim, geometry):
    alpha, power = layer.log_alpha.detach().exp(), layer.log_lambda.detach().exp()

    def preserve(values, _cells, channel):
        squares = (values - values.mean()) ** 2 + 1e-3
        weights = alpha[channel] + (squares / squares.mean()) ** (power[channel] / 2)
        return (weights * values).sum() / weights.sum()

    return by_loops(x, ndim, geometry, preserve)


def test_detail_preserving(ndim, geometry):
    x, layer = maps(ndim), make("DetailPreserving", ndim, **geometry)
    torch.testing.assert_close(layer(x), detail_by_loops(layer, x, ndim, geometry))


def test_large_values_stay_finite():
    layer = make("DetailPreserving", 1, channels=1, kernel_size=4).float()
    layer.log_lambda.data.fill_(3)  # the twentieth power
    x = torch.tensor([[0.0, 0, 0, 1e30]], requires_grad=True)
    out = layer(x)
    expected = detail_by_loops(layer, x.detach().double()[None], 1, {"kernel_size": 4})[0]
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=0)
    out.backward(torch.tensor([[1e-20]]))
    for leaf in (x, *layer.parameters()):
        assert leaf.grad.isfinite().all()


def test_equal_values_far_from_zero_come_back():
    layer = make("DetailPreserving", 2, kernel_size=3, stride=2, padding=1).float()
    x = torch.full((1, 3, 5, 5), 12345.678)
    assert torch.equal(layer(x), torch.full((1, 3, 3, 3), 12345.678))


def test_stochastic_draws_of_the_dense_result():
    geometry = {"kernel_size": 3, "stride": 2, "padding": 1}
    x = maps(2, channels=3)
    layer = make("DetailPreserving", 2, stochastic=True, **geometry)
    dense = detail_by_loops(layer, x, 2, geometry | {"stride": 1})
    expected = nn.functional.avg_pool2d(dense, 2, ceil_mode=True)
    torch.testing.assert_close(layer(x), expected)
    drawn = layer.train()(x)
    assert drawn.shape == expected.shape
    for value, place in (
        (drawn[0, 0, 0, 0], dense[0, 0, :2, :2]),
        (drawn[1, 2, 4, 3], dense[1, 2, 8:, 6:]),
    ):
        assert torch.isclose(place, value).any()


def test_is_not_random_by_default():
    layer = pooling.DetailPreservingPool3d(2, channels=2).train()
    x = torch.rand(1, 2, 4, 4, 4)
    assert torch.equal(layer(x), layer(x))
