"""Images and clips next to their pooled versions, as in Figures 3, 5, 6, S1 and S3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn import functional as F

from vidpool.analysis.image_pooling import LEARNED, Setting
from vidpool.data.datasets.demo import write_video
from vidpool.figures import plain_text

ANIMATIONS = ("gif", "mp4", "webp")
FRAMES_SHOWN = 3
"""Frames of a clip on its sheet."""
MAX_WIDTH, MIN_HEIGHT = 8.0, 0.6
"""Limits of the size of an image on a sheet in inches."""
LETTER = 0.088
"""Inches per letter in the names of rows."""


class Region(NamedTuple):
    """A square region of an image, in pixels."""

    left: int
    top: int
    side: int

    def cut(self, x: Tensor) -> Tensor:
        """Return the region of x, (..., H, W)."""
        return x[..., self.top : self.top + self.side, self.left : self.left + self.side]


def most_detailed(image: Tensor) -> Region:
    """Return the region in which neighbouring pixels differ most, a fifth of the shorter side wide.

    Args:
        image: (3, H, W).
    """
    grey = image.float().mean(0)
    side = max(1, min(grey.shape) // 5)
    steps = torch.zeros_like(grey)
    steps[:, 1:] += (grey[:, 1:] - grey[:, :-1]).abs()
    steps[1:] += (grey[1:] - grey[:-1]).abs()
    stride, border = (
        max(1, side // 8),
        min(grey.shape) // 10,
    )  # keeps the region away from the border
    inner = steps[border : grey.shape[0] - border, border : grey.shape[1] - border]
    detail = F.avg_pool2d(inner[None], side, stride)[0]
    top, left = divmod(int(detail.argmax()), detail.shape[1])
    return Region(border + left * stride, border + top * stride, side)


def setting_label(setting: Setting) -> str:
    """Return the label of a pooled image."""
    return f"{_method_label(setting.method)}, k = {setting.kernel_size}"


def _method_label(method: str) -> str:
    return f"{method} (untrained)" if method in LEARNED else method


def image_sheet(
    image: Tensor,
    pooled: Mapping[Setting, Tensor],
    ssim: Mapping[Setting, float],
    region: Region,
    title: str,
) -> Figure:
    """Draw an image and its pooled versions, whole on the left and one region on the right.

    The first row is the image itself, the others are methods; columns are window sizes.

    Args:
        image: uint8 (3, H, W).
        pooled: Pooled versions of the size of the image, uint8 (3, H, W) each.
        ssim: SSIM of each version with the image.
        region: Region that is enlarged.
        title: Title of the figure.
    """
    methods = list(dict.fromkeys(setting.method for setting in pooled))
    kernel_sizes = list(dict.fromkeys(setting.kernel_size for setting in pooled))
    rows: dict[str, list[Tensor | None]] = {"original": [image] * len(kernel_sizes)}
    notes = {"original": [f"k = {kernel_size}" for kernel_size in kernel_sizes]}
    for method in methods:
        settings = [Setting(method, kernel_size) for kernel_size in kernel_sizes]
        name = _method_label(method)
        rows[name] = [pooled.get(setting) for setting in settings]
        notes[name] = [f"SSIM {ssim[s]:.3f}" if s in pooled else "" for s in settings]
    return _draw_sheet(rows, notes, region, title, high=1.9)


def clip_sheet(
    clip: Tensor,
    pooled: Mapping[Setting, Tensor],
    ssim: Mapping[Setting, float],
    region: Region,
    title: str,
) -> Figure:
    """Draw frames of a clip and its pooled versions, whole on the left, a region on the right.

    Args:
        clip: uint8 (3, T, H, W).
        pooled: Pooled versions of the same shape.
        ssim: SSIM of each version with the clip, over the frames that are drawn.
        region: Region that is enlarged.
        title: Title of the figure.
    """
    frames = shown_frames(clip.shape[1])
    rows: dict[str, list[Tensor | None]] = {"original": [clip[:, frame] for frame in frames]}
    for setting in sorted(pooled, key=lambda setting: setting.kernel_size):
        name = f"{setting_label(setting)}\nSSIM {ssim[setting]:.3f}"
        rows[name] = [pooled[setting][:, frame] for frame in frames]
    notes = {"original": [f"frame {frame}" for frame in frames]}
    return _draw_sheet(rows, notes, region, title, high=1.25)


def _draw_sheet(
    rows: Mapping[str, Sequence[Tensor | None]],
    notes: Mapping[str, Sequence[str]],
    region: Region,
    title: str,
    high: float,
) -> Figure:
    """Draw named rows of images, and to the right of them a region of each image.

    Long, flat images are drawn smaller, and compressed horizontally if they are still too wide.

    Args:
        rows: Images, uint8 (3, H, W) and all of one size, by row; None for a gap.
        notes: Texts above the images of some rows.
        region: Region that is enlarged; it is outlined in the images of the first row.
        title: Title of the figure.
        high: Height of an image in inches.
    """
    first = next(iter(rows.values()))
    assert first[0] is not None
    aspect, count = first[0].shape[2] / first[0].shape[1], len(first)
    high = max(MIN_HEIGHT, min(high, MAX_WIDTH / aspect))
    width_of_whole = min(high * aspect, MAX_WIDTH)
    above = [0.2 if name in notes else 0.05 for name in rows]  # inches
    widths = [width_of_whole] * count + [high] * count
    longest = max(len(line) for name in rows for line in name.split("\n"))
    names, gap = max(1.3, LETTER * longest + 0.15), 0.05
    width = names + sum(widths) + gap * len(widths)
    height = 0.5 + sum(above) + high * len(rows)
    figure = Figure(figsize=(width, height))
    figure.suptitle(plain_text(title), fontsize=12, y=1 - 0.08 / height, va="top")
    top = 0.45
    for (name, images), space in zip(rows.items(), above, strict=True):
        top += space
        left = names
        figure.text(
            (names - 0.08) / width,
            1 - (top + high / 2) / height,
            plain_text(name),
            ha="right",
            va="center",
            fontsize=10,
        )
        parts = [None if image is None else region.cut(image) for image in images]
        for column, (image, wide) in enumerate(zip([*images, *parts], widths, strict=True)):
            if image is not None:
                place = (left / width, 1 - (top + high) / height, wide / width, high / height)
                axes = figure.add_axes(place)
                axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest", aspect="auto")
                axes.set(xticks=[], yticks=[])
                if name in notes and (column < count or images is first):
                    axes.set_title(notes[name][column % count], fontsize=8, pad=2)
                if images is first and column < count:
                    _outline(axes, region)
            left += wide + gap
        top += high
    return figure


def shown_frames(length: int) -> list[int]:
    """Return the numbers of the drawn frames of a clip: the middle of each third."""
    count = min(FRAMES_SHOWN, length)
    return [(2 * i + 1) * length // (2 * count) for i in range(count)]


def side_by_side(clip: Tensor, pooled: Mapping[Setting, Tensor]) -> Tensor:
    """Return a video that shows the clip and its pooled versions side by side, with names.

    Each row is a window size, with the original at its left end.

    Args:
        clip: uint8 (3, T, H, W).
        pooled: Pooled versions of the same shape.

    Returns:
        uint8 (T, H', W', 3) with even H' and W'.
    """
    from PIL import Image, ImageDraw, ImageFont

    methods = list(dict.fromkeys(setting.method for setting in pooled))
    kernel_sizes = list(dict.fromkeys(setting.kernel_size for setting in pooled))
    _, length, height, width = clip.shape
    size = max(10, height // 12)
    strip, gap = size + 4, 4
    rows, columns = len(kernel_sizes), 1 + len(methods)
    whole = (rows * (height + strip + gap) + 1) // 2 * 2, (columns * (width + gap) + 1) // 2 * 2
    canvas = Image.new("RGB", (whole[1], whole[0]), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size)
    places: list[tuple[int, int, Tensor]] = []
    for row, kernel_size in enumerate(kernel_sizes):
        top = row * (height + strip + gap)
        versions = [("original", clip)]
        for method in methods:
            setting = Setting(method, kernel_size)
            if setting in pooled:
                versions.append((setting_label(setting), pooled[setting]))
        for column, (name, video) in enumerate(versions):
            left = column * (width + gap)
            draw.text((left + 2, top), name, "black", font)
            places.append((top + strip, left, video))
    frames = torch.from_numpy(np.array(canvas)).expand(length, -1, -1, -1).clone()
    for top, left, video in places:
        frames[:, top : top + height, left : left + width] = video.permute(1, 2, 3, 0)
    return frames


def write_animation(file: Path, frames: Tensor, fps: float) -> None:
    """Write frames as an endless GIF or WebP, or as an MP4.

    Args:
        file: File whose name ends in one of ``ANIMATIONS``.
        frames: uint8 (T, H, W, 3) with even H and W.
        fps: Frames per second; at most 50 for a GIF.
    """
    from PIL import Image

    if file.suffix == ".mp4":
        write_video(file, frames, max(1, round(fps)))
        return
    first, *others = (Image.fromarray(frame) for frame in frames.numpy())
    # a GIF counts hundredths of a second, and players slow down if a frame lasts less than two
    milliseconds = max(20, round(100 / fps) * 10) if file.suffix == ".gif" else round(1000 / fps)
    first.save(file, save_all=True, append_images=others, duration=milliseconds, loop=0)


def _outline(axes: Axes, region: Region) -> None:
    """Draw the border of a region so that it is visible on bright and dark images."""
    corner = (region.left - 0.5, region.top - 0.5)
    for colour, line in (("black", 3.2), ("white", 1.6)):
        axes.add_patch(
            Rectangle(corner, region.side, region.side, fill=False, color=colour, lw=line)
        )
