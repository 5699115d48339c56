"""Pictures in rows, with names beside the rows and above the pictures."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from vidpool.figures import plain_text

LINE = 0.17  # inches of a line of a name
BESIDE = 2.0  # inches for the names of rows


def draw_sheet(
    rows: Sequence[Sequence[Tensor]],
    title: str,
    above: Sequence[Sequence[str]],
    beside: Sequence[str] = (),
    side: float = 1.25,
) -> Figure:
    """Draw pictures in rows.

    Args:
        rows: uint8 (H, W, 3) each; as many in every row.
        title: Goes on top, in two lines.
        above: For each row the names of its pictures, or none.
        beside: The rows' names, or none.
        side: Of a picture, inches.
    """
    lines = [max((name.count("\n") + 1 for name in names), default=0) for names in above]
    left, columns = BESIDE if beside else 0.1, len(rows[0])
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
    for i, pictures in enumerate(rows):
        for j, picture in enumerate(pictures):
            axes = figure.add_subplot(grid[i, j])
            axes.imshow(picture.numpy())
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set_visible(False)
            if above[i]:
                axes.set_title(plain_text(above[i][j]), fontsize=9, pad=3)
            if beside and j == 0:
                name = plain_text(beside[i])
                axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    return figure


def spread(frames: Tensor, most: int) -> list[int]:
    """Numbers of frames (T, …) from the first to the last, evenly, at most so many."""
    count = min(most, len(frames))
    return [round(i * (len(frames) - 1) / max(1, count - 1)) for i in range(count)]
