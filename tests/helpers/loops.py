"""The methods, some geometries and dimensions, and pooling by loops over windows and cells."""

from itertools import product

import torch
from torch import nn

from vidpool.nn import pooling

MAX = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
SIZES = {1: (11,), 2: (9, 7), 3: (3, 5, 4)}
METHODS = {
    "Sum": {},
    "PowerAvg": {},
    "LearnedNorm": {},
    "Gated": {},
    "DetailPreserving": {"channels": 3},
    "LocalImportance": {"channels": 3},
    "Stochastic": {},
    "S3": {},
    "Ordinal": {"channels": 3},
    "Lift": {"channels": 3},
}
GEOMETRIES = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 1, "padding": 1},
    {"kernel_size": 2, "stride": 3, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2},
]
DIMENSIONS = [1, 2, 3]


def make(method, ndim, seed=0, **arguments):
    """A layer in float64 and evaluation, whose parameters are random."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        layer = getattr(pooling, f"{method}Pool{ndim}d")(**METHODS[method] | arguments)
        for parameter in layer.parameters():
            parameter.add_(torch.rand(parameter.shape) - 0.5)
    return layer.double().eval()


def maps(ndim, seed=0, sizes=None, channels=3):
    """Random maps, (2, C, *sizes) in float64, whose values are all different."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, channels, *(sizes or SIZES[ndim]))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def by_loops(x, ndim, geometry, pool):
    """Pool one window after the other.

    Args:
        pool: Called with the values of a window (a vector), their places in the kernel, and the
            channel; returns the output.
    """
    out = MAX[ndim](**geometry)(x)
    arguments = {"stride": geometry["kernel_size"], "padding": 0, "dilation": 1} | geometry
    kernel, stride = arguments["kernel_size"], arguments["stride"]
    padding, dilation = arguments["padding"], arguments["dilation"]
    for n, channel in product(range(x.shape[0]), range(x.shape[1])):
        for place in product(*map(range, out.shape[2:])):
            values, cells = [], []
            for cell in product(range(kernel), repeat=ndim):
                at = [p * stride - padding + c * dilation for p, c in zip(place, cell, strict=True)]
                if all(0 <= a < size for a, size in zip(at, x.shape[2:], strict=True)):
                    values.append(x[(n, channel, *at)])
                    cells.append(cell)
            out[(n, channel, *place)] = pool(torch.stack(values), cells, channel)
    return out
