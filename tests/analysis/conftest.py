"""A few small images."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def images(tmp_path):
    """A folder with a smooth and a noisy image, in colour and grey, of odd sizes."""
    folder = tmp_path / "images"
    (folder / "inside").mkdir(parents=True)
    rows, columns = np.mgrid[0:50, 0:67]
    smooth = np.stack([rows * 4, columns * 3, 128 + 90 * np.sin(rows / 4)], axis=2)
    Image.fromarray(smooth.clip(0, 255).astype(np.uint8)).save(folder / "smooth.png")
    noise = np.random.default_rng(0).integers(0, 256, (61, 53), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "inside" / "noise.PNG")
    return folder
