"""Images for experiments: image files, folders of images, or photographs from scikit-image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidpool.errors import ConfigError, DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
    "rocket.jpg",
)
"""Photographs that scikit-image's package contains, 300 to 1000 pixels wide.

Its moon is excluded: the pixels of that image were doubled, so that pooling by 2 loses nothing.
"""


def find_images(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """List image files.

    Args:
        paths: Files, which are returned as they are, and folders, which are searched recursively
            for files that end in one of ``SUFFIXES``. If empty, :func:`photographs` are used.

    Returns:
        The files, those of each folder in alphabetical order.

    Raises:
        DataError: A path does not exist, or a folder has no images.
        ConfigError: scikit-image is not installed, or lacks a photograph.
    """
    if not paths:
        return photographs()
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not inside:
            raise DataError(f"{path}: holds no images ({', '.join(SUFFIXES)})")
        files += inside
    return list(dict.fromkeys(files))


def photographs() -> list[Path]:
    """Return the files of scikit-image's photographs that ``PHOTOGRAPHS`` names.

    Raises:
        ConfigError: scikit-image is not installed, or lacks a photograph.
    """
    try:
        import skimage.data
    except ImportError:
        raise ConfigError(
            "without images of your own, scikit-image's photographs are taken, and scikit-image "
            "is not installed: pip install 'vidpool[analysis]', or name a folder"
        ) from None
    folder = Path(skimage.data.__file__).parent
    files = [folder / name for name in PHOTOGRAPHS]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ConfigError(
            f"this scikit-image does not ship {', '.join(missing)}: update it, or name a folder"
        )
    return files


def read_image(file: Path) -> Tensor:
    """Read an image as float32 RGB (3, H, W) in [0, 1], rotated according to its EXIF tag.

    Grey images get three equal channels. Only the first frame of a file with several frames is
    read. Transparency is ignored.

    Raises:
        DataError: The file cannot be read.
        ConfigError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ConfigError(
            "Pillow is not installed, which reads images: pip install 'vidpool[analysis]'"
        ) from None
    if not file.exists():
        raise DataError(f"{file}: no such file")
    try:
        with Image.open(file) as image:
            rotated = ImageOps.exif_transpose(image)
            if rotated.mode.startswith("I"):  # 16 bits, which `convert` clips
                grey = np.asarray(rotated, dtype=np.float32) / 65535
                pixels = np.repeat(grey[..., None], 3, axis=2).clip(0, 1)
            elif rotated.mode == "F":  # which `convert` rounds to black
                grey = np.asarray(rotated, dtype=np.float32)
                if not (grey.min() >= 0 and grey.max() <= 1):  # refuses NaN too
                    raise ValueError("floating-point values must lie in [0, 1]")
                pixels = np.repeat(grey[..., None], 3, axis=2)
            else:
                pixels = np.asarray(rotated.convert("RGB"), dtype=np.float32) / 255
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: cannot be read as an image ({error})") from None
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
