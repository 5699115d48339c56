"""What the tests of training share."""

import os

import pytest


@pytest.fixture(autouse=True)
def _own_seed():
    """Lightning's seed, which it keeps in the environment, ends with the test."""
    before = os.environ.get("PL_GLOBAL_SEED")
    yield
    if before is None:
        os.environ.pop("PL_GLOBAL_SEED", None)
    else:
        os.environ["PL_GLOBAL_SEED"] = before
