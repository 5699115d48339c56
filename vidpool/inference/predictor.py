"""Prediction of the classes of videos, with a checkpoint or an exported file."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vidpool.data.views import Preprocessing, normalize, read_views, views_of
from vidpool.errors import ConfigError, DataError, VideoError
from vidpool.files import expand_path
from vidpool.inference.loading import load_network
from vidpool.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Video
from vidpool.video.image_video import TensorVideo

VideoInput: TypeAlias = str | os.PathLike[str] | Video | Tensor | NDArray[np.uint8]
"""Input that is one video: a path, an open video, or uint8 RGB frames (T, 3, H, W)."""


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """The probabilities of the classes of a video, or the reason why there are none.

    Attributes:
        path: The file; None for frames in memory.
        class_names: Names of the classes, in the order of ``probabilities``.
        probabilities: float32 (num_classes,) on the CPU; None if the video could not be read.
        error: What is wrong with the video, or None.

    Examples:
        >>> import torch
        >>> prediction = Prediction(None, ["run", "jump", "swim"], torch.tensor([0.25, 0.5, 0.25]))
        >>> prediction.top(1)
        [('jump', 0.5)]
        >>> prediction
        Prediction(None, 'jump' 0.500, 'run' 0.250, 'swim' 0.250)
    """

    path: Path | None
    class_names: Sequence[str]
    probabilities: Tensor | None = None
    error: str | None = None

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the most probable classes with their probabilities, the most probable first.

        Args:
            k: Number of classes; all of them if there are fewer. Defaults to 5.

        Returns:
            (class name, probability) pairs; none if the video could not be read.

        Raises:
            ConfigError: ``k`` is below 1.
        """
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}", "k")
        if self.probabilities is None:
            return []
        values, places = self.probabilities.sort(descending=True, stable=True)
        ranked = zip(places[:k].tolist(), values[:k].tolist(), strict=True)
        return [(self.class_names[place], value) for place, value in ranked]

    def __repr__(self) -> str:
        """Return the file and the most probable classes, or the error."""
        parts = [repr(self.path and str(self.path))]
        if self.error is not None:
            parts.append(f"error={self.error!r}")
        parts += [f"{name!r} {probability:.3f}" for name, probability in self.top(3)]
        more = ", …" if len(self.class_names) > 3 and self.error is None else ""
        return f"Prediction({', '.join(parts)}{more})"


class Predictor:
    """A trained network with its class names and preprocessing, loaded once.

    The softmax of the network is averaged over the views of a video (clips spread evenly over it,
    and crops of them), as in testing.

    Args:
        path: A checkpoint (`.ckpt`) of `vidpool fit` or `vidpool import`, or a file of
            `vidpool export` (`.onnx`, `.pt2`, `.safetensors`, `.pth`). Like any program, a `.pt2`
            should come from someone you trust.
        device: A PyTorch device; ``auto`` is a GPU if there is one. Defaults to ``auto``.
        network: The network of a checkpoint whose classifier was made with a module instead of a
            name: an instance of its class, which gets the checkpoint's weights.
        clips: Clips per video. Defaults to those of testing the network.
        crops: Crops per clip, 1 or 3. Defaults to those of testing the network.
        decoder: Decoder of the video files, see :func:`vidpool.video.open_video`.

    Attributes:
        path: The file.
        device: The PyTorch device on which the network runs.
        class_names: Names of the classes.
        preprocessing: Number, length and size of the views, mean and standard deviation.

    Raises:
        CheckpointError: The file cannot be used, or needs ``network``.
        ConfigError: ``device``, ``network``, ``clips`` or ``crops`` cannot work, or a package is
            missing.

    Examples:
        A checkpoint of an untrained network, and frames in memory as the video:

        >>> import tempfile, torch
        >>> from vidpool.inference.predictor import Predictor
        >>> from vidpool.train.importing import import_checkpoint, save
        >>> from vidpool.models import create_model
        >>> folder = tempfile.mkdtemp()
        >>> net = create_model("r3d_18", num_classes=3, width=4)
        >>> torch.save(net.state_dict(), f"{folder}/net.pth")
        >>> names = ["run", "jump", "swim"]
        >>> made = import_checkpoint(f"{folder}/net.pth", "r3d_18", width=4, class_names=names)
        >>> save(made.classifier, f"{folder}/net.ckpt")

        >>> predictor = Predictor(f"{folder}/net.ckpt", device="cpu", clips=2, crops=1)
        >>> prediction = predictor(torch.zeros(40, 3, 48, 64, dtype=torch.uint8))
        >>> prediction.probabilities.shape
        torch.Size([3])
        >>> sorted(name for name, probability in prediction.top(3))
        ['jump', 'run', 'swim']
        >>> predictor("missing.mp4").error
        'missing.mp4: no such file'
        >>> predictor.features(torch.zeros(40, 3, 48, 64, dtype=torch.uint8)).shape
        torch.Size([32])
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        device: str = "auto",
        network: nn.Module | None = None,
        clips: int | None = None,
        crops: int | None = None,
        decoder: str = "auto",
    ) -> None:
        self.path = Path(path)
        self._network = load_network(path, device, network)
        self._decoder = decoder
        self.device = self._network.device
        self.class_names = self._network.class_names
        own = self._network.preprocessing
        try:
            self.preprocessing: Preprocessing = replace(
                own,
                clips=own.clips if clips is None else clips,
                crops=own.crops if crops is None else crops,
            )
        except ConfigError as error:
            error.argument = (error.argument or "").removeprefix("test_") or None
            raise

    @overload  # a str is a sequence, too, but of this kind
    def __call__(self, video: VideoInput) -> Prediction: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, video: Sequence[VideoInput]) -> list[Prediction]: ...

    def __call__(self, video: Any) -> Prediction | list[Prediction]:
        """Predict the class of a video, or of several.

        Args:
            video: The path of a video or picture; an open video, which stays open and is read as it
                was opened; uint8 RGB frames (T, 3, H, W) as a tensor or array, which count as all
                frames of a video; or a list of these.

        Returns:
            A prediction, or a list of them for a list. That of a video that cannot be read has an
            :attr:`~Prediction.error`.

        Raises:
            TypeError: The video is of another type, or its frames are not uint8.
            ConfigError: Frames have another shape, or the decoder cannot be used.
            ValueError: An open video was closed.
        """
        if isinstance(video, list | tuple):
            return [self._predict(source) for source in [_source(each) for each in video]]
        return self._predict(_source(video))

    def features(self, video: VideoInput) -> Tensor:
        """Return the features before the classifier, averaged over the views of a video.

        Args:
            video: As for a prediction, but no list.

        Returns:
            float32 (F,) on the CPU.

        Raises:
            VideoError: The video cannot be read.
            ConfigError: The file is an `.onnx` or `.pt2`, which give logits alone.
            TypeError: The video is of another type.
        """
        if self._network.features is None:
            raise ConfigError(
                f"{self.path}: gives logits and no features; they need a .ckpt, .safetensors or "
                ".pth file",
                "path",
            )
        return self._mean_over_views(self._network.features, self._views(_source(video)))

    def _predict(self, source: Path | Video) -> Prediction:
        path = None
        if not isinstance(source, TensorVideo):
            path = source.path if isinstance(source, Video) else source
        try:
            views = self._views(source)
        except VideoError as error:
            return Prediction(path, self.class_names, error=str(error))
        scores = self._mean_over_views(lambda clip: self._network.logits(clip).softmax(1), views)
        return Prediction(path, self.class_names, scores)

    def _views(self, source: Path | Video) -> Tensor:
        """Read the views of a video: uint8 (N, C, T, H, W)."""
        if isinstance(source, Video):
            return views_of(source, self.preprocessing)
        return read_views(str(source), self.preprocessing, self._decoder)

    @torch.no_grad()  # tensors of inference mode could not be used for training
    def _mean_over_views(self, function: Callable[[Tensor], Tensor], views: Tensor) -> Tensor:
        # one view at a time: a video may have many
        return torch.cat([function(clip[None]) for clip in self._input(views)]).mean(0).cpu()

    def _input(self, views: Tensor) -> Tensor:
        """Return what the network takes: float32 clips, normalized, on its device."""
        p = self.preprocessing
        return normalize(views.to(self.device), p.mean, p.std)


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


def _source(video: Any) -> Path | Video:
    """Return the path of a video, or the open video; frames become one.

    Raises:
        TypeError: It is neither, or frames are not uint8.
        ConfigError: Frames have another shape.
    """
    if isinstance(video, np.ndarray):
        if video.dtype != np.uint8:
            raise TypeError(f"frames must be uint8 in [0, 255], not {video.dtype}")
        video = torch.from_numpy(np.ascontiguousarray(video))
    if isinstance(video, Tensor):
        return TensorVideo(video)
    if isinstance(video, Video):
        return video
    if isinstance(video, str | os.PathLike):
        return Path(video)
    raise TypeError(
        "a video is a path, an open video, a uint8 tensor or array (T, 3, H, W), or a list of "
        f"these, not {type(video).__name__}"
    )


def _files_with_suffix(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the files with one of the suffixes, in a folder and its subfolders."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in suffixes
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
