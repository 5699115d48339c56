import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vidpool.analysis import image_pooling
from vidpool.analysis.image_pooling import (
    make_layers,
    make_pooling_layer,
    pool_and_enlarge,
    read_training_images,
    train_layer,
)
from vidpool.analysis.images import find_images, read_image
from vidpool.errors import ConfigError, DataError
from vidpool.nn import POOLING_METHODS


@pytest.mark.parametrize("method", POOLING_METHODS)
@settings(max_examples=8)
@given(
    sizes=st.lists(st.integers(5, 9), min_size=2, max_size=3),
    k=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_any_size_and_window_gives_a_picture_of_the_same_size(method, sizes, k, seed):
    x = torch.rand(3, *sizes, generator=torch.Generator().manual_seed(seed))
    k = 2 if method == "lift" else k
    layer = make_pooling_layer(method, k, len(sizes))
    with torch.no_grad():
        pooled = pool_and_enlarge(x, layer, seed)
        again = pool_and_enlarge(x, layer, seed)
    assert pooled.shape == x.shape
    assert torch.equal(pooled, again)
    assert 0 <= pooled.min() <= pooled.max() <= 1


@pytest.mark.parametrize("method", ["soft", "max", "avg"])
def test_enlarged_as_area_interpolation_does(method):
    x = torch.rand(3, 12, 18)
    layer = make_pooling_layer(method, 3, 2)
    expected = F.interpolate(layer(x[None]), (12, 18), mode="area")[0]
    torch.testing.assert_close(pool_and_enlarge(x, layer), expected)


def test_windows_beyond_the_border_pool_what_they_have():
    x = torch.full((3, 5, 5), 0.5)
    for method in ("soft", "avg", "max", "stochastic"):
        torch.testing.assert_close(pool_and_enlarge(x, make_pooling_layer(method, 3, 2)), x)


def test_what_cannot_be_made():
    with pytest.raises(ConfigError, match="unknown pooling 'median'"):
        make_pooling_layer("median", 2, 2)
    with pytest.raises(ConfigError, match="fewer than those of a window, 3 on every axis"):
        pool_and_enlarge(torch.rand(3, 2, 9), make_pooling_layer("max", 3, 2))
    with pytest.raises(ConfigError, match="LiftPool halves an axis"):
        make_pooling_layer("lift", 3, 2)
    with pytest.raises(ConfigError, match="at least 1 pixel, got k = 0"):
        make_pooling_layer("soft", 0, 2)


def test_methods_without_a_layer_for_some_windows():
    assert list(make_layers(["lift", "max"], [2, 3])) == [("lift", 2), ("max", 2), ("max", 3)]
    with pytest.raises(ConfigError, match="LiftPool halves"):
        make_layers(["lift"], [3, 5])


@pytest.mark.parametrize("method", ["lp", "gated", "dpp", "lip", "ordinal", "lift"])
def test_training_loses_less(images, method):
    (layer,) = make_layers([method], [2]).values()
    pictures, failures = read_training_images(
        [images / "smooth.png", *(images / "inside").iterdir()], 0
    )
    assert not failures

    def error():
        originals = [picture / 255 for picture in pictures]
        pairs = [(original, pool_and_enlarge(original, layer)) for original in originals]
        return sum(float((one - other).square().mean()) for one, other in pairs)

    before = error()
    losses = train_layer(layer, pictures, steps=200, seed=0)
    assert len(losses) == 200
    assert np.isfinite(losses).all()
    # lip and ordinal begin as average pooling, which nothing surpasses, and have to find back to it
    assert error() < before * (1.01 if method in ("lip", "ordinal") else 1)


def test_training_needs_large_enough_images(images):
    (layer,) = make_layers(["lp"], [5]).values()
    pictures, _ = read_training_images(find_images([images]), seed=0)
    with pytest.raises(DataError, match=r"with is 120 pixels wide and high, as k = 5 needs"):
        train_layer(layer, pictures, steps=1, seed=0)


def test_images_to_train_with_are_read_once_and_some_are_left_out(images, monkeypatch):
    (images / "broken.png").write_text("no picture")
    files = [images / "smooth.png", images / "broken.png"] * 3
    pictures, failures = read_training_images(files, seed=0)
    assert [tuple(picture.shape) for picture in pictures] == [read_image(files[0]).shape] * 3
    assert all("broken.png: cannot be read as an image" in failure for failure in failures)
    assert len(failures) == 3
    monkeypatch.setattr(image_pooling, "MAX_TRAINING_IMAGES", 2)
    assert len(read_training_images(files, seed=0)[0]) == 2
