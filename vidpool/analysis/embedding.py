"""What lies near what in a network's features: t-SNE of them, as in Figures S5 to S7.

As there: averaged features, reduced to 50 dimensions by PCA, then t-SNE; k-means of what comes out
of it, and at each centre the example that is closest. The paper does not say how many centres its
figures have.
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

COMPONENTS = 50  # of PCA, as in section S5
PERPLEXITY = 30.0
CLUSTERS = 10
LEAST = 5  # videos
THUMBNAIL = 64  # pixels
LEGEND = 20  # more classes than that have none


@dataclass(frozen=True)
class Features:
    """What a network makes of V videos.

    Attributes:
        features: float32 (V, features): the classifier's input, of the central clip of each video.
        label: int64 (V,).
        paths: The files.
        thumbnails: uint8 (V, 64, 64, 3), the frame in the middle of each clip.
        bad: What was wrong with the videos that could not be read, which are left out.
    """

    features: Tensor
    label: Tensor
    paths: list[str]
    thumbnails: Tensor
    bad: list[str]


@dataclass(frozen=True)
class Embedding:
    """Places of V videos in a plane.

    Attributes:
        points: float32 (V, 2), by t-SNE.
        explained: The share of the features' variance that PCA kept.
        perplexity: Of t-SNE, as it was used.
        cluster: int (V,), the k-means cluster of each.
        centres: float (K, 2).
        closest: int (K,), the video nearest to each centre.
        silhouette: How well classes are apart in the space that PCA gives, from -1 to 1; None where
            there are fewer than two, or no two videos of one.
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
    """Compute what the classifier sees of each video's central clip.

    Args:
        classifier: The network, in evaluation mode.
        preprocessing: The checkpoint's.
        datamodule: Says how videos are read.
        videos: The videos.
        advance: Is told how many more are done.

    Raises:
        DataError: Fewer than five could be read.
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
    if len(paths) < LEAST:
        raise DataError(f"{len(paths)} videos could be read, and an embedding needs {LEAST}")
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
        features: (V, features), V at least 5.
        label: int64 (V,).
        clusters: K of k-means; at most as many as there are distinct points are found.
        perplexity: Of t-SNE: how many neighbours count; at most a third of V does.
        seed: Of t-SNE and k-means.

    Raises:
        ConfigError: ``clusters`` or ``perplexity`` cannot work.
        DataError: There are fewer than five videos, or features that are not finite, or all alike.
    """
    if clusters < 1 or not perplexity > 0:
        raise ConfigError(
            f"clusters must be at least 1 and perplexity above 0, got {clusters} and {perplexity}"
        )
    count = len(features)
    if count < LEAST:
        raise DataError(f"an embedding needs at least {LEAST} videos, and here are {count}")
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
    away = np.linalg.norm(points[:, None] - kmeans.cluster_centers_[None], axis=2)
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
        away.argmin(0),
        silhouette,
    )


def embedding_figure(
    embedding: Embedding, found: Features, class_names: list[str], title: str
) -> Figure:
    """Draw the points, coloured by class, and around them the videos closest to the centres.

    Args:
        embedding: Where they lie.
        found: What they are.
        class_names: By class id.
        title: Goes on top.
    """
    figure = Figure(figsize=(10.5, 8.5), layout="constrained")
    axes = figure.add_subplot()
    present = found.label.unique().tolist()
    palette = matplotlib.colormaps["tab10" if len(present) <= 10 else "tab20"]
    if len(present) > LEGEND:
        palette = matplotlib.colormaps["hsv"].resampled(len(present) + 1)
    for i, label in enumerate(present):
        own = embedding.points[(found.label == label).numpy()]
        x, y = own.T
        axes.scatter(
            x, y, s=14, color=palette(i), label=plain_text(class_names[label]), linewidths=0
        )
    thumbnails = _around(embedding)
    for place, centre, video in zip(thumbnails, embedding.centres, embedding.closest, strict=True):
        picture = found.thumbnails[int(video)]
        colour = palette(present.index(int(found.label[int(video)])))
        box = AnnotationBbox(
            OffsetImage(picture.numpy(), zoom=0.9),
            tuple(centre),
            xybox=tuple(place),
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
    if len(present) <= LEGEND:
        figure.legend(loc="outside right upper", fontsize=9, markerscale=1.6)
    figure.suptitle(plain_text(title), fontsize=11)
    return figure


def write_points(path: Path, embedding: Embedding, found: Features, class_names: list[str]) -> Path:
    """Write a CSV with a row for each video: its file, class, place and cluster."""
    with open_text(path, "w") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "class", "x", "y", "cluster"])
        for i, (x, y) in enumerate(embedding.points):
            name = class_names[int(found.label[i])]
            rows.writerow([found.paths[i], name, f"{x:.4f}", f"{y:.4f}", embedding.cluster[i]])
    return path


def _around(embedding: Embedding) -> np.ndarray:
    """Places for the thumbnails, (K, 2): evenly on an ellipse around all points, near the centres.

    The lines to the centres are together as short as can be, and so none crosses another.
    """
    low, high = embedding.points.min(0), embedding.points.max(0)
    middle, radius = (low + high) / 2, (high - low) / 2 * 1.28
    angles = 2 * np.pi * np.arange(len(embedding.centres)) / len(embedding.centres)
    places = middle + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    lengths = np.linalg.norm(embedding.centres[:, None] - places[None], axis=2)
    return places[linear_sum_assignment(lengths)[1]]
