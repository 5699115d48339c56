"""Pictures, read as videos of one frame."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from vidpool.errors import VideoError
from vidpool.video.base import Video, require_file, resize

PICTURE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


class PictureFile(Video):
    """A picture, such as one of ImageNet's: a video of one frame.

    Pillow reads it. Like torchvision's ImageFolder it is taken as it is stored, whatever its
    orientation tag says, so that results can be compared; of an animation the first picture counts.

    Args:
        path: The file.
        length: As for :class:`~vidpool.video.base.Video`; nothing but 1 is right.

    Raises:
        VideoError: The file is missing, empty, or no picture.
    """

    def __init__(self, path: Path, length: int | None = None) -> None:
        super().__init__(path, length)
        require_file(path)
        try:
            self._picture = Image.open(path)
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise VideoError(f"{path}: is not a picture that Pillow can read") from error

    def _count(self) -> int:
        return self._checked(1)

    def _average_rate(self) -> float:
        raise VideoError(f"{self.path}: a picture has no frame rate")

    def _times(self) -> None:
        return None

    def _decode(self, indices: list[int], short_side: int | None) -> Iterator[Tensor]:
        assert indices == [0]
        try:
            pixels = np.array(self._picture.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise VideoError(f"{self.path}: is a damaged picture ({error})") from error
        frame = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        yield resize(frame, short_side)[0].permute(1, 2, 0)

    def _release(self) -> None:
        self._picture.close()
