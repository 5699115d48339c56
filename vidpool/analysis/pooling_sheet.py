"""Originals beside what pooling makes of them, as in Figures 3, 5, 6, S1 and S3."""

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

from vidpool.analysis.pooled import LEARNED
from vidpool.analysis.similarity import Setting
from vidpool.data.datasets.demo import write_video
from vidpool.figures import plain_text

ANIMATIONS = ("gif", "mp4", "webp")
SHOWN = 3
"""Frames of a clip on its sheet."""
WIDEST, LEAST = 8.0, 0.6
"""Inches that a picture is at most wide and at least high on a sheet."""
LETTER = 0.088
"""Inches of a letter in the names of rows."""


class Region(NamedTuple):
    """A square part of a picture, in pixels."""

    left: int
    top: int
    side: int

    def cut(self, x: Tensor) -> Tensor:
        """The region of x, (..., H, W)."""
        return x[..., self.top : self.top + self.side, self.left : self.left + self.side]


def most_detailed(picture: Tensor) -> Region:
    """The square, a fifth of the shorter side wide, in which neighbouring pixels differ most.

    Args:
        picture: (3, H, W).
    """
    grey = picture.float().mean(0)
    side = max(1, min(grey.shape) // 5)
    steps = torch.zeros_like(grey)
    steps[:, 1:] += (grey[:, 1:] - grey[:, :-1]).abs()
    steps[1:] += (grey[1:] - grey[:-1]).abs()
    stride, border = max(1, side // 8), min(grey.shape) // 10  # not at the edge, to be seen well
    inner = steps[border : grey.shape[0] - border, border : grey.shape[1] - border]
    detail = F.avg_pool2d(inner[None], side, stride)[0]
    top, left = divmod(int(detail.argmax()), detail.shape[1])
    return Region(border + left * stride, border + top * stride, side)


def label(setting: Setting) -> str:
    """What stands at a picture."""
    return f"{_name(setting.method)}, k = {setting.kernel_size}"


def _name(method: str) -> str:
    return f"{method} (untrained)" if method in LEARNED else method


def picture_sheet(
    picture: Tensor,
    pooled: Mapping[Setting, Tensor],
    ssim: Mapping[Setting, float],
    region: Region,
    title: str,
) -> Figure:
    """Draw a picture and its pooled versions, whole on the left and a region of them on the right.

    A row is a method, the first one the picture itself; a column is a window size.

    Args:
        picture: uint8 (3, H, W).
        pooled: uint8 (3, H, W) each, as large as the picture.
        ssim: Of each with the picture.
        region: What is drawn larger.
        title: Stands on top.
    """
    methods = list(dict.fromkeys(setting.method for setting in pooled))
    kernel_sizes = list(dict.fromkeys(setting.kernel_size for setting in pooled))
    rows: dict[str, list[Tensor | None]] = {"original": [picture] * len(kernel_sizes)}
    notes = {"original": [f"k = {kernel_size}" for kernel_size in kernel_sizes]}
    for method in methods:
        settings = [Setting(method, kernel_size) for kernel_size in kernel_sizes]
        rows[_name(method)] = [pooled.get(setting) for setting in settings]
        notes[_name(method)] = [f"SSIM {ssim[s]:.3f}" if s in pooled else "" for s in settings]
    return _sheet(rows, notes, region, title, high=1.9)


def clip_sheet(
    clip: Tensor,
    pooled: Mapping[Setting, Tensor],
    ssim: Mapping[Setting, float],
    region: Region,
    title: str,
) -> Figure:
    """Draw frames of a clip and of its pooled versions, whole on the left, a region on the right.

    Args:
        clip: uint8 (3, T, H, W).
        pooled: Of the same shape each.
        ssim: Of each with the clip, over the frames that are shown.
        region: What is drawn larger.
        title: Stands on top.
    """
    frames = shown_frames(clip.shape[1])
    rows: dict[str, list[Tensor | None]] = {"original": [clip[:, frame] for frame in frames]}
    for setting in sorted(pooled, key=lambda setting: setting.kernel_size):
        name = f"{label(setting)}\nSSIM {ssim[setting]:.3f}"
        rows[name] = [pooled[setting][:, frame] for frame in frames]
    notes = {"original": [f"frame {frame}" for frame in frames]}
    return _sheet(rows, notes, region, title, high=1.25)


def _sheet(
    rows: Mapping[str, Sequence[Tensor | None]],
    notes: Mapping[str, Sequence[str]],
    region: Region,
    title: str,
    high: float,
) -> Figure:
    """Draw rows of pictures by their names, and again a region of each to the right of them.

    Long, flat pictures are drawn smaller, and narrower than they are if need be.

    Args:
        rows: uint8 (3, H, W) pictures, all of one size, or None for places without one.
        notes: What stands above the pictures of some rows.
        region: What is drawn larger; the first row's pictures show where it lies.
        title: Stands on top.
        high: Inches of a picture.
    """
    first = next(iter(rows.values()))
    assert first[0] is not None
    aspect, count = first[0].shape[2] / first[0].shape[1], len(first)
    high = max(LEAST, min(high, WIDEST / aspect))
    width_of_whole = min(high * aspect, WIDEST)
    above = [0.2 if name in notes else 0.05 for name in rows]  # inches
    widths = [width_of_whole] * count + [high] * count
    longest = max(len(line) for name in rows for line in name.split("\n"))
    names, gap = max(1.3, LETTER * longest + 0.15), 0.05
    width = names + sum(widths) + gap * len(widths)
    height = 0.5 + sum(above) + high * len(rows)
    figure = Figure(figsize=(width, height))
    figure.suptitle(plain_text(title), fontsize=12, y=1 - 0.08 / height, va="top")
    top = 0.45
    for (name, pictures), space in zip(rows.items(), above, strict=True):
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
        parts = [None if picture is None else region.cut(picture) for picture in pictures]
        for column, (picture, wide) in enumerate(zip([*pictures, *parts], widths, strict=True)):
            if picture is not None:
                place = (left / width, 1 - (top + high) / height, wide / width, high / height)
                axes = figure.add_axes(place)
                axes.imshow(
                    picture.permute(1, 2, 0).numpy(), interpolation="nearest", aspect="auto"
                )
                axes.set(xticks=[], yticks=[])
                if name in notes and (column < count or pictures is first):
                    axes.set_title(notes[name][column % count], fontsize=8, pad=2)
                if pictures is first and column < count:
                    _outline(axes, region)
            left += wide + gap
        top += high
    return figure


def shown_frames(length: int) -> list[int]:
    """The frames of a clip that are drawn, in the middle of each third."""
    count = min(SHOWN, length)
    return [(2 * i + 1) * length // (2 * count) for i in range(count)]


def side_by_side(clip: Tensor, pooled: Mapping[Setting, Tensor]) -> Tensor:
    """Frames that show the clip and its pooled versions at once, with their names.

    A row is a window size, with the original at its left end.

    Args:
        clip: uint8 (3, T, H, W).
        pooled: Of the same shape each.

    Returns:
        uint8 (T, H', W', 3), H' and W' even.
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
                versions.append((label(setting), pooled[setting]))
        for column, (name, video) in enumerate(versions):
            left = column * (width + gap)
            draw.text((left + 2, top), name, "black", font)
            places.append((top + strip, left, video))
    frames = torch.from_numpy(np.array(canvas)).expand(length, -1, -1, -1).clone()
    for top, left, video in places:
        frames[:, top : top + height, left : left + width] = video.permute(1, 2, 3, 0)
    return frames


def write_animation(file: Path, frames: Tensor, fps: float) -> None:
    """Write frames as a GIF, WebP or MP4 that plays for ever, or as often as the player likes.

    Args:
        file: Ends in one of ``ANIMATIONS``.
        frames: uint8 (T, H, W, 3), H and W even.
        fps: Frames a second; a GIF has at most 50.
    """
    from PIL import Image

    if file.suffix == ".mp4":
        write_video(file, frames, max(1, round(fps)))
        return
    first, *others = (Image.fromarray(frame) for frame in frames.numpy())
    # a GIF counts hundredths of a second, and players slow down below two of them
    milliseconds = max(20, round(100 / fps) * 10) if file.suffix == ".gif" else round(1000 / fps)
    first.save(file, save_all=True, append_images=others, duration=milliseconds, loop=0)


def _outline(axes: Axes, region: Region) -> None:
    """Draw the region's border so that it is seen on bright and dark pictures."""
    corner = (region.left - 0.5, region.top - 0.5)
    for colour, line in (("black", 3.2), ("white", 1.6)):
        axes.add_patch(
            Rectangle(corner, region.side, region.side, fill=False, color=colour, lw=line)
        )
