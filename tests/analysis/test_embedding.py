import csv

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("sklearn")
from vidpool.analysis.embedding import (
    Features,
    embed,
    embedding_figure,
    write_points,
)
from vidpool.errors import ConfigError, DataError


def blobs(count=20, groups=3, features=60, apart=12.0):
    """Features of some classes that lie far from each other, and their labels."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(count * groups) % groups
    centres = apart * torch.randn(groups, features, generator=generator)
    return centres[label] + torch.randn(len(label), features, generator=generator), label


@pytest.fixture(scope="module")
def separate():
    features, label = blobs()
    return embed(features, label, clusters=3, seed=1), features, label


def test_what_is_alike_lies_together(separate):
    embedding, _, label = separate
    assert embedding.points.shape == (60, 2)
    assert embedding.silhouette > 0.8
    assert 0.9 < embedding.explained <= 1
    for cluster in range(3):
        assert len(label[torch.from_numpy(embedding.cluster == cluster)].unique()) == 1
    for centre, closest in zip(embedding.centres, embedding.closest, strict=True):
        distance = np.linalg.norm(embedding.points - centre, axis=1)
        assert distance.argmin() == closest


def test_the_seed_makes_the_same_picture(separate):
    embedding, features, label = separate
    again = embed(features, label, clusters=3, seed=1)
    np.testing.assert_array_equal(again.points, embedding.points)
    np.testing.assert_array_equal(again.cluster, embedding.cluster)


def test_classes_that_are_not_apart_have_no_silhouette_to_speak_of():
    features, label = blobs(apart=0)
    assert embed(features, label).silhouette < 0.1
    assert embed(features, torch.zeros(60, dtype=torch.int64)).silhouette is None
    assert embed(features, torch.arange(60)).silhouette is None


@pytest.mark.parametrize(("videos", "features"), [(5, 60), (7, 2), (5, 1)])
def test_few_videos_or_features(videos, features):
    values, label = blobs(videos, 1, features)
    embedding = embed(values, label, clusters=50)
    assert embedding.points.shape == (videos, 2)
    assert np.isfinite(embedding.points).all()
    assert len(embedding.centres) == videos


@given(
    st.integers(max_value=0) | st.just(3),
    st.floats(max_value=0) | st.just(float("nan")) | st.just(-1.0),
)
def test_settings_that_cannot_work(clusters, perplexity):
    features, label = blobs(5, 1)
    with pytest.raises(ConfigError, match="clusters must be at least 1 and perplexity above 0"):
        embed(features, label, clusters, perplexity)


def test_the_perplexity_that_was_used_is_told():
    features, label = blobs(5, 2)
    assert embed(features, label, 2, float("inf")).perplexity == 3  # of ten videos
    assert embed(features, label, 2, 2.5).perplexity == 2.5


def test_broken_features_are_told():
    features, label = blobs(5, 1)
    with pytest.raises(DataError, match="at least 5 videos, and here are 4"):
        embed(features[:4], label[:4])
    with pytest.raises(DataError, match="the same for all videos"):
        embed(features[:1].expand(5, -1), label)
    features[2, 3] = float("nan")
    with pytest.raises(DataError, match="not all finite"):
        embed(features, label)


def test_drawn_and_written(separate, tmp_path):
    embedding, features, label = separate
    thumbnails = torch.zeros(60, 64, 64, 3, dtype=torch.uint8)
    found = Features(features, label, [f"{i}.mp4" for i in range(60)], thumbnails, [])
    figure = embedding_figure(embedding, found, ["a", "b$", "c"], "a title")
    boxes = [child for child in figure.axes[0].get_children() if hasattr(child, "xybox")]
    assert len(boxes) == 3
    # the thumbnails lie beside the points
    low, high = embedding.points.min(0), embedding.points.max(0)
    for box in boxes:
        place = np.array(box.xybox)
        assert ((place < low) | (place > high)).any()
    path = write_points(tmp_path / "points.csv", embedding, found, ["a", "b$", "c"])
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == found.paths
    assert [row["class"] for row in rows[:4]] == ["a", "b$", "c", "a"]
    assert float(rows[7]["x"]) == pytest.approx(float(embedding.points[7, 0]), abs=1e-4)
