"""Every dimension and geometry, for the tests that take `ndim` and `geometry`."""

import pytest
from loops import DIMENSIONS, GEOMETRIES


@pytest.fixture(params=DIMENSIONS, ids="{}D".format)
def ndim(request):
    return request.param


@pytest.fixture(params=GEOMETRIES, ids=lambda g: "-".join(f"{k[0]}{int(v)}" for k, v in g.items()))
def geometry(request):
    return request.param
