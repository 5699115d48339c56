"""Fixture for tests and doctests."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

REGISTRIES = {"vidpool.nn.registry": "POOLING_METHODS", "vidpool.models.registry": "_MODELS"}


@pytest.fixture(autouse=True)
def _keep_registries() -> Iterator[None]:
    """Remove what a test or a doctest registers."""
    registries = [
        getattr(sys.modules[module], name)
        for module, name in REGISTRIES.items()
        if module in sys.modules
    ]
    before = [dict(registry) for registry in registries]
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)
