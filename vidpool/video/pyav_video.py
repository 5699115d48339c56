"""Frame-accurate decoding with PyAV."""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import torch
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from torch import Tensor

from vidpool.errors import VideoError
from vidpool.video.base import Video, decoding, require_file, scaled_size
from vidpool.video.pyav_access import CountedFrames, TabledFrames
from vidpool.video.pyav_source import Source
from vidpool.video.pyav_table import FrameTable, read_table
from vidpool.video.times import StampTimes

MAX_PIXEL_ASPECT = 16
"""Largest sample aspect ratio that is accepted; headers may be damaged."""

SIDE_DATA_KINDS = 64
"""More kinds of side data than there are in FFmpeg."""


class PyAVVideo(Video):
    """A video read by PyAV, in one thread.

    Of several video streams it reads the one that FFmpeg holds to be the best: the default one, or
    else the one with the highest bit rate. Where time stamps or the kinds of pictures tell which
    packet shows which frame, frames are found by that, otherwise by counting from the start: see
    :mod:`vidpool.video.pyav_table`.

    A file cut short is read up to where it ends. Damage in the middle fails on the frames it hits,
    which may be all of them up to the next key frame.

    Args:
        path: The file.
        length: As for :class:`~vidpool.video.base.Video`.
        fast: See :func:`vidpool.video.open_video`.
        square_pixels: See there.
    """

    def __init__(
        self,
        path: Path,
        length: int | None = None,
        fast: bool = False,
        square_pixels: bool = False,
    ) -> None:
        super().__init__(path, length)
        require_file(path)
        self._source = Source(path, fast)
        self._converter = Converter(path)
        self._square_pixels = square_pixels

    @cached_property
    def _table(self) -> FrameTable | None:
        return read_table(self._source)

    @property
    def stamps(self) -> StampTimes | None:
        """Time stamps of all frames, where they can be trusted."""
        self._require_open()
        with decoding(self.path):
            return self._times()

    @property
    def cut_from(self) -> int | None:
        """See :class:`~vidpool.video.base.Video`."""
        length = len(self)
        with decoding(self.path):
            if not self._source.breaks_off:
                return None
            declared = self._source.declared_packets
            if self._table is not None:  # not every packet need be shown
                declared += len(self._table.packets) - len(self._table.numbers)
            return declared if declared > length else None

    @cached_property
    def _access(self) -> TabledFrames | CountedFrames:
        if self._table is None:
            return CountedFrames(self._source, self._known_length)
        return TabledFrames(self._source, self._table, self._known_length)

    def _count(self) -> int:
        return len(self._access)

    def _average_rate(self) -> float:
        rate = self._source.declared_rate
        if not rate:
            raise VideoError(f"{self.path}: does not say its frame rate")
        return float(rate)

    def _times(self) -> StampTimes | None:
        return self._table.times if self._table else None

    def _codec(self) -> str:
        return self._source.codec_name

    def _rotation(self) -> int:
        _ = self._frame_size  # the tag comes with a decoded frame
        return self._converter.rotation

    def _decode(self, indices: list[int], short_side: int | None) -> Iterator[Tensor]:
        # a stream may change its picture size on the way, but a clip has one
        height, width = self._source.picture_size
        if self._square_pixels:
            ratio = self._source.sample_aspect_ratio
            if not 1 / MAX_PIXEL_ASPECT <= ratio <= MAX_PIXEL_ASPECT:
                raise VideoError(f"{self.path}: declares pixels of {ratio} times their height")
            width = max(1, round(width * ratio))
        size = scaled_size(height, width, short_side)
        for index, frame in zip(indices, self._access.read(indices), strict=True):
            yield self._converter.convert(index, frame, size)

    def _release(self) -> None:
        if "_access" in self.__dict__:  # do not read the file only to close it
            self._access.close()
        self._source.close()


class Converter:
    """Makes RGB pictures of the frames of a video.

    Args:
        path: What the frames are from, for errors.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reformatter = VideoReformatter()
        self._matrix: list[int] | None = None
        self._matrix_is_known = False

    @property
    def rotation(self) -> int:
        """Degrees by which frames are turned counter-clockwise, once one has been converted."""
        return matrix_rotation(self._matrix) if self._matrix else 0

    def convert(self, index: int, frame: av.VideoFrame, size: tuple[int, int]) -> Tensor:
        """Scale a frame, and turn it as the video's rotation tag says.

        Args:
            index: The frame's number, for errors.
            frame: Of any pixel format.
            size: Height and width before turning.

        Returns:
            uint8, shape ``(H, W, 3)``, or ``(W, H, 3)`` after a quarter turn.

        Raises:
            VideoError: There is no way from its pixel format to RGB.
        """
        height, width = size
        try:
            # loader workers share the cores already: threads add work here and no speed
            rgb = self._reformatter.reformat(frame, width, height, "rgb24", threads=1)
            if not self._matrix_is_known:
                self._matrix = display_matrix(frame)
                self._matrix_is_known = True
        except av.FFmpegError as error:
            raise VideoError(
                f"{self._path}: frame {index} cannot be converted to RGB: {error.strerror}"
            ) from error
        picture = rgb.to_ndarray()
        return torch.from_numpy(upright(picture, self._matrix) if self._matrix else picture)


def display_matrix(frame: av.VideoFrame) -> list[int] | None:
    """Return how a frame is to be turned, or ``None``: a point (x, y) goes to (ax + cy, bx + dy).

    Unlike ``VideoFrame.rotation``, the matrix tells a mirrored picture from one turned by 180
    degrees.

    Returns:
        ``[a, b, c, d]``.
    """
    # A frame whose side data were looked at stays in memory until the garbage collector comes, so
    # that is done with a small one. PyAV's annotation leaves out all side data but motion vectors.
    small = frame.reformat(2, 2, "gray", threads=1)
    try:
        side_data = small.side_data
    except ValueError:
        side_data = _without_unknown(small).side_data
    matrix = cast("Mapping[str, bytes]", side_data).get("DISPLAYMATRIX")
    if matrix is None:
        return None
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()
    return [a, b, c, d]


def matrix_rotation(matrix: list[int]) -> int:
    """Return the degrees by which a display matrix turns a picture counter-clockwise.

    Of a matrix that also mirrors, it is the turn after the picture is flipped upside down.

    Returns:
        0, 90, 180 or 270; angles between the quarter turns go to the nearest, as in
        :func:`upright`.
    """
    a, b, _, _ = matrix
    if abs(b) > abs(a):
        return 90 if b < 0 else 270
    return 180 if a < 0 else 0


def _without_unknown(frame: av.VideoFrame) -> av.VideoFrame:
    """Take away side data of kinds that PyAV has no name for, as it then shows none at all."""
    graph = Graph()
    filters = [
        graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)
        )
    ]
    for kind in set(range(SIDE_DATA_KINDS)) - {known.value for known in Type}:
        filters.append(graph.add("sidedata", f"mode=delete:type={kind}"))
    graph.link_nodes(*filters, graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()


def upright(picture: NDArray[Any], matrix: list[int]) -> NDArray[Any]:
    """Turn and mirror a picture (H, W, 3) as a display matrix says.

    Angles between the quarter turns go to the nearest.
    """
    a, b, c, d = matrix
    if abs(b) > abs(a):
        picture = picture.swapaxes(0, 1)
        flip_x, flip_y = c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return picture[:: -1 if flip_y else 1, :: -1 if flip_x else 1].copy()
