"""Data sets of clips: each item is a batch, read as a list of :class:`ClipRequest` says."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vidpool.data.augment import seeded
from vidpool.data.decode import open_video
from vidpool.data.sampling import even_clips, random_clip
from vidpool.data.schedule import ClipRequest, ClipShape
from vidpool.data.transforms import Augmentation, crop_views
from vidpool.errors import ConfigError, VideoError

OnUndecodable = Literal["error", "substitute"]
MAX_SUBSTITUTIONS = 10  # in a row; more means that the data set is broken, not a file


class LabelledVideo(NamedTuple):
    """A labelled video file."""

    path: str
    label: int


class _Mixed(TypedDict, total=False):
    target: Tensor


class Batch(_Mixed):
    """A batch of clips; N counts each crop of an evaluated clip by itself.

    Attributes:
        clip: uint8 (N, C, T, H, W); normalised float32 once it is on the device.
        label: int64 (N,), class ids; of mixed clips that with the larger share.
        target: float32 (N, classes), the share of each class; only where clips were mixed.
        video: int64 (N,), the video's place in the data set.
        counted: bool (N,), False for clips that only fill up the batch.
        seed: N numbers from which changes on the device draw; a list, because to look at a tensor
            there would mean to wait for the device.
        substituted: int64 (), how many clips stand in for videos that could not be decoded.
    """

    clip: Tensor
    label: Tensor
    video: Tensor
    counted: Tensor
    seed: list[int]
    substituted: Tensor


@dataclass(frozen=True)
class Preprocessing:
    """What a network must be given at test time; it travels in the checkpoint.

    Attributes:
        frames: T, frames of a clip.
        stride: Temporal stride, in frames of the video.
        short_side: Pixels to which the frame's shorter side is scaled.
        crop: Side of the square cut out of it, pixels.
        clips: Clips of a video, spread evenly over it.
        crops: Crops of a clip, 1 or 3.
        mean: Of each channel, in [0, 1].
        std: Of each channel, in [0, 1].

    Raises:
        ConfigError: A value cannot work.
    """

    frames: int
    stride: int
    short_side: int
    crop: int
    clips: int
    crops: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        self.shape.check()
        if self.short_side < self.crop:
            raise ConfigError(
                f"the short side ({self.short_side}) must not be below the crop ({self.crop})"
            )
        if self.clips < 1:
            raise ConfigError(f"a video needs at least 1 clip, got clips={self.clips}")
        if self.crops not in (1, 3):
            raise ConfigError(f"a clip gives 1 or 3 crops, got crops={self.crops}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(
                "mean and std need three values each and std positive ones, "
                f"got mean={self.mean}, std={self.std}"
            )

    @property
    def shape(self) -> ClipShape:
        """The clip's shape."""
        return ClipShape(self.frames, self.stride, self.crop)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a checkpoint may hold them."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """The inverse of :meth:`to_dict`."""
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


class TrainingClips(Dataset[Batch]):
    """Random, augmented clips, one of each video.

    Args:
        videos: The videos; ``request.index`` counts them.
        augment: How clips are varied.
        decoder: See :func:`vidpool.data.decode.open_video`.
        on_undecodable: ``"error"``, or ``"substitute"``: take another video's clip and count it.
    """

    def __init__(
        self,
        videos: Sequence[LabelledVideo],
        augment: Augmentation,
        decoder: str = "auto",
        on_undecodable: OnUndecodable = "error",
    ) -> None:
        self.videos = videos
        self.augment = augment
        self.decoder = decoder
        self.on_undecodable = on_undecodable

    def __len__(self) -> int:
        """How many videos there are."""
        return len(self.videos)

    def __getitem__(self, requests: list[ClipRequest]) -> Batch:
        """Read a batch; the same requests give the same batch in whichever process.

        Raises:
            VideoError: A video cannot be decoded (and, when substituting, ten more in its place).
        """
        clips, indices, substituted = [], [], 0
        for request in requests:
            with seeded(request.seed):
                clip, index, tries = self._read(request)
            if not self.augment.on_device:
                clip = self.augment.change(clip, request.seed)
            clips.append(clip)
            indices.append(index)
            substituted += tries > 0
        return _collate(
            clips,
            indices,
            self.videos,
            [request.counted for request in requests],
            [request.seed for request in requests],
            substituted,
        )

    def _read(self, request: ClipRequest) -> tuple[Tensor, int, int]:
        """The clip (T, C, H, W), the video that it is from, and how many videos failed."""
        index = request.index
        for failures in range(MAX_SUBSTITUTIONS + 1):
            try:
                return self._read_clip(index, request.shape), index, failures
            except VideoError as error:
                if self.on_undecodable == "error":
                    raise
                last = error
                index = int(torch.randint(len(self.videos), ()))
        raise VideoError(
            f"{last}; and {MAX_SUBSTITUTIONS} videos tried in place of others could not be "
            "decoded either: check the data set"
        ) from last

    def _read_clip(self, index: int, shape: ClipShape) -> Tensor:
        with open_video(self.videos[index].path, self.decoder) as video:
            where = random_clip(len(video), shape.frames, shape.stride)
            short_side = self.augment.reading_short_side(shape.crop)
            frames = video.frames(where.tolist(), short_side)
        return self.augment.cut(frames, shape.crop)


class EvaluationViews(Dataset[Batch]):
    """The views of evaluation: ``clips`` evenly spread over a video, 1 or 3 crops of each.

    One index is one clip of one video with all its crops; clips of a video follow one another.

    Args:
        videos: The videos.
        preprocessing: Size, clips and crops.
        decoder: See :func:`vidpool.data.decode.open_video`.
        on_undecodable: ``"error"``, or ``"substitute"``: put a black clip that is not counted.
        static: Show the middle frame of each clip only, repeated; what accuracy remains does not
            come from motion.
    """

    def __init__(
        self,
        videos: Sequence[LabelledVideo],
        preprocessing: Preprocessing,
        decoder: str = "auto",
        on_undecodable: OnUndecodable = "error",
        static: bool = False,
    ) -> None:
        self.videos = videos
        self.preprocessing = preprocessing
        self.decoder = decoder
        self.on_undecodable = on_undecodable
        self.static = static

    def __len__(self) -> int:
        """How many clips there are: videos times clips."""
        return len(self.videos) * self.preprocessing.clips

    def __getitem__(self, requests: list[ClipRequest]) -> Batch:
        """Read a batch of clips with all their crops.

        Raises:
            VideoError: A video cannot be decoded, and ``on_undecodable`` is ``"error"``.
        """
        p = self.preprocessing
        views: list[Tensor] = []
        indices: list[int] = []
        counted: list[bool] = []
        seeds: list[int] = []
        substituted = 0
        for request in requests:
            index, clip = divmod(request.index, p.clips)
            decoded = True
            try:
                crops = self._read_crops(self.videos[index].path, clip)
            except VideoError:
                if self.on_undecodable == "error":
                    raise
                crops = torch.zeros(p.crops, p.frames, 3, p.crop, p.crop, dtype=torch.uint8)
                decoded = False
                substituted += 1
            views += crops
            indices += [index] * p.crops
            counted += [request.counted and decoded] * p.crops
            seeds += [request.seed] * p.crops
        return _collate(views, indices, self.videos, counted, seeds, substituted)

    def _read_crops(self, path: str, clip: int) -> Tensor:
        """The crops of one clip of a video, (crops, T, C, H, W)."""
        p = self.preprocessing
        with open_video(path, self.decoder) as video:
            where = clip_positions(len(video), p)[clip]
            if self.static:
                where = where[len(where) // 2].expand_as(where)
            frames = video.frames(where.tolist(), p.short_side)
        return crop_views(frames, p.crop, p.crops)


def clip_positions(video_length: int, preprocessing: Preprocessing) -> Tensor:
    """Frame numbers of the clips of a video in evaluation: int64 (clips, T)."""
    p = preprocessing
    return even_clips(video_length, p.clips, p.frames, p.stride)


def read_views(path: str, preprocessing: Preprocessing, decoder: str = "auto") -> Tensor:
    """Read all views of one video.

    Returns:
        uint8 (clips * crops, C, T, crop, crop).

    Raises:
        VideoError: The video cannot be decoded.
    """
    views = []
    with open_video(path, decoder) as video:
        for where in clip_positions(len(video), preprocessing):
            frames = video.frames(where.tolist(), preprocessing.short_side)
            views.append(crop_views(frames, preprocessing.crop, preprocessing.crops))
    return torch.cat(views).transpose(1, 2)


def _collate(
    clips: list[Tensor],
    indices: list[int],
    videos: Sequence[LabelledVideo],
    counted: list[bool],
    seeds: list[int],
    substituted: int,
) -> Batch:
    return Batch(
        clip=torch.stack(clips).transpose(1, 2).contiguous(),
        label=torch.tensor([videos[i].label for i in indices]),
        video=torch.tensor(indices),
        counted=torch.tensor(counted),
        seed=seeds,
        substituted=torch.tensor(substituted),
    )
