"""Sheets of images in rows, with names, and videos of a size that players and codecs like."""

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from vidpool.figures import plain_text

LINE = 0.17  # inches per line of a name
ROW_NAMES = 2.0  # inches for the names of rows
MIN_SIDE = 192  # pixels of the shorter side of a frame


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
