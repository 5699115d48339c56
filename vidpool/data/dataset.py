"""Datasets of clips: an int gives a :class:`Sample`, a list of :class:`ClipRequest` a batch."""

import math
import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex, overload

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vidpool.data.batch import Batch as Batch
from vidpool.data.batch import Clip, collate, sample
from vidpool.data.batch import Sample as Sample
from vidpool.data.catalogue.listing import OnBadVideo
from vidpool.data.catalogue.table import LabelledVideo
from vidpool.data.schedule import ClipRequest
from vidpool.data.transforms.augmentation import Augmentation, seeded
from vidpool.data.transforms.custom import ClipTransform, apply_transform, check_transform
from vidpool.data.views import ClipShape, Preprocessing, clip_positions, crop_views, random_clip
from vidpool.errors import VideoError
from vidpool.video import Video, open_video

SHAPE = ClipShape(frames=16, stride=2, crop=112)
MAX_SUBSTITUTIONS = 10  # in a row; more means that the data set is broken, not a file


class TrainingClips(Dataset[Any]):
    """Random, augmented clips, one of each video.

    ``dataset[i]`` is a :class:`Sample`; its randomness comes from PyTorch's global generator, as
    that of torchvision's transforms. Samples are augmented completely, except for mixup and cutmix,
    which need a batch. A list of :class:`ClipRequest` gives a :class:`Batch`.

    Args:
        videos: The videos; ``request.index`` counts them.
        augment: Augmentation of the clips.
        decoder: See :func:`vidpool.video.open_video`.
        on_bad_video: What to do where a video cannot be read: ``"error"``; ``"skip"`` makes the
            batch smaller, unless nothing would be left of it; ``"substitute"`` takes another
            video's clip. A sample takes another video's clip in both cases.
        fast: See :func:`vidpool.video.open_video`.
        square_pixels: See there.
        transform: Callable on uint8 (T, C, H, W) clips, applied between the crop and the changes of
            ``augment``. Defaults to None.
        shape: Shape of the clips of samples. Defaults to 16 frames, 2 apart, of 112 x 112 pixels.
        preprocessing: Preprocessing of evaluation. A classifier takes mean and std from it if there
            is no datamodule. Defaults to None.

    Examples:
        >>> from vidpool.data.catalogue.table import LabelledVideo
        >>> from vidpool.data.datasets.example import example_dataset
        >>> paths = sorted(example_dataset().glob("train/*/*.mp4"))[:2]
        >>> videos = [LabelledVideo(str(path), label=3) for path in paths]
        >>> dataset = TrainingClips(videos, Augmentation(), shape=ClipShape(4, 2, 32))
        >>> len(dataset), dataset[0]["clip"].shape, dataset[0]["label"]
        (2, torch.Size([3, 4, 32, 32]), 3)
        >>> loader = torch.utils.data.DataLoader(dataset, batch_size=2, shuffle=True)
        >>> next(iter(loader))["clip"].shape
        torch.Size([2, 3, 4, 32, 32])
    """

    def __init__(
        self,
        videos: Sequence[LabelledVideo],
        augment: Augmentation,
        decoder: str = "auto",
        on_bad_video: OnBadVideo = "error",
        fast: bool = False,
        square_pixels: bool = False,
        transform: ClipTransform | None = None,
        shape: ClipShape = SHAPE,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        check_transform(transform)
        self.videos = videos
        self.augment = augment
        self.square_pixels = square_pixels
        self.decoder = decoder
        self.on_bad_video = on_bad_video
        self.fast = fast
        self.transform = transform
        self.shape = shape
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        """Return the number of videos."""
        return len(self.videos)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Sample: ...

    @overload
    def __getitem__(self, index: list[ClipRequest]) -> Batch: ...

    def __getitem__(self, index: SupportsIndex | list[ClipRequest]) -> Sample | Batch:
        """Read a sample or a batch; the same requests give the same batch in whichever process.

        Args:
            index: Index of a video, from the end if negative; or the requests of a batch.

        Raises:
            IndexError: There is no such video.
            VideoError: A video cannot be read and is not to be done without, or ten more that were
                tried in its place cannot be either.
        """
        if isinstance(index, list):
            return self._batch(index)
        place = position(index, len(self))
        request = ClipRequest(place, self.shape, int(torch.randint(2**62, ())))
        with seeded(request.seed):
            clip, _ = self._read(request, substitute=self.on_bad_video != "error")
        assert clip is not None
        return sample(self._transformed(clip, on_device=False))

    def _batch(self, requests: list[ClipRequest]) -> Batch:
        clips: list[Clip] = []
        bad: list[str] = []
        for number, request in enumerate(requests, start=1):
            # the last one has to give a clip where none before it did
            last_chance = number == len(requests) and not clips
            substitute = self.on_bad_video == "substitute" or last_chance
            with seeded(request.seed):
                clip, error = self._read(request, substitute)
            if error is not None:
                bad.append(str(error))
            if clip is not None:
                clips.append(self._transformed(clip, self.augment.on_device))
        batch = collate(clips, len(requests), bad)
        if self.augment.needs_device:
            batch["augment"] = self.augment
        return batch

    def _transformed(self, clip: Clip, on_device: bool) -> Clip:
        """Apply the transform, and the changes of the augmentation unless the device makes them."""
        frames = clip.frames
        if self.transform is not None:
            frames = apply_transform(self.transform, frames, clip.seed)
        if not on_device:
            frames = self.augment.change(frames, clip.seed)
        return clip._replace(frames=frames)

    def _read(
        self, request: ClipRequest, substitute: bool
    ) -> tuple[Clip | None, VideoError | None]:
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
                return Clip(frames, video.label, index, request.counted, request.seed), first
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


class EvaluationViews(Dataset[Any]):
    """Views for evaluation: ``clips`` evenly spread over a video, 1 or 3 crops of each.

    ``dataset[i]`` is a :class:`Sample`, one view; crops of a clip follow one another, and so do
    clips of a video. A list of :class:`ClipRequest` gives a :class:`Batch`: an index stands for a
    clip there, with all its crops.

    Args:
        videos: The videos.
        preprocessing: Size, clips and crops.
        decoder: See :func:`vidpool.video.open_video`.
        on_bad_video: ``"error"``, or else put a black clip that is not counted.
        static: Show the middle frame of each clip only, repeated; what accuracy remains does not
            come from motion.
        fast: See :func:`vidpool.video.open_video`.

    Examples:
        >>> from vidpool.data.catalogue.table import LabelledVideo
        >>> from vidpool.data.datasets.example import example_dataset
        >>> paths = sorted(example_dataset().glob("train/*/*.mp4"))[:2]
        >>> videos = [LabelledVideo(str(path), label=3) for path in paths]
        >>> size = {"frames": 4, "stride": 2, "short_side": 36, "crop": 32}
        >>> gray = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
        >>> dataset = EvaluationViews(videos, Preprocessing(**size, clips=5, crops=3, **gray))
        >>> len(dataset), dataset[-1]["clip"].shape, dataset[-1]["video"]
        (30, torch.Size([3, 4, 32, 32]), 1)
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
        """Return the number of views: videos times clips per video times crops per clip."""
        return self.clips * self.preprocessing.crops

    @property
    def clips(self) -> int:
        """Number of clips, which requests count: videos times clips per video."""
        return len(self.videos) * self.preprocessing.clips

    @overload
    def __getitem__(self, index: SupportsIndex) -> Sample: ...

    @overload
    def __getitem__(self, index: list[ClipRequest]) -> Batch: ...

    def __getitem__(self, index: SupportsIndex | list[ClipRequest]) -> Sample | Batch:
        """Read a view, or a batch of clips with all their crops.

        Args:
            index: Index of a view, from the end if negative; or the requests of a batch.

        Raises:
            IndexError: There is no such view.
            VideoError: A video cannot be read, and ``on_bad_video`` is ``"error"``.
        """
        if not isinstance(index, list):
            clip, crop = divmod(position(index, len(self)), self.preprocessing.crops)
            views, _ = self._views(ClipRequest(clip, self.preprocessing.shape, 0))
            return sample(views[crop])
        clips: list[Clip] = []
        bad: list[str] = []
        for request in index:
            views, error = self._views(request)
            clips += views
            if error is not None:
                bad.append(str(error))
        return collate(clips, len(index), bad)

    def _views(self, request: ClipRequest) -> tuple[list[Clip], VideoError | None]:
        """Return all crops of a clip, and the error of the video if it cannot be read."""
        p = self.preprocessing
        index, clip = divmod(request.index, p.clips)
        video, counted, failure = self.videos[index], request.counted, None
        try:
            crops = self._read_crops(video, clip)
        except VideoError as error:
            if self.on_bad_video == "error":
                raise
            crops = torch.zeros(p.crops, p.frames, 3, p.crop, p.crop, dtype=torch.uint8)
            counted, failure = False, error
        return [Clip(view, video.label, index, counted, request.seed) for view in crops], failure

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


def position(index: SupportsIndex, length: int) -> int:
    """Return the place that an index of a sequence stands for.

    Raises:
        IndexError: The sequence is too short.
        TypeError: The index is not a whole number.
    """
    place = operator.index(index)
    if not -length <= place < length:
        raise IndexError(f"index {place} is out of range: the dataset has {length} samples")
    return place % length
