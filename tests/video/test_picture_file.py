"""Pictures are videos of one frame."""

import numpy as np
import pytest
import torch
from mutated import mutated
from PIL import Image

from vidpool.errors import VideoError
from vidpool.video import open_video

PIXELS = np.arange(36 * 48 * 3, dtype=np.uint8).reshape(36, 48, 3)


@pytest.mark.parametrize("name", ["a.png", "b.bmp", "c.ppm", "d.TIFF", "e.webp"])
def test_the_pixels_are_those_stored(name, tmp_path):
    path = tmp_path / name
    Image.fromarray(PIXELS).save(path, **({"lossless": True} if name.endswith("webp") else {}))
    with open_video(path) as picture:
        assert len(picture) == 1
        assert torch.equal(picture.frames([0, 0])[1], torch.from_numpy(PIXELS).permute(2, 0, 1))
        assert picture.frames([0], short_side=18).shape == (1, 3, 18, 24)
        with pytest.raises(IndexError, match="no frame 1"):
            picture.frames([1])
        with pytest.raises(VideoError, match="has no frame rate"):
            _ = picture.fps


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1"])
def test_all_kinds_of_picture_become_rgb(mode, tmp_path):
    path = tmp_path / f"x.{'jpg' if mode == 'CMYK' else 'png'}"
    picture = Image.new("RGB", (20, 10), (255, 255, 255)).convert(mode)
    picture.save(path)
    with open_video(path) as video:
        assert video.frames([0]).shape == (1, 3, 10, 20)
        assert video.frames([0]).float().mean() > 250


def test_what_is_no_picture_is_told(tmp_path):
    for name, content, says in (
        ("a.jpg", b"not a picture", "is not a picture"),
        ("b.jpg", b"", "is empty"),
        ("c.jpg", None, "no such file"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(VideoError, match=f"{name}: {says}"), open_video(tmp_path / name):
            pass
    Image.fromarray(PIXELS).save(tmp_path / "d.jpg")
    whole = (tmp_path / "d.jpg").read_bytes()
    (tmp_path / "d.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    with open_video(tmp_path / "d.jpg") as video, pytest.raises(VideoError, match="damaged"):
        video.frames([0])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for suffix in ("jpg", "png", "webp", "bmp", "tif"):
        Image.fromarray(PIXELS).save(folder / f"whole.{suffix}")
    return folder


@pytest.mark.filterwarnings("ignore")  # Pillow's, of what it can read all the same
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
def test_damaged_files_are_read_or_refused(files, suffix):
    path = files / f"damaged.{suffix}"
    whole = (files / f"whole.{suffix}").read_bytes()
    refused = read = 0
    for seed in range(200):
        path.write_bytes(mutated(whole, seed))
        try:
            with open_video(path) as video:
                assert video.frames([0], short_side=8).dtype == torch.uint8
        except VideoError as error:
            refused += str(error).startswith(str(path))
        else:
            read += 1
    assert refused
    assert refused + read == 200
