"""The contact sheet shows what the transforms do, row by row."""

import pytest
import torch

from vidpool.data.transforms.augmentation import Augmentation
from vidpool.data.transforms.contact_sheet import AUGMENTATIONS, augmentation_sheet
from vidpool.data.views import ClipShape, crop_views
from vidpool.errors import VideoError
from vidpool.video import open_video

SHAPE = ClipShape(frames=5, stride=2, crop=64)


def strips(figure):
    """Rows of pictures by name: uint8 arrays (H, W, 3), one for each seed."""
    rows, name = {}, ""
    for axes in figure.axes:
        name = axes.get_ylabel() or name
        rows.setdefault(name, []).append(axes.images[0].get_array())
    return rows


def test_rows_and_columns(wide):
    rows = strips(augmentation_sheet(wide, SHAPE, seeds=(3, 4)))
    assert list(rows) == ["as in evaluation", *AUGMENTATIONS]
    with open_video(wide) as video:  # 40 frames; a clip spans nine
        clip = crop_views(video.frames([15, 19, 23], 64), 64, 1)[0].permute(0, 2, 3, 1)
    changes = [kind for kind in AUGMENTATIONS if not kind.startswith("crop")]
    for seed, strip in zip((3, 4), rows["as in evaluation"], strict=True):
        assert strip.shape == (64, 3 * 64 + 2, 3)
        shown = torch.stack([torch.tensor(strip[:, i : i + 64]) for i in (0, 65, 130)])
        assert torch.equal(shown, clip)
        for kind in changes[:-2]:  # the others are mixed
            expected = (
                AUGMENTATIONS[kind].change(clip.permute(0, 3, 1, 2), seed).permute(0, 2, 3, 1)
            )
            strip = rows[kind][(3, 4).index(seed)]
            assert (strip[:, 65:129] == expected[1].numpy()).all(), kind


def test_ones_own_settings_are_the_last_row(wide):
    own = Augmentation(crop="short_side", short_side=(1, 1), flip=0, erase=1)
    rows = strips(augmentation_sheet(wide, SHAPE, (0,), own))
    grey = (rows["this config"][0] == [110, 101, 96]).all(-1)
    assert 3 * 0.02 * 0.9 < grey.mean() * 3 < 1.1
    assert "this config" not in strips(augmentation_sheet(wide, SHAPE, (0,)))


def test_the_partner_is_mixed_in(wide, numbered):
    alone = strips(augmentation_sheet(wide, SHAPE, (0,)))
    other = strips(augmentation_sheet(wide, SHAPE, (0,), partner=numbered[3].path))
    for name, (strip,) in alone.items():
        assert (strip == other[name][0]).all() == (name not in ("mixup: 0.8", "cutmix: 1"))


def test_an_unreadable_video_is_named(broken):
    with pytest.raises(VideoError, match="empty"):
        augmentation_sheet(broken[1].path, SHAPE)
