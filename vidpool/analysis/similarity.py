"""How much of an image is left after pooling: SSIM and PSNR, as in Tables 1 and 3."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vidpool.analysis.images import read_image
from vidpool.analysis.pooled import make_layer, pool_and_enlarge
from vidpool.data.parallel import in_processes
from vidpool.data.schedule import mix_seeds
from vidpool.errors import ConfigError, DataError

WINDOW = 11
"""Pixels of SSIM's Gaussian window, standard deviation 1.5 (Wang et al., 2004)."""
STRIP = 512
"""Rows whose SSIM is computed at a time, which bounds the memory that large images take."""
ROUNDING = 1e-6
"""Root mean square error that float32 may make of an image that is left as it was."""
MEASURES = ("SSIM", "PSNR")


class Setting(NamedTuple):
    """A pooling method with a window."""

    method: str
    kernel_size: int


class Similarity(NamedTuple):
    """Between an image and itself after pooling and enlarging."""

    ssim: float
    """At most 1."""
    psnr: float
    """Decibels; infinite where nothing was lost."""


def similarity(original: Tensor, pooled: Tensor) -> Similarity:
    """Compare two images by SSIM and PSNR.

    SSIM is the mean over the channels, with the settings of Wang et al.: Gaussian window of 11 x 11
    pixels with standard deviation 1.5, K1 = 0.01, K2 = 0.03, borders of 5 pixels left out. PSNR is
    of the mean squared error over all pixels and channels, for a peak of 1. Both by scikit-image.

    Args:
        original: float32 (3, H, W) in [0, 1], at least 11 x 11 pixels.
        pooled: Of the same shape.

    Raises:
        ConfigError: scikit-image is not installed.
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError:
        raise ConfigError(
            "scikit-image is not installed, which computes SSIM: pip install 'vidpool[analysis]'"
        ) from None
    error = float((original - pooled).double().square().mean())
    a, b = original.numpy(), pooled.numpy()
    total, rows = 0.0, 0
    # a row of the SSIM map sees 5 rows on both sides, so strips overlap by 10
    for top in range(0, a.shape[1] - WINDOW + 1, STRIP):
        strip = slice(top, top + STRIP + WINDOW - 1)
        value = structural_similarity(
            a[:, strip],
            b[:, strip],
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        count = a[:, strip].shape[1] - WINDOW + 1
        total, rows = total + float(value) * count, rows + count
    lossless = error < ROUNDING**2
    return Similarity(total / rows, math.inf if lossless else -10 * math.log10(error))


def measure_images(
    images: Sequence[Path],
    layers: Mapping[Setting, nn.Module],
    seed: int = 0,
    workers: int = 1,
) -> Iterator[tuple[Path, dict[Setting, Similarity] | DataError]]:
    """Pool images in every setting and compare them with what they were.

    Args:
        images: Image files.
        layers: The pooling layer of each setting.
        seed: Of what stochastic methods draw, which is the same with any number of workers.
        workers: Processes; 1 is this one.

    Yields:
        An image and its similarities, or why it cannot be measured; in any order.
    """
    items = [(mix_seeds(seed, number), image) for number, image in enumerate(images)]
    function = partial(_measure, layers)
    if workers == 1:
        for item in items:
            try:
                yield item[1], function(item)
            except DataError as error:
                yield item[1], error
        return
    for (_, image), result in in_processes(function, items, workers):
        if isinstance(result, Exception) and not isinstance(result, DataError):
            raise result
        yield image, result


def _measure(
    layers: Mapping[Setting, nn.Module], item: tuple[int, Path]
) -> dict[Setting, Similarity]:
    seed, file = item
    image = read_image(file)
    least = max(WINDOW, *(kernel_size for _, kernel_size in layers))
    if min(image.shape[1:]) < least:
        raise DataError(
            f"{file}: is smaller than {least} x {least} pixels, a window of SSIM's or of the "
            "pooling"
        )
    with torch.no_grad():
        return {
            setting: similarity(image, pool_and_enlarge(image, layer, seed))
            for setting, layer in layers.items()
        }


def make_layers(
    methods: Sequence[str], kernel_sizes: Sequence[int], seed: int = 0, dimensions: int = 2
) -> dict[Setting, nn.Module]:
    """A layer for each setting; those that a method has no layer for are left out.

    Args:
        methods: Short names of ``vidpool.nn.POOLING_METHODS``.
        kernel_sizes: Window sizes.
        seed: Of parameters that begin at random.
        dimensions: 2 for pictures, 3 for clips.

    Raises:
        ConfigError: A method is unknown, or cannot pool by any of the window sizes.
    """
    layers: dict[Setting, nn.Module] = {}
    for method in methods:
        reason = None
        for kernel_size in kernel_sizes:
            try:
                layers[Setting(method, kernel_size)] = make_layer(
                    method, kernel_size, dimensions, seed
                )
            except ConfigError as error:
                reason = error
        if reason and not any(setting.method == method for setting in layers):
            raise reason
    return layers


@dataclass(frozen=True)
class Mean:
    """A mean over images."""

    mean: float | None
    """None where there is nothing to take it of."""
    half_width: float | None
    """Of the 95 % confidence interval by Student's t over images; None for fewer than 2."""
    images: int
    """How many finite values it is of: PSNR is infinite where an image is left as it was."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """The mean of the finite ones among some values."""
        finite = np.array([value for value in values if math.isfinite(value)])
        if not len(finite):
            return cls(None, None, 0)
        half_width = None
        if len(finite) > 1:
            from scipy.stats import t

            error = finite.std(ddof=1) / math.sqrt(len(finite))
            half_width = float(t.ppf(0.975, len(finite) - 1) * error)
        return cls(float(finite.mean()), half_width, len(finite))


def summarise(
    results: Mapping[Path, Mapping[Setting, Similarity]],
) -> dict[Setting, tuple[Mean, Mean]]:
    """Mean SSIM and PSNR of each setting over images."""
    settings = dict.fromkeys(setting for result in results.values() for setting in result)
    return {
        setting: (
            Mean.of([result[setting].ssim for result in results.values()]),
            Mean.of([result[setting].psnr for result in results.values()]),
        )
        for setting in settings
    }


def compare_with(
    results: Mapping[Path, Mapping[Setting, Similarity]], method: str
) -> dict[Setting, tuple[Mean, Mean]]:
    """How much more SSIM and PSNR one method has than each other, paired by image.

    Images differ more from each other than methods do, so that the intervals of means overlap
    where these do not.

    Args:
        results: See :func:`measure_images`.
        method: The one that the others are subtracted from.
    """
    differences: dict[Setting, tuple[Mean, Mean]] = {}
    for setting in summarise(results):
        own = Setting(method, setting.kernel_size)
        if setting == own or any(own not in result for result in results.values()):
            continue
        pairs = [(result[own], result[setting]) for result in results.values()]
        differences[setting] = (
            Mean.of([ours.ssim - other.ssim for ours, other in pairs]),
            Mean.of([ours.psnr - other.psnr for ours, other in pairs]),
        )
    return differences
