"""Videos of images: JPEG frames in a database, single image files, and frames in memory."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import av
import numpy as np
import torch
from av.packet import Packet
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from vidpool.errors import ConfigError, VideoError
from vidpool.video.base import Video, require_file, resize, scaled_size
from vidpool.video.pyav_video import Converter


class FramesDbVideo(Video):
    """A folder with a file ``frames.db`` and a file ``n_frames``.

    ``frames.db`` is an SQLite database whose table ``Images(ObjId, frames)`` holds a JPEG picture a
    row; ``ObjId`` ends in ``/frame_00001`` for the first. ``n_frames`` holds their number. The
    database is only read, and without locks, so many processes may do so at once.

    Such a folder does not say its frame rate.

    Args:
        path: The folder.
        length: As for :class:`~vidpool.video.base.Video`.

    Raises:
        VideoError: A file is missing, is no such database, or the number of frames is wrong.
    """

    def __init__(self, path: Path, length: int | None = None) -> None:
        super().__init__(path, length)
        if not path.is_dir():
            raise VideoError(f"{path}: is no folder with frames.db and n_frames")
        database = path / "frames.db"
        require_file(database)
        self._length = self._read_length(path / "n_frames")
        self._converter = Converter(path)
        try:
            self._connection = sqlite3.connect(
                f"file:{quote(str(database.absolute()))}?mode=ro&immutable=1", uri=True
            )
        except sqlite3.Error as error:
            raise VideoError(f"{path}: frames.db cannot be opened: {error}") from error
        try:
            self._prefix = self._read_prefix()
        except VideoError:
            self._connection.close()
            raise

    def _count(self) -> int:
        return self._require_known_length(self._length)

    def _average_rate(self) -> float:
        raise VideoError(f"{self.path}: frames.db does not say its frame rate")

    def _times(self) -> None:
        return None

    def _codec(self) -> str:
        return "mjpeg"

    def _rotation(self) -> int:
        _ = self._frame_size  # the tag comes with a decoded frame
        return self._converter.rotation

    def _decode(self, indices: list[int], short_side: int | None) -> Iterator[Tensor]:
        pictures = self._pictures(indices)
        size: tuple[int, int] | None = None
        for index in indices:
            if index not in pictures:
                raise VideoError(f"{self.path}: frames.db holds no {self._name(index)}")
            frame = self._frame(index, pictures[index])
            # a clip has one size
            size = size or scaled_size(frame.height, frame.width, short_side)
            yield self._converter.convert(index, frame, size)

    def _release(self) -> None:
        self._connection.close()

    def _read_length(self, path: Path) -> int:
        require_file(path)
        text = path.read_text(encoding="ascii", errors="replace").strip()
        if not text.isdecimal() or int(text) < 1:
            raise VideoError(f"{path}: holds {text[:40]!r} and not how many frames there are")
        return int(text)

    def _read_prefix(self) -> str:
        """Return what precedes ``frame_00001`` in names; check the number of frames."""
        rows = self._query("SELECT ObjId FROM Images LIMIT 1")
        name = str(rows[0][0]) if rows else ""
        prefix, separator, _ = name.rpartition("frame_")
        if not separator:
            raise VideoError(
                f"{self.path}: frames.db holds no row whose ObjId is like …/frame_00001"
            )
        self._prefix = prefix
        ends = [self._length - 1, self._length]
        found = {row[0] for row in self._select("ObjId", ends)}
        if found != {self._name(ends[0])}:
            raise VideoError(
                f"{self.path}: n_frames says {self._length}, but frames.db holds "
                f"{'more' if self._name(ends[1]) in found else 'fewer'} frames"
            )
        return prefix

    def _pictures(self, indices: list[int]) -> dict[int, bytes]:
        numbers = {self._name(index): index for index in indices}
        pictures: dict[int, bytes] = {}
        # SQLite takes no more than 999 values at a time in old versions
        for start in range(0, len(indices), 500):
            some = indices[start : start + 500]
            pictures |= {numbers[name]: data for name, data in self._select("ObjId, frames", some)}
        return pictures

    def _select(self, columns: str, indices: list[int]) -> list[tuple]:
        marks = ", ".join("?" * len(indices))
        return self._query(
            f"SELECT {columns} FROM Images WHERE ObjId IN ({marks})",
            [self._name(index) for index in indices],
        )

    def _query(self, query: str, values: list[str] | None = None) -> list[tuple]:
        try:
            with closing(self._connection.execute(query, values or [])) as cursor:
                return cursor.fetchall()
        except sqlite3.Error as error:
            raise VideoError(
                f"{self.path}: frames.db is not a database of frames: {error}"
            ) from error

    def _name(self, index: int) -> str:
        return f"{self._prefix}frame_{index + 1:05d}"

    def _frame(self, index: int, data: bytes) -> av.VideoFrame:
        try:
            # one decoder a picture: after a broken one, a decoder may hand out what it has left
            frames = av.CodecContext.create("mjpeg", "r").decode(Packet(data))
        except (av.FFmpegError, TypeError, ValueError) as error:
            raise VideoError(f"{self.path}: {self._name(index)} is not a JPEG picture") from error
        if not frames:
            raise VideoError(f"{self.path}: {self._name(index)} is not a JPEG picture")
        return frames[0]


class ImageFileVideo(Video):
    """An image file, such as one of ImageNet's, read by Pillow as a video of one frame.

    As in torchvision's ImageFolder, the orientation tag is ignored, so that results can be
    compared. Of an animation, only the first image is read.

    Args:
        path: The file.
        length: As for :class:`~vidpool.video.base.Video`; must be 1.

    Raises:
        VideoError: The file is missing, empty, or no image.
    """

    def __init__(self, path: Path, length: int | None = None) -> None:
        super().__init__(path, length)
        require_file(path)
        try:
            self._image = Image.open(path)
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise VideoError(f"{path}: is not a picture that Pillow can read") from error

    def _count(self) -> int:
        return self._require_known_length(1)

    def _average_rate(self) -> float:
        raise VideoError(f"{self.path}: a picture has no frame rate")

    def _times(self) -> None:
        return None

    def _codec(self) -> str | None:
        return (self._image.format or "").lower() or None

    def _rotation(self) -> int:
        return 0  # the orientation tag is ignored

    def _decode(self, indices: list[int], short_side: int | None) -> Iterator[Tensor]:
        assert indices == [0]
        try:
            pixels = np.array(self._image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise VideoError(f"{self.path}: is a damaged picture ({error})") from error
        frame = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        yield resize(frame, short_side)[0].permute(1, 2, 0)

    def _release(self) -> None:
        self._image.close()


class TensorVideo(Video):
    """Frames in memory, scaled as PyAV scales those of a file.

    Args:
        frames: uint8 RGB frames (T, 3, H, W) with T at least 1.

    Raises:
        TypeError: The frames are not uint8.
        ConfigError: The frames have another shape.
    """

    def __init__(self, frames: Tensor) -> None:
        super().__init__(Path("<tensor>"))
        if frames.dtype != torch.uint8:
            raise TypeError(f"frames must be uint8 in [0, 255], not {frames.dtype}")
        if frames.ndim != 4 or frames.shape[1] != 3 or 0 in frames.shape:
            raise ConfigError(
                f"frames must be of shape (T, 3, H, W), not {tuple(frames.shape)}", "frames"
            )
        self._frames = frames.detach().cpu()
        self._converter = Converter(self.path)

    def _count(self) -> int:
        return len(self._frames)

    def _average_rate(self) -> float:
        raise VideoError(f"{self.path}: frames in memory have no frame rate")

    def _times(self) -> None:
        return None

    def _codec(self) -> None:
        return None

    def _rotation(self) -> int:
        return 0

    def _decode(self, indices: list[int], short_side: int | None) -> Iterator[Tensor]:
        height, width = self._frames.shape[2:]
        size = scaled_size(height, width, short_side)
        for index in indices:
            pixels = self._frames[index].permute(1, 2, 0).contiguous().numpy()
            yield self._converter.convert(index, av.VideoFrame.from_ndarray(pixels), size)

    def _release(self) -> None:
        del self._frames
