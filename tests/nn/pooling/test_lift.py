"""LiftPool against loops over cells; which geometries it takes."""

import pytest
import torch
from loops import make, maps
from torch import nn

from vidpool.errors import ConfigError
from vidpool.nn import pooling


def filtered(signal, network):
    """Convolution with a repeated border, ReLU, product, tanh; all for one channel, by hand."""
    first, second = network[0], network[2]
    reach = len(first) // 2
    out = []
    for at in range(len(signal)):
        total = network[1]
        for tap, weight in enumerate(first):
            total = total + weight * signal[min(max(at + tap - reach, 0), len(signal) - 1)]
        out.append(torch.tanh(second * total.clamp_min(0) + network[3]))
    return out


def networks(sequential, channel):
    conv, _, point, _ = sequential
    return (
        conv.weight[channel].flatten(),
        conv.bias[channel],
        point.weight[channel].flatten()[0],
        point.bias[channel],
    )


def lifted(signal, lifting, channel):
    even, odd = signal[0::2], signal[1::2]
    predicted = filtered(even, networks(lifting.predict, channel))
    detail = [o - p for o, p in zip(odd, predicted, strict=True)]
    updated = filtered(detail, networks(lifting.update, channel))
    return [e + u for e, u in zip(even, updated, strict=True)], detail


@torch.no_grad()
def test_one_dimension():
    x, layer = maps(1, sizes=(10,)), make("Lift", 1, kernel_size=2)
    out = layer(x)
    for n in range(2):
        for channel in range(3):
            approximation, detail = lifted(list(x[n, channel]), layer.lifting[0], channel)
            expected = torch.stack(approximation) + torch.stack(detail)
            torch.testing.assert_close(out[n, channel], expected)


@torch.no_grad()
def test_two_dimensions_add_four_sub_bands():
    x, layer = maps(2, sizes=(6, 8)), make("Lift", 2, kernel_size=2)
    out = layer(x)
    for channel in range(3):
        columns = [lifted(list(x[0, channel, :, w]), layer.lifting[0], channel) for w in range(8)]
        bands = [torch.stack([torch.stack(c[band]) for c in columns], 1) for band in range(2)]
        total = torch.zeros(3, 4, dtype=torch.float64)
        for band in bands:
            for h in range(3):
                low, high = lifted(list(band[h]), layer.lifting[1], channel)
                total[h] += torch.stack(low) + torch.stack(high)
        torch.testing.assert_close(out[0, channel], total)


@pytest.mark.parametrize(
    ("geometry", "first", "last"),
    [
        ({"kernel_size": 2}, 0, 8),  # an odd size loses its last cell
        ({"kernel_size": 2, "ceil_mode": True}, 0, 10),
        ({"kernel_size": 3, "stride": 2, "padding": 1}, 0, 10),
        ({"kernel_size": 3, "stride": 2}, 1, 9),
        ({"kernel_size": 2, "padding": 1}, -1, 9),
    ],
)
def test_pairs_lie_in_the_middle_of_the_windows(geometry, first, last):
    x = maps(1, sizes=(9,))
    layer = make("Lift", 1, **geometry)
    aligned = x[..., torch.arange(first, last).clamp(0, 8)]
    plain = make("Lift", 1, kernel_size=2)
    torch.testing.assert_close(layer(x), plain(aligned))


def test_axes_that_are_not_pooled_are_left_alone():
    layer = make("Lift", 3, kernel_size=(1, 2, 2))
    assert len(layer.lifting) == 2
    x = maps(3, sizes=(3, 4, 4))
    flat = make("Lift", 2, kernel_size=2)
    flat.load_state_dict(
        {k: v.view(flat.state_dict()[k].shape) for k, v in layer.state_dict().items()}
    )
    frames = torch.stack([flat(frame) for frame in x.unbind(2)], 2)
    torch.testing.assert_close(layer(x), frames)


@pytest.mark.parametrize(
    ("geometry", "named"),
    [
        ({"kernel_size": 3, "stride": 1, "padding": 1}, "stride 1"),
        ({"kernel_size": 3}, "stride 3"),
        ({"kernel_size": 2, "dilation": 2}, "dilation"),
        ({"kernel_size": 2, "filter_size": 4}, "filter_size must be odd"),
    ],
)
def test_what_cannot_be_lifted_is_an_error(geometry, named):
    with pytest.raises(ConfigError, match=named):
        pooling.LiftPool2d(**geometry, channels=2)


def test_without_filters_the_bands_add_up_to_the_window():
    layer = make("Lift", 2, kernel_size=2)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    x = maps(2, sizes=(4, 6))
    torch.testing.assert_close(layer(x), 4 * nn.functional.avg_pool2d(x, 2))
