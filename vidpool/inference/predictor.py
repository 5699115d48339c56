"""Prediction of the classes of video files, with a checkpoint or an exported file."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vidpool.data.views import normalize, read_views
from vidpool.errors import ConfigError, DataError, VideoError
from vidpool.files import expand_path
from vidpool.inference.loading import load_network
from vidpool.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of a video, or the reason why there are none.

    Attributes:
        path: The file.
        classes: (name, probability) pairs, the most probable first; empty where reading failed.
        error: What is wrong with the file, or None.
    """

    path: Path
    classes: tuple[tuple[str, float], ...] = ()
    error: str | None = None


def find_videos(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the given files, and the videos in given folders, sorted.

    Videos are found by their suffix, in subfolders too; hidden files are skipped. A folder without
    videos gives its pictures, which are videos of one frame.

    Raises:
        DataError: A folder contains neither.
    """
    found: list[Path] = []
    for path in map(expand_path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        inside = _files_with_suffix(path, VIDEO_SUFFIXES) or _files_with_suffix(
            path, IMAGE_SUFFIXES
        )
        if not inside:
            raise DataError(
                f"{path}: this folder holds no video or picture (looked for "
                f"{', '.join((*VIDEO_SUFFIXES, *IMAGE_SUFFIXES))})"
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
        ckpt_path: A checkpoint of :class:`vidpool.train.classifier.VideoClassifier`, or a file of
            `vidpool export`; it contains the class names and the preprocessing.
        videos: Files; see :func:`find_videos` for folders.
        top: Number of classes per video. Defaults to 5.
        clips: Clips per video. Defaults to those of testing the network.
        crops: Crops per clip, 1 or 3. Defaults to those of testing the network.
        decoder: See :func:`vidpool.video.open_video`.
        device: A PyTorch device; ``auto`` is a GPU if there is one.

    Yields:
        One prediction for each file, in order; a file that cannot be read yields its error.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        ConfigError: ``top``, ``clips``, ``crops`` or ``device`` cannot work.
    """
    if top < 1:
        raise ConfigError(f"top must be at least 1, got {top}")
    network = load_network(ckpt_path, device)
    preprocessing = network.preprocessing
    preprocessing = replace(
        preprocessing,
        clips=preprocessing.clips if clips is None else clips,
        crops=preprocessing.crops if crops is None else crops,
    )
    for video in videos:
        try:
            views = read_views(str(video), preprocessing, decoder)
        except VideoError as error:
            yield Prediction(Path(video), error=str(error))
            continue
        with torch.inference_mode():
            clip = normalize(views.to(network.device), preprocessing.mean, preprocessing.std)
            # one view at a time: a video may have many
            scores = torch.cat([network.logits(view[None]).softmax(1) for view in clip]).mean(0)
        names = network.class_names
        best = scores.topk(min(top, len(names)))
        ranked = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        yield Prediction(Path(video), tuple((names[i], p) for i, p in ranked))


def _files_with_suffix(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the files with one of the suffixes, in a folder and its subfolders."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in suffixes
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
