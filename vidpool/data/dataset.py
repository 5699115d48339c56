"""Datasets of clips: each item is a batch, indexed by a list of :class:`ClipRequest`."""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vidpool.data.catalogue.listing import OnBadVideo
from vidpool.data.catalogue.table import LabelledVideo
from vidpool.data.schedule import ClipRequest
from vidpool.data.transforms.augmentation import Augmentation, seeded
from vidpool.data.views import ClipShape, Preprocessing, clip_positions, crop_views, random_clip
from vidpool.errors import VideoError
from vidpool.video import Video, open_video

MAX_SUBSTITUTIONS = 10  # in a row; more means that the data set is broken, not a file


class _Mixed(TypedDict, total=False):
    target: Tensor
    augment: Augmentation


class Batch(_Mixed):
    """A batch of clips; N counts each crop of an evaluated clip by itself.

    Attributes:
        clip: uint8 (N, C, T, H, W); the classifier makes it normalized float32 on the device.
        label: int64 (N,), class ids; of mixed clips that with the larger share.
        target: float32 (N, classes), the share of each class; only where clips were mixed.
        video: int64 (N,), the video's place in the data set.
        counted: bool (N,), False for clips that only fill up the batch.
        seed: N numbers from which changes on the device draw; a list, because to look at a tensor
            there would mean to wait for the device.
        requested: How many clips were to be read.
        augment: What remains to be done with training clips on the device; only if something does.
        bad: What was wrong with those that could not be, a message for each, which begins with the
            file. In training they are left out or other clips stand in for them; in evaluation
            they are not ``counted``.
    """

    clip: Tensor
    label: Tensor
    video: Tensor
    counted: Tensor
    seed: list[int]
    requested: int
    bad: list[str]


class _Clip(NamedTuple):
    """One element of a batch, as :class:`Batch` has it; ``frames`` is (T, C, H, W)."""

    frames: Tensor
    label: int
    video: int
    counted: bool
    seed: int


class TrainingClips(Dataset[Batch]):
    """Random, augmented clips, one of each video.

    Args:
        videos: The videos; ``request.index`` counts them.
        augment: Augmentation of the clips.
        decoder: See :func:`vidpool.video.open_video`.
        on_bad_video: What to do where a video cannot be read: ``"error"``; ``"skip"`` makes the
            batch smaller, unless nothing would be left of it; ``"substitute"`` takes another
            video's clip.
        fast: See :func:`vidpool.video.open_video`.
        square_pixels: See there.
    """

    def __init__(
        self,
        videos: Sequence[LabelledVideo],
        augment: Augmentation,
        decoder: str = "auto",
        on_bad_video: OnBadVideo = "error",
        fast: bool = False,
        square_pixels: bool = False,
    ) -> None:
        self.videos = videos
        self.augment = augment
        self.square_pixels = square_pixels
        self.decoder = decoder
        self.on_bad_video = on_bad_video
        self.fast = fast

    def __len__(self) -> int:
        """Return the number of videos."""
        return len(self.videos)

    def __getitem__(self, requests: list[ClipRequest]) -> Batch:
        """Read a batch; the same requests give the same batch in whichever process.

        Raises:
            VideoError: A video cannot be read and is not to be done without, or ten more that were
                tried in its place cannot be either.
        """
        clips: list[_Clip] = []
        bad: list[str] = []
        for number, request in enumerate(requests, start=1):
            # the last one has to give a clip where none before it did
            last_chance = number == len(requests) and not clips
            substitute = self.on_bad_video == "substitute" or last_chance
            with seeded(request.seed):
                clip, error = self._read(request, substitute)
            if error is not None:
                bad.append(str(error))
            if clip is None:
                continue
            if not self.augment.on_device:
                clip = clip._replace(frames=self.augment.change(clip.frames, request.seed))
            clips.append(clip)
        batch = _collate(clips, len(requests), bad)
        if self.augment.on_device or self.augment.mixup or self.augment.cutmix:
            batch["augment"] = self.augment
        return batch

    def _read(
        self, request: ClipRequest, substitute: bool
    ) -> tuple[_Clip | None, VideoError | None]:
        """Return the clip, or None to leave it out, and the error of the video, if any."""
        index = request.index
        first: VideoError | None = None
        for _ in range(MAX_SUBSTITUTIONS + 1):
            video = self.videos[index]
            try:
                frames = self._read_clip(video, request.shape)
            except VideoError as error:
                if self.on_bad_video == "error":
                    raise
                first, last = first or error, error
            else:
                return _Clip(frames, video.label, index, request.counted, request.seed), first
            if not substitute:
                return None, first
            index = int(torch.randint(len(self.videos), ()))
        raise VideoError(
            f"{last}; and {MAX_SUBSTITUTIONS} videos tried in place of others could not be "
            "read either: check the data set (`vidpool data check`)"
        ) from last

    def _read_clip(self, video: LabelledVideo, shape: ClipShape) -> Tensor:
        with open_video(
            video.path,
            self.decoder,
            video.length,
            self.fast,
            square_pixels=self.square_pixels,
        ) as opened:
            span = span_of(opened, video)
            stride = self.augment.temporal_stride(shape.stride)
            where = span.start + random_clip(len(span), shape.frames, stride)
            short_side = self.augment.reading_short_side(shape.crop)
            frames = opened.frames(where.tolist(), short_side)
        return self.augment.cut(frames, shape.crop)


class EvaluationViews(Dataset[Batch]):
    """Views for evaluation: ``clips`` evenly spread over a video, 1 or 3 crops of each.

    One index is one clip of one video with all its crops; clips of a video follow one another.

    Args:
        videos: The videos.
        preprocessing: Size, clips and crops.
        decoder: See :func:`vidpool.video.open_video`.
        on_bad_video: ``"error"``, or else put a black clip that is not counted.
        static: Show the middle frame of each clip only, repeated; what accuracy remains does not
            come from motion.
        fast: See :func:`vidpool.video.open_video`.
    """

    def __init__(
        self,
        videos: Sequence[LabelledVideo],
        preprocessing: Preprocessing,
        decoder: str = "auto",
        on_bad_video: OnBadVideo = "error",
        static: bool = False,
        fast: bool = False,
    ) -> None:
        self.videos = videos
        self.preprocessing = preprocessing
        self.decoder = decoder
        self.on_bad_video = on_bad_video
        self.static = static
        self.fast = fast

    def __len__(self) -> int:
        """Return the number of clips: videos times clips per video."""
        return len(self.videos) * self.preprocessing.clips

    def __getitem__(self, requests: list[ClipRequest]) -> Batch:
        """Read a batch of clips with all their crops.

        Raises:
            VideoError: A video cannot be read, and ``on_bad_video`` is ``"error"``.
        """
        p = self.preprocessing
        clips: list[_Clip] = []
        bad: list[str] = []
        for request in requests:
            index, clip = divmod(request.index, p.clips)
            video = self.videos[index]
            counted = request.counted
            try:
                crops = self._read_crops(video, clip)
            except VideoError as error:
                if self.on_bad_video == "error":
                    raise
                crops = torch.zeros(p.crops, p.frames, 3, p.crop, p.crop, dtype=torch.uint8)
                counted = False
                bad.append(str(error))
            clips += [_Clip(view, video.label, index, counted, request.seed) for view in crops]
        return _collate(clips, len(requests), bad)

    def _read_crops(self, video: LabelledVideo, clip: int) -> Tensor:
        """Return the crops of one clip of a video, (crops, T, C, H, W)."""
        p = self.preprocessing
        with open_video(
            video.path, self.decoder, video.length, self.fast, square_pixels=p.square_pixels
        ) as opened:
            span = span_of(opened, video)
            where = span.start + clip_positions(len(span), p)[clip]
            if self.static:
                where = where[len(where) // 2].expand_as(where)
            frames = opened.frames(where.tolist(), p.short_side)
        return crop_views(frames, p.crop, p.crops)


def span_of(opened: Video, video: LabelledVideo) -> range:
    """Return the frame numbers of a video within its file.

    Raises:
        VideoError: The file ends before the video begins, or cannot be read.
    """
    if video.start is None:
        return range(len(opened))
    return opened.span(video.start, math.inf if video.end is None else video.end)


def _collate(clips: list[_Clip], requested: int, bad: list[str]) -> Batch:
    return Batch(
        clip=torch.stack([clip.frames for clip in clips]).transpose(1, 2).contiguous(),
        label=torch.tensor([clip.label for clip in clips]),
        video=torch.tensor([clip.video for clip in clips]),
        counted=torch.tensor([clip.counted for clip in clips]),
        seed=[clip.seed for clip in clips],
        requested=requested,
        bad=bad,
    )
