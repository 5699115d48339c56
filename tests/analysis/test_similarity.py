import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.image import structural_similarity_index_measure

from vidpool.analysis import similarity as module
from vidpool.analysis.image_pooling import Setting, make_layers
from vidpool.analysis.images import find_images
from vidpool.analysis.published import SIMILARITY_KERNELS, TABLES_1_3
from vidpool.analysis.similarity import (
    Mean,
    Similarity,
    compare_with,
    measure_images,
    similarity,
)
from vidpool.errors import DataError

pytest.importorskip("skimage")
PAPER = Path(__file__).parents[3] / "shared" / "paper.txt"


def test_ssim_is_that_of_torchmetrics_whatever_the_strips(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    original = torch.rand(3, 45, 31, generator=generator)
    pooled = (original + 0.2 * torch.randn(3, 45, 31, generator=generator)).clamp(0, 1)
    _, everywhere = structural_similarity_index_measure(
        pooled[None], original[None], data_range=1.0, return_full_image=True
    )
    expected = everywhere[..., 5:-5, 5:-5].mean()
    for strip in (1, 7, 35, 512):
        monkeypatch.setattr(module, "STRIP", strip)
        assert similarity(original, pooled).ssim == pytest.approx(float(expected), abs=2e-5)
    error = float((original - pooled).square().mean())
    assert similarity(original, pooled).psnr == pytest.approx(10 * math.log10(1 / error))


def test_nothing_is_lost_of_a_picture_of_equal_pixels():
    image = torch.rand(3, 6, 7).repeat_interleave(2, 1).repeat_interleave(2, 2)
    (layer,) = make_layers(["avg"], [2]).values()
    assert similarity(image, module.pool_and_enlarge(image, layer)) == (1.0, math.inf)


def test_average_pooling_has_the_least_squared_error(images):
    """No value of a window is nearer to its pixels than their mean, so no PSNR can be higher."""
    layers = make_layers(["avg", "soft", "max", "lp", "gated", "dpp", "stochastic"], [2, 3, 5])
    for _, result in measure_images(find_images([images]), layers):
        for setting, value in result.items():
            assert value.psnr <= result[Setting("avg", setting.kernel_size)].psnr + 1e-4


def test_the_same_on_two_processes(images):
    layers = make_layers(["soft", "stochastic", "s3", "lift"], [2])
    files = find_images([images])
    alone = dict(measure_images(files, layers, seed=3))
    assert dict(measure_images(files, layers, seed=3, num_workers=2)) == alone
    assert dict(measure_images(files, layers, seed=4)) != alone


def test_images_that_cannot_be_measured_are_told(images):
    (images / "broken.png").write_text("<html>")
    # ten rows are one less than SSIM's window
    from PIL import Image

    Image.new("RGB", (40, 10)).save(images / "low.png")
    results = dict(measure_images(find_images([images]), make_layers(["max"], [2])))
    assert isinstance(results[images / "broken.png"], DataError)
    assert "smaller than 11 x 11 pixels" in str(results[images / "low.png"])
    assert isinstance(results[images / "smooth.png"], dict)


@settings(max_examples=30)
@given(st.lists(st.floats(-50, 50), min_size=2, max_size=30))
def test_intervals_are_those_of_scipy(values):
    from scipy.stats import ttest_1samp

    mean = Mean.of([*values, math.inf])
    assert mean.images == len(values)
    assert mean.mean == pytest.approx(np.mean(values), abs=1e-9)
    if np.std(values) > 1e-6:
        low, high = ttest_1samp(values, 0).confidence_interval(0.95)
        assert mean.half_width == pytest.approx((high - low) / 2, rel=1e-6)


def test_differences_are_paired():
    results = {
        Path(str(i)): {Setting("soft", 2): Similarity(s, 20.0), Setting("max", 2): Similarity(m, m)}
        for i, (s, m) in enumerate([(0.9, 0.8), (0.5, 0.4)])
    }
    ((setting, (ssim, _)),) = compare_with(results, "soft").items()
    assert setting == ("max", 2)
    assert ssim.mean == pytest.approx(0.1)
    assert ssim.half_width == pytest.approx(0, abs=1e-9)
    assert Mean.of([math.inf]) == Mean(None, None, 0)


@pytest.mark.skipif(not PAPER.exists(), reason="needs shared/paper.txt")
def test_published_values_are_the_papers():
    text = PAPER.read_text(encoding="utf-8")
    table_1 = text[text.index("DIV2K [1] Urban100") : text.index("Table 1: Quant")]
    table_3 = text[text.index("Flicker2K[1]") : text.index("Table 3: Latency")]
    methods = list(TABLES_1_3["DIV2K"])
    for table, sets in ((table_1, ["DIV2K", "Urban100", "Manga109"]), (table_3, ["Flickr2K"])):
        count = 2 * len(SIMILARITY_KERNELS) * len(sets)
        rows = re.findall(rf"((?: \d+\.\d+){{{count}}})(?=\n)", table)
        printed = [[float(number) for number in row.split()] for row in rows]
        ours = [
            [number for name in sets for pair in TABLES_1_3[name][method] for number in pair]
            for method in ["avg", "max", *(m for m in methods if m not in ("avg", "max"))]
        ]
        assert printed == ours
