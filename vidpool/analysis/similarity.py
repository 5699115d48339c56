"""Similarity of images before and after pooling: SSIM and PSNR, as in Tables 1 and 3."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from vidpool.analysis.image_pooling import Setting, pool_and_enlarge
from vidpool.analysis.images import read_image
from vidpool.analysis.published import SIMILARITY_KERNELS
from vidpool.data.parallel import in_processes
from vidpool.data.schedule import mix_seeds
from vidpool.errors import ConfigError, DataError
from vidpool.figures import BLUE, GREEN, GREY, ORANGE, plain_text

WINDOW = 11
"""Pixels of SSIM's Gaussian window, standard deviation 1.5 (Wang et al., 2004)."""
STRIP = 512
"""Rows whose SSIM is computed at a time, which limits the memory for large images."""
ROUNDING = 1e-6
"""Root mean square rounding error of float32 for an unchanged image."""
MEASURES = ("SSIM", "PSNR")
CONFIDENCE = 0.95
COLOURS = (BLUE, ORANGE, GREEN, GREY)
AXIS_LIMITS = {"SSIM": 1.01, "PSNR": 70}
"""Largest upper ends of the chart's axes."""


class Similarity(NamedTuple):
    """Similarity of an image and its pooled and enlarged version."""

    ssim: float
    """At most 1."""
    psnr: float
    """Decibels; infinite if the images are equal."""


def similarity(original: Tensor, pooled: Tensor) -> Similarity:
    """Compare two images by SSIM and PSNR.

    SSIM is computed by scikit-image with the settings of Wang et al.: Gaussian window of 11 x 11
    pixels with standard deviation 1.5, K1 = 0.01, K2 = 0.03, without borders of 5 pixels. It is
    averaged over the channels. PSNR uses the mean squared error over all pixels and channels and a
    peak of 1.

    Args:
        original: float32 (3, H, W) in [0, 1], at least 11 x 11 pixels.
        pooled: Tensor of the same shape.

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
    # a row of the SSIM map depends on 5 rows on both sides, so strips overlap by 10
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
    num_workers: int = 1,
) -> Iterator[tuple[Path, dict[Setting, Similarity] | DataError]]:
    """Pool images in each setting and compare the results with the originals.

    Args:
        images: Image files.
        layers: Pooling layer of each setting.
        seed: Seed of stochastic methods, whose draws do not depend on ``num_workers``.
        num_workers: Number of processes; 1 uses this process.

    Yields:
        An image file and its similarities, or the error that prevents them, in any order.
    """
    items = [(mix_seeds(seed, number), image) for number, image in enumerate(images)]
    function = partial(_measure, layers)
    if num_workers == 1:
        for item in items:
            try:
                yield item[1], function(item)
            except DataError as error:
                yield item[1], error
        return
    for (_, image), result in in_processes(function, items, num_workers):
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


def confidence_half_width(values: Sequence[float] | np.ndarray) -> float:
    """Return half the width of Student's 95 % confidence interval of the mean.

    Args:
        values: Independent values, two or more.
    """
    from scipy.stats import t

    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error


@dataclass(frozen=True)
class Mean:
    """A mean over images."""

    mean: float | None
    """None if there are no finite values."""
    half_width: float | None
    """Half the 95 % confidence interval by Student's t over images; None for fewer than 2."""
    images: int
    """Number of finite values. PSNR is infinite for images that pooling does not change."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Return the mean of the finite values."""
        finite = np.array([value for value in values if math.isfinite(value)])
        if not len(finite):
            return cls(None, None, 0)
        half_width = confidence_half_width(finite) if len(finite) > 1 else None
        return cls(float(finite.mean()), half_width, len(finite))


def summarize(
    results: Mapping[Path, Mapping[Setting, Similarity]],
) -> dict[Setting, tuple[Mean, Mean]]:
    """Return mean SSIM and PSNR of each setting over images."""
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
    """Return by how much a method exceeds each other method in SSIM and PSNR, paired by image.

    Pairing is needed because images differ more than methods do: the confidence intervals of two
    means may overlap although that of the paired difference excludes 0.

    Args:
        results: Similarities by image and setting, see :func:`measure_images`.
        method: Method from which the others are subtracted.
    """
    differences: dict[Setting, tuple[Mean, Mean]] = {}
    for setting in summarize(results):
        own = Setting(method, setting.kernel_size)
        if setting == own or any(own not in result for result in results.values()):
            continue
        pairs = [(result[own], result[setting]) for result in results.values()]
        differences[setting] = (
            Mean.of([ours.ssim - other.ssim for ours, other in pairs]),
            Mean.of([ours.psnr - other.psnr for ours, other in pairs]),
        )
    return differences


def similarity_chart(
    summary: Mapping[Setting, tuple[Mean, Mean]],
    names: Mapping[str, str],
    published: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
) -> Figure:
    """Draw the means of SSIM on the left and of PSNR on the right, one row per method.

    Bars through the dots are 95 % confidence intervals; hollow diamonds are the paper's values.

    Args:
        summary: Means by setting, see :func:`summarize`.
        names: Display name of each method, in the order of the rows.
        published: SSIM and PSNR of each method, one pair for each of ``SIMILARITY_KERNELS``.
        title: Title of the figure.
    """
    kernel_sizes = list(dict.fromkeys(setting.kernel_size for setting in summary))
    figure = Figure(figsize=(12, 1.8 + 0.42 * len(names)), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, 2, sharey=True)
    for which, (axes, measure) in enumerate(zip(panels, MEASURES, strict=True)):
        for number, kernel_size in enumerate(kernel_sizes):
            colour = COLOURS[number % len(COLOURS)]
            shift = 0.2 * (number - (len(kernel_sizes) - 1) / 2)
            rows = [
                (place + shift, summary[Setting(method, kernel_size)][which])
                for place, method in enumerate(names)
                if Setting(method, kernel_size) in summary
            ]
            drawn = [(place, mean) for place, mean in rows if mean.mean is not None]
            axes.errorbar(
                [mean.mean or 0.0 for _, mean in drawn],
                [place for place, _ in drawn],
                xerr=[mean.half_width or 0.0 for _, mean in drawn],
                fmt="o",
                markersize=4,
                capsize=2,
                color=colour,
                label=f"k = {kernel_size}, measured",
            )
            if kernel_size not in SIMILARITY_KERNELS:
                continue
            column = SIMILARITY_KERNELS.index(kernel_size)
            places = [i for i, method in enumerate(names) if method in published]
            axes.scatter(
                [published[method][column][which] for method in names if method in published],
                [place + shift for place in places],
                marker="D",
                s=22,
                facecolors="none",
                edgecolors=colour,
                label=f"k = {kernel_size}, the paper's",
            )
        for place in range(1, len(names)):
            axes.axhline(place - 0.5, color="black", alpha=0.15, linewidth=0.6)
        axes.set_xlabel(measure + (", dB" if measure == "PSNR" else ""))
        # intervals over few images exceed the possible range and would compress the rest
        left, right = axes.get_xlim()
        axes.set_xlim(max(left, 0), min(right, AXIS_LIMITS[measure]))
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(names)), list(names.values()))
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    figure.suptitle(plain_text(title))
    handles, labels = panels[0].get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i])  # by k
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside lower center",
        ncols=max(1, len(kernel_sizes)),
    )
    return figure
