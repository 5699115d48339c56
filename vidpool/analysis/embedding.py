"""Embedding of videos by the features of a network: t-SNE, as in Figures S5 to S7.

As in these figures, PCA reduces averaged features to 50 dimensions before t-SNE. K-means clusters
the resulting points, and the video closest to each centre is shown. The paper does not state how
many centres its figures have.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from torch import Tensor
from torch.nn import functional as F

from vidpool.analysis.examples import central_clips
from vidpool.data.catalogue.table import VideoTable
from vidpool.data.datamodule import VideoDataModule
from vidpool.data.views import Preprocessing, normalize
from vidpool.errors import ConfigError, DataError
from vidpool.figures import plain_text
from vidpool.files import open_text
from vidpool.train.classifier import VideoClassifier

COMPONENTS = 50  # dimensions after PCA, as in section S5
PERPLEXITY = 30.0
CLUSTERS = 10
MIN_VIDEOS = 5
THUMBNAIL = 64  # pixels
MAX_LEGEND = 20  # classes; there is no legend of more


@dataclass(frozen=True)
class Features:
    """Features of V videos.

    Attributes:
        features: Input of the classifier for the central clip of each video, float32 (V, features).
        label: Class ids, int64 (V,).
        paths: Files of the videos.
        thumbnails: Middle frame of each clip, uint8 (V, 64, 64, 3).
        bad: Errors of the videos that could not be read, which are left out.
    """

    features: Tensor
    label: Tensor
    paths: list[str]
    thumbnails: Tensor
    bad: list[str]


@dataclass(frozen=True)
class Embedding:
    """Positions of V videos in a plane.

    Attributes:
        points: Positions by t-SNE, float32 (V, 2).
        explained: Share of the features' variance that PCA keeps.
        perplexity: Perplexity that t-SNE used.
        cluster: K-means cluster of each video, int (V,).
        centres: Centres of the clusters, float (K, 2).
        closest: Video closest to each centre, int (K,).
        silhouette: Silhouette score of the classes after PCA, from -1 to 1 (well separated). None
            for fewer than two classes, or if no class has two videos.
    """

    points: np.ndarray
    explained: float
    perplexity: float
    cluster: np.ndarray
    centres: np.ndarray
    closest: np.ndarray
    silhouette: float | None


def video_features(
    classifier: VideoClassifier,
    preprocessing: Preprocessing,
    datamodule: VideoDataModule,
    videos: VideoTable,
    advance: Callable[[int], None] = lambda _: None,
) -> Features:
    """Compute the features of the central clip of each video.

    Args:
        classifier: Network in evaluation mode.
        preprocessing: Preprocessing of the checkpoint.
        datamodule: Datamodule whose settings are used to read videos.
        videos: Videos to read.
        advance: Function called with the number of videos of each batch.

    Raises:
        DataError: Fewer than five videos can be read.
        VideoError: See :func:`vidpool.analysis.examples.central_clips`.
    """
    features, labels, thumbnails, bad = [], [], [], []
    paths: list[str] = []
    for batch in central_clips(datamodule, videos, preprocessing):
        counted = batch["counted"]
        clips = batch["clip"][counted]
        bad += batch["bad"]
        advance(len(counted))
        if not len(clips):
            continue
        with torch.inference_mode():
            normal = normalize(clips.to(classifier.device), preprocessing.mean, preprocessing.std)
            features.append(classifier.features(normal).float().cpu())
        labels.append(batch["label"][counted])
        middle = clips[:, :, clips.shape[2] // 2].float()
        small = F.interpolate(middle, (THUMBNAIL, THUMBNAIL), mode="area")
        thumbnails.append(small.round().byte().permute(0, 2, 3, 1))
        paths += [videos[int(video)].path for video in batch["video"][counted]]
    if len(paths) < MIN_VIDEOS:
        raise DataError(f"{len(paths)} videos could be read, and an embedding needs {MIN_VIDEOS}")
    return Features(torch.cat(features), torch.cat(labels), paths, torch.cat(thumbnails), bad)


def embed(
    features: Tensor,
    label: Tensor,
    clusters: int = CLUSTERS,
    perplexity: float = PERPLEXITY,
    seed: int = 0,
) -> Embedding:
    """Reduce features to points in a plane, and find clusters there.

    Args:
        features: Features, (V, features), V at least 5.
        label: Class ids, int64 (V,).
        clusters: Number of k-means clusters, limited by the number of distinct points.
        perplexity: Perplexity of t-SNE, about the number of neighbours; limited to a third of V.
        seed: Seed of t-SNE and k-means.

    Raises:
        ConfigError: ``clusters`` or ``perplexity`` is out of range.
        DataError: There are fewer than five videos, or the features are not finite or all equal.
    """
    if clusters < 1 or not perplexity > 0:
        raise ConfigError(
            f"clusters must be at least 1 and perplexity above 0, got {clusters} and {perplexity}"
        )
    count = len(features)
    if count < MIN_VIDEOS:
        raise DataError(f"an embedding needs at least {MIN_VIDEOS} videos, and here are {count}")
    if not features.isfinite().all():
        raise DataError("the network's features are not all finite: its weights are broken")
    if (features == features[0]).all():
        raise DataError("the network's features are the same for all videos: it sees nothing")
    values = features.double().numpy()
    pca = PCA(min(COMPONENTS, *values.shape), random_state=seed)
    reduced = pca.fit_transform(values)
    perplexity = min(perplexity, (count - 1) / 3)
    start = "pca" if reduced.shape[1] > 1 else "random"
    points = TSNE(2, perplexity=perplexity, init=start, random_state=seed).fit_transform(reduced)
    distinct = len(np.unique(points, axis=0))
    kmeans = KMeans(min(clusters, distinct), n_init=10, random_state=seed).fit(points)
    distances = np.linalg.norm(points[:, None] - kmeans.cluster_centers_[None], axis=2)
    groups = len(label.unique())
    silhouette = None
    if 2 <= groups < count:
        silhouette = float(silhouette_score(reduced, label.numpy()))
    return Embedding(
        points,
        float(pca.explained_variance_ratio_.sum()),
        perplexity,
        kmeans.labels_,
        kmeans.cluster_centers_,
        distances.argmin(0),
        silhouette,
    )


def embedding_figure(
    embedding: Embedding, found: Features, class_names: list[str], title: str
) -> Figure:
    """Draw the points, coloured by class, and around them the videos closest to the centres.

    Args:
        embedding: Positions of the videos.
        found: Features of the videos.
        class_names: Names of the classes by class id.
        title: Title of the figure.
    """
    figure = Figure(figsize=(10.5, 8.5), layout="constrained")
    axes = figure.add_subplot()
    present = found.label.unique().tolist()
    palette = matplotlib.colormaps["tab10" if len(present) <= 10 else "tab20"]
    if len(present) > MAX_LEGEND:
        palette = matplotlib.colormaps["hsv"].resampled(len(present) + 1)
    for i, label in enumerate(present):
        own = embedding.points[(found.label == label).numpy()]
        x, y = own.T
        axes.scatter(
            x, y, s=14, color=palette(i), label=plain_text(class_names[label]), linewidths=0
        )
    thumbnails = _thumbnail_positions(embedding)
    for position, centre, video in zip(
        thumbnails, embedding.centres, embedding.closest, strict=True
    ):
        thumbnail = found.thumbnails[int(video)]
        colour = palette(present.index(int(found.label[int(video)])))
        box = AnnotationBbox(
            OffsetImage(thumbnail.numpy(), zoom=0.9),
            tuple(centre),
            xybox=tuple(position),
            pad=0.15,
            arrowprops={"arrowstyle": "-", "color": "black", "linewidth": 0.7},
            bboxprops={"edgecolor": colour, "linewidth": 2},
        )
        axes.add_artist(box)
        axes.plot(*centre, marker="x", color="black", markersize=7, markeredgewidth=2)
    low, high = thumbnails.min(0), thumbnails.max(0)
    room = 0.08 * (high - low)
    axes.set_xlim(low[0] - room[0], high[0] + room[0])
    axes.set_ylim(low[1] - room[1], high[1] + room[1])
    axes.set(xticks=[], yticks=[])
    if len(present) <= MAX_LEGEND:
        figure.legend(loc="outside right upper", fontsize=9, markerscale=1.6)
    figure.suptitle(plain_text(title), fontsize=11)
    return figure


def write_points(path: Path, embedding: Embedding, found: Features, class_names: list[str]) -> Path:
    """Write a CSV file with a row per video: file, class, position and cluster."""
    with open_text(path, "w") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "class", "x", "y", "cluster"])
        for i, (x, y) in enumerate(embedding.points):
            name = class_names[int(found.label[i])]
            rows.writerow([found.paths[i], name, f"{x:.4f}", f"{y:.4f}", embedding.cluster[i]])
    return path


def _thumbnail_positions(embedding: Embedding) -> np.ndarray:
    """Return positions of thumbnails, (K, 2), evenly on an ellipse around all points.

    They minimize the total length of the lines to the centres, so that no lines cross.
    """
    low, high = embedding.points.min(0), embedding.points.max(0)
    middle, radius = (low + high) / 2, (high - low) / 2 * 1.28
    angles = 2 * np.pi * np.arange(len(embedding.centres)) / len(embedding.centres)
    positions = middle + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    lengths = np.linalg.norm(embedding.centres[:, None] - positions[None], axis=2)
    return positions[linear_sum_assignment(lengths)[1]]
