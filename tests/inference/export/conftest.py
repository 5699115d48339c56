"""A narrow network to export."""

import pytest
from checkpoints import make_checkpoint


@pytest.fixture(scope="session")
def narrow(tmp_path_factory):
    """A checkpoint of r3d_18 at width 4 with SoftPool, for clips of 4 x 32 x 32."""
    return make_checkpoint(tmp_path_factory.mktemp("narrow") / "r3d.ckpt", "r3d_18", width=4)
