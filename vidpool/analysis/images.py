"""Images for experiments: finding and reading them, and drawing them in rows on sheets."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from vidpool.errors import ConfigError, DataError
from vidpool.figures import plain_text

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
LINE = 0.17  # inches per line of a name
ROW_NAMES = 2.0  # inches for the names of rows
MIN_SIDE = 192  # pixels of the shorter side of a frame


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


def draw_sheet(
    rows: Sequence[Sequence[Tensor]],
    title: str,
    names: Sequence[Sequence[str]],
    row_names: Sequence[str] = (),
    side: float = 1.25,
) -> Figure:
    """Draw images in rows.

    Args:
        rows: Images, uint8 (H, W, 3) each; the same number in each row.
        title: Title of two lines.
        names: Names above the images of each row; empty for a row without names.
        row_names: Names of the rows. Defaults to none.
        side: Size of an image in inches. Defaults to 1.25.
    """
    lines = [max((name.count("\n") + 1 for name in row), default=0) for row in names]
    left, columns = ROW_NAMES if row_names else 0.1, len(rows[0])
    gap = 0.05 + LINE * max(lines[1:], default=0)
    over = 0.6 + LINE * lines[0]
    width = left + side * columns + 0.04 * (columns - 1) + 0.1
    height = over + side * len(rows) + gap * (len(rows) - 1) + 0.05
    figure = Figure(figsize=(width, height))
    grid = figure.add_gridspec(
        len(rows),
        columns,
        left=left / width,
        right=1 - 0.1 / width,
        top=1 - over / height,
        bottom=0.05 / height,
        wspace=0.04 / side,
        hspace=gap / side,
    )
    figure.suptitle(
        plain_text(title),
        x=0.1 / width,
        y=1 - 0.1 / height,
        ha="left",
        va="top",
        fontsize=10,
    )
    for i, images in enumerate(rows):
        for j, image in enumerate(images):
            axes = figure.add_subplot(grid[i, j])
            axes.imshow(image.numpy())
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set_visible(False)
            if names[i]:
                axes.set_title(plain_text(names[i][j]), fontsize=9, pad=3)
            if row_names and j == 0:
                name = plain_text(row_names[i])
                axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    return figure


def frames_to_show(frames: Tensor, most: int) -> list[int]:
    """Return the numbers of at most ``most`` evenly spaced frames of (T, …), ends included."""
    count = min(most, len(frames))
    return [round(i * (len(frames) - 1) / max(1, count - 1)) for i in range(count)]


def magnify_video(video: Tensor, frame_side: int) -> Tensor:
    """Repeat pixels so that small frames are visible, and pad the video to even sides.

    Most codecs need even sides.

    Args:
        video: uint8 (T, H, W, 3); may show several frames next to each other.
        frame_side: Shorter side of one of these frames in pixels. An integer factor magnifies it
            to at least 192 pixels.

    Returns:
        uint8 (T, H', W', 3) with even H' and W'.
    """
    factor = math.ceil(MIN_SIDE / frame_side)
    video = video.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)
    return F.pad(video, (0, 0, 0, video.shape[2] % 2, 0, video.shape[1] % 2))
