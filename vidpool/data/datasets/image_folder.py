"""Pictures in class folders, as ImageNet has them."""

from typing import Any, ClassVar

from vidpool.data.datasets.video_folder import VideoFolderDataModule
from vidpool.data.registry import register_datamodule
from vidpool.errors import ConfigError
from vidpool.video import IMAGE_SUFFIXES

# of ImageNet's pixels, as torchvision's image models use them
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@register_datamodule
class ImageFolderDataModule(VideoFolderDataModule):
    """Pictures below a folder, by class folders or by CSV files, as clips of one frame.

    ImageNet's usual form, and all others of
    :class:`vidpool.data.datasets.video_folder.VideoFolderDataModule`::

        root/train/n01440764/n01440764_10026.JPEG   root/val/n01440764/ILSVRC2012_val_00000293.JPEG

    Args:
        root: The folder below which the pictures lie.
        lists: The folder with the CSV files; by default ``root``.
        frames: 1, as ``stride`` and ``test_clips``.
        stride: 1.
        crop: Side of the square picture, pixels.
        short_side: In evaluation, pixels to which the shorter side is scaled before cropping.
        test_clips: 1.
        test_crops: Crops of each picture in testing, 1 or 3.
        mean: Of each channel, in [0, 1].
        std: Of each channel, in [0, 1].
        **options: See :class:`vidpool.data.listed.ListedDataModule`.

    Raises:
        ConfigError: An option is for videos alone.
        DataError: There is no folder ``root`` or ``lists``.

    Examples:
        >>> from vidpool.data.datasets.example import example_dataset
        >>> root = str(example_dataset("images"))
        >>> data = ImageFolderDataModule(root, crop=32, short_side=36, num_workers=0)
        >>> next(iter(data.val_dataloader()))["clip"].shape
        torch.Size([4, 3, 1, 32, 32])
    """

    suffixes: ClassVar[tuple[str, ...]] = IMAGE_SUFFIXES

    def __init__(
        self,
        root: str,
        lists: str | None = None,
        frames: int = 1,
        stride: int = 1,
        crop: int = 224,
        short_side: int = 256,
        test_clips: int = 1,
        test_crops: int = 1,
        mean: tuple[float, float, float] = MEAN,
        std: tuple[float, float, float] = STD,
        **options: Any,
    ) -> None:
        fixed = {"frames": frames, "stride": stride, "test_clips": test_clips}
        for name, value in fixed.items():
            if value != 1:
                raise ConfigError(f"{name} must be 1 for pictures, got {value}", argument=name)
        super().__init__(
            root,
            lists,
            **fixed,
            crop=crop,
            short_side=short_side,
            test_crops=test_crops,
            mean=mean,
            std=std,
            **options,
        )
