"""Prediction: the classes of video files, by a checkpoint and nothing else."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vidpool.data.augment.transforms import normalize
from vidpool.data.dataset import Preprocessing, read_views
from vidpool.data.sets.layouts import VIDEO_SUFFIXES
from vidpool.errors import CheckpointError, ConfigError, DataError, VideoError
from vidpool.models.checkpoint import load_checkpoint
from vidpool.train.classifier import VideoClassifier


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of a video, or why there are none.

    Attributes:
        path: The file.
        classes: (name, probability) pairs, the most probable first; empty where reading failed.
        error: What is wrong with the file, or None.
    """

    path: Path
    classes: tuple[tuple[str, float], ...] = ()
    error: str | None = None


def find_videos(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The files themselves, and the videos within folders: by suffix, sorted, hidden ones left out.

    Raises:
        DataError: A folder holds no video.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in VIDEO_SUFFIXES
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
        if not inside:
            raise DataError(
                f"{path}: this folder holds no video (looked for {', '.join(VIDEO_SUFFIXES)})"
            )
        found += inside
    return found


def predict(
    ckpt_path: str | os.PathLike[str],
    videos: Sequence[str | os.PathLike[str]],
    top: int = 5,
    clips: int | None = None,
    crops: int | None = None,
    decoder: str = "auto",
    device: str = "auto",
) -> Iterator[Prediction]:
    """Predict the classes of videos, one after another.

    The network's softmax is averaged over the video's views, as in testing.

    Args:
        ckpt_path: A checkpoint of :class:`vidpool.train.classifier.VideoClassifier`; it holds the
            class names and the preprocessing.
        videos: Files; see :func:`find_videos` for folders.
        top: How many classes of each video.
        clips: Clips of a video; by default as the network was tested.
        crops: Crops of a clip, 1 or 3; by default as the network was tested.
        decoder: See :func:`vidpool.data.decode.open_video`.
        device: A PyTorch device; ``auto`` is a GPU where there is one.

    Yields:
        One prediction for each file, in order; a file that cannot be read yields its error.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        ConfigError: ``top``, ``clips``, ``crops`` or ``device`` cannot work.
    """
    if top < 1:
        raise ConfigError(f"top must be at least 1, got {top}")
    classifier, class_names, preprocessing = load_classifier(ckpt_path)
    preprocessing = replace(
        preprocessing,
        clips=preprocessing.clips if clips is None else clips,
        crops=preprocessing.crops if crops is None else crops,
    )
    classifier = move_to(classifier, device)
    for video in videos:
        try:
            views = read_views(str(video), preprocessing, decoder)
        except VideoError as error:
            yield Prediction(Path(video), error=str(error))
            continue
        with torch.inference_mode():
            clip = normalize(views.to(classifier.device), preprocessing.mean, preprocessing.std)
            # one view at a time: a video may have many
            scores = torch.cat([classifier(view[None]).float().softmax(1) for view in clip]).mean(0)
        best = scores.topk(min(top, len(class_names)))
        ranked = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        yield Prediction(Path(video), tuple((class_names[i], p) for i, p in ranked))


def move_to(classifier: VideoClassifier, device: str) -> VideoClassifier:
    """Move a network to a device; ``auto`` is a GPU where there is one.

    Raises:
        ConfigError: There is no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return classifier.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device!r} cannot be used: {error}") from None


def load_classifier(
    ckpt_path: str | os.PathLike[str],
) -> tuple[VideoClassifier, list[str], Preprocessing]:
    """The network in evaluation mode, its class names and its preprocessing, from a checkpoint.

    Raises:
        CheckpointError: The checkpoint cannot be read, or was not made by vidpool.
    """
    checkpoint = load_checkpoint(ckpt_path)
    description = checkpoint.get("vidpool")
    if not description or "hyper_parameters" not in checkpoint:
        raise CheckpointError(
            f"{ckpt_path}: holds no class names or preprocessing; prediction needs a checkpoint "
            "that `vidpool fit` or `vidpool import` made"
        )
    settings = {
        name: value
        for name, value in checkpoint["hyper_parameters"].items()
        if not name.startswith("_")
    }
    try:
        classifier = VideoClassifier(**settings)
        classifier.load_state_dict(checkpoint["state_dict"])
        preprocessing = Preprocessing.from_dict(description["preprocessing"])
        class_names = description["class_names"]
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{ckpt_path}: does not fit this version of vidpool ({error})"
        ) from error
    return classifier.eval(), class_names, preprocessing
