import pytest
import torch

from vidpool.analysis.image_pooling import Setting
from vidpool.analysis.pooling_sheet import (
    ANIMATIONS,
    Region,
    clip_sheet,
    image_sheet,
    most_detailed,
    shown_frames,
    side_by_side,
    write_animation,
)
from vidpool.video import open_video


def test_the_region_lies_where_the_detail_is():
    picture = torch.zeros(3, 100, 160)
    picture[:, 40:60:2, 100:120] = 1
    region = most_detailed(picture)
    assert region.side == 20
    inside = region.cut(torch.zeros(100, 160).index_fill(0, torch.arange(40, 60), 1))
    assert inside.mean() > 0.7
    assert abs(region.left - 100) < 8


@pytest.mark.parametrize("size", [(11, 11), (12, 300), (500, 13)])
def test_the_region_lies_inside_pictures_of_any_shape(size):
    region = most_detailed(torch.rand(3, *size))
    assert region.cut(torch.zeros(size)).shape == (region.side, region.side)


def test_a_picture_for_each_setting_twice():
    picture = torch.randint(0, 256, (3, 30, 40), dtype=torch.uint8)
    settings = [Setting("soft", 2), Setting("soft", 3), Setting("lift", 2)]
    pooled = dict.fromkeys(settings, picture)
    ssim = dict.fromkeys(settings, 0.5)
    figure = image_sheet(picture, pooled, ssim, Region(3, 4, 10), "a $picture$")
    # the original above each column, and nothing where LiftPool has no layer
    assert len(figure.axes) == 2 * (2 + len(settings))
    shown = [axes.images[0].get_array().shape for axes in figure.axes]
    assert shown.count((10, 10, 3)) == shown.count((30, 40, 3)) == 5
    names = [text.get_text() for text in figure.texts]
    assert names == ["a \\$picture\\$", "original", "soft", "lift (untrained)"]


@pytest.mark.parametrize("size", [(11, 3000), (3000, 11)])
def test_sheets_of_long_pictures_can_be_looked_at(size):
    picture = torch.zeros(3, *size, dtype=torch.uint8)
    settings = [Setting("soft", kernel_size) for kernel_size in (2, 3, 4, 5)]
    pooled, ssim = dict.fromkeys(settings, picture), dict.fromkeys(settings, 0.5)
    width, height = image_sheet(picture, pooled, ssim, Region(0, 0, 2), "").get_size_inches()
    assert max(width, height) < 45
    assert min(width, height) > 1


@pytest.mark.parametrize("length", [1, 2, 3, 60])
def test_frames_of_clips(length):
    frames = shown_frames(length)
    assert len(set(frames)) == min(3, length)
    assert 0 <= min(frames) <= max(frames) < length
    clip = torch.randint(0, 256, (3, length, 20, 30), dtype=torch.uint8)
    pooled = {Setting("max", 2): clip}
    figure = clip_sheet(clip, pooled, {Setting("max", 2): 0.5}, Region(0, 0, 9), "clip")
    assert len(figure.axes) == 2 * 2 * len(frames)


@pytest.mark.parametrize("suffix", ANIMATIONS)
def test_an_animation_shows_every_frame_of_each_version(tmp_path, suffix):
    clip = torch.zeros(3, 6, 33, 41, dtype=torch.uint8)
    clip[0, 3:] = 255  # black, then red
    pooled = {Setting("max", 2): 255 - clip, Setting("max", 3): clip}
    frames = side_by_side(clip, pooled)
    assert frames.shape[0] == 6
    assert frames.shape[1] % 2 == frames.shape[2] % 2 == 0
    file = tmp_path / f"animation.{suffix}"
    write_animation(file, frames, 12.5)
    if suffix == "webp":
        from PIL import Image

        assert Image.open(file).n_frames == 2  # equal frames are kept as one, shown longer
        return
    with open_video(file) as video:
        if suffix == "mp4":
            assert len(video) == 6
        last = video.frames([len(video) - 1])[0].float()
        first = video.frames([0])[0].float()
    # the middle of the original, which turns red
    assert first[:, 25, 20].max() < 30
    assert last[0, 25, 20] > 200
    assert last[1:, 25, 20].max() < 30
