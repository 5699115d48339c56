"""A contact sheet that shows the augmentation of a video."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from vidpool.data.transforms.augmentation import Augmentation, seeded
from vidpool.data.views import ClipShape, crop_views, even_clips
from vidpool.figures import plain_text
from vidpool.video import open_video

AUGMENTATIONS = {
    "crop: resized": Augmentation(),
    "crop: short_side": Augmentation(crop="short_side"),
    "brightness, contrast,\nsaturation 0.4, hue 0.1": Augmentation(
        brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1
    ),
    "authors": Augmentation(authors=1),
    "rand_augment: 2": Augmentation(rand_augment=2),
    "erase": Augmentation(erase=1),
    "mixup: 0.8": Augmentation(mixup=0.8),
    "cutmix: 1": Augmentation(cutmix=1),
}
"""One row each; the first two show crops and flips alone, the others start from the centre crop."""

FRAMES = 3  # of each clip: the first, the middle and the last
SIDE = 1.15  # of a picture, inches


def augmentation_sheet(
    path: str | os.PathLike[str],
    shape: ClipShape,
    seeds: Sequence[int] = (0, 1, 2),
    own: Augmentation | None = None,
    partner: str | os.PathLike[str] | None = None,
    decoder: str = "auto",
) -> Figure:
    """Draw a row for every kind of augmentation, and in it three frames for every seed.

    All rows show the clip in the middle of the video.

    Args:
        path: The video.
        shape: The clip's frames, temporal stride and crop.
        seeds: One group of columns each.
        own: Settings to be shown as a whole, in a last row.
        partner: The video that mixup and cutmix mix in; by default the same one, mirrored.
        decoder: See :func:`vidpool.video.open_video`.

    Raises:
        VideoError: A video cannot be read.
    """
    other = Path(partner or path)

    def centre(video: Path, short_side: int) -> Tensor:
        frames = _middle_clip(video, short_side, shape, decoder)
        return crop_views(frames, shape.crop, 1)[0]

    plain, mixed_in = centre(Path(path), shape.crop), centre(other, shape.crop)
    if partner is None:
        mixed_in = mixed_in.flip(-1)

    def cut(augment: Augmentation, seed: int) -> Tensor:
        with seeded(seed):
            short_side = augment.reading_short_side(shape.crop)
            return augment.cut(_middle_clip(Path(path), short_side, shape, decoder), shape.crop)

    def mixed(augment: Augmentation, clip: Tensor, seed: int) -> Tensor:
        if not (augment.mixup or augment.cutmix):
            return clip
        pair, labels = torch.stack([clip, mixed_in]).float(), torch.tensor([0, 1])
        return augment.mix(pair, labels, 2, [seed, seed])[0][0].round().byte()

    rows = {"as in evaluation": [plain for _ in seeds]}
    for name, augment in AUGMENTATIONS.items():
        if name.startswith("crop"):
            rows[name] = [cut(augment, seed) for seed in seeds]
        else:
            changed = [(augment.change(plain, seed), seed) for seed in seeds]
            rows[name] = [mixed(augment, clip, seed) for clip, seed in changed]
    if own is not None:
        changed = [(own.change(cut(own, seed), seed), seed) for seed in seeds]
        rows["this config"] = [mixed(own, clip, seed) for clip, seed in changed]
    return _draw(rows, seeds, f"{Path(path).name}: {shape.frames} frames, stride {shape.stride}")


def _middle_clip(path: Path, short_side: int, shape: ClipShape, decoder: str) -> Tensor:
    """First, middle and last frame of the clip in the middle of a video, (3, C, H, W)."""
    with open_video(path, decoder) as video:
        (where,) = even_clips(len(video), 1, shape.frames, shape.stride).tolist()
        shown = [where[round(i * (len(where) - 1) / (FRAMES - 1))] for i in range(FRAMES)]
        return video.frames(shown, short_side)


def _draw(rows: dict[str, list[Tensor]], seeds: Sequence[int], title: str) -> Figure:
    """Put clips (T, C, H, W) side by side, in a group for each seed, one row each."""
    labels = 1.9  # inches for the rows' names
    width = labels + SIDE * (FRAMES * len(seeds) + 0.15 * (len(seeds) - 1)) + 0.1
    height = SIDE * 1.04 * len(rows) + 0.7
    figure = Figure(figsize=(width, height))
    grid = figure.add_gridspec(
        len(rows),
        len(seeds),
        left=labels / width,
        right=1 - 0.1 / width,
        top=1 - 0.65 / height,
        bottom=0.05 / height,
        wspace=0.05,
        hspace=0.04,
    )
    figure.suptitle(plain_text(title), x=0.1 / width, y=1 - 0.08 / height, ha="left", va="top")
    for row, (name, clips) in enumerate(rows.items()):
        for column, (clip, seed) in enumerate(zip(clips, seeds, strict=True)):
            axes = figure.add_subplot(grid[row, column])
            gap = max(1, clip.shape[-1] // 80)
            strip = F.pad(clip, (0, gap), value=255).permute(2, 0, 3, 1).flatten(1, 2)
            axes.imshow(strip[:, :-gap].numpy(), aspect="auto")
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set_visible(False)
            if row == 0:
                axes.set_title(f"seed {seed}", fontsize=9, pad=4)
            if column == 0:
                axes.set_ylabel(
                    name, rotation=0, ha="right", va="center", fontsize=9, linespacing=1.3
                )
    return figure
