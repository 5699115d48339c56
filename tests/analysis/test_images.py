import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vidpool.analysis.images import find_images, photographs, read_image
from vidpool.errors import DataError


def test_folders_are_searched_and_files_taken(images):
    found = find_images([images])
    assert [file.name for file in found] == ["noise.PNG", "smooth.png"]
    assert find_images([images / "smooth.png", images]) == [images / "smooth.png", found[0]]
    for path, told in ((images / "none", "none: no such"), (images.parent / "empty", "no images")):
        (images.parent / "empty").mkdir(exist_ok=True)
        with pytest.raises(DataError, match=told):
            find_images([path])


def test_photographs_of_scikit_image():
    pytest.importorskip("skimage")
    for file in photographs():
        picture = read_image(file)
        assert picture.shape[0] == 3
        assert min(picture.shape[1:]) >= 300
        assert picture.std() > 0.05


def test_values_colours_and_turning(tmp_path):
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 0] = (255, 51, 0)
    picture = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter: the first pixel is shown on the upper right
    picture.save(tmp_path / "turned.png", exif=exif)
    turned = read_image(tmp_path / "turned.png")
    assert turned.shape == (3, 6, 4)
    assert torch.equal(turned[:, 0, 3], torch.tensor([1.0, 0.2, 0.0]))
    deep = np.full((5, 5), 32768, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png").unique().tolist() == pytest.approx([0.5], abs=1e-4)


def test_floating_point_images(tmp_path):
    grey = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    Image.fromarray(grey).save(tmp_path / "float.tiff")
    picture = read_image(tmp_path / "float.tiff")
    assert picture.shape == (3, 3, 4)
    assert (picture == torch.from_numpy(grey)).all()
    for wrong in (200 * grey, grey - 0.1, grey * np.nan):
        Image.fromarray(wrong).save(tmp_path / "wrong.tiff")
        with pytest.raises(DataError, match=r"wrong.tiff: .* must lie in \[0, 1\]"):
            read_image(tmp_path / "wrong.tiff")


@settings(max_examples=25)
@given(
    content=st.binary(max_size=60), begin=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
)
def test_files_that_are_no_images(tmp_path_factory, content, begin):
    file = tmp_path_factory.mktemp("bad") / "bad.png"
    file.write_bytes(begin + content)
    with pytest.raises(DataError, match=re.escape(f"{file}: cannot be read as an image")):
        read_image(file)
