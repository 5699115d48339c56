"""The numbers of "Refining activation downsampling with SoftPool", by the number of their table.

Misprints are kept as they are printed; :func:`vidpool.analysis.mcnemar.find_misprints` lists them.
"""

from typing import NamedTuple

SIMILARITY_KERNELS = (2, 3, 5)
"""Window sizes of Tables 1 and 3; the strides are equal to them."""

TABLES_1_3: dict[str, dict[str, tuple[tuple[float, float], ...]]] = {
    "DIV2K": {
        "avg": ((0.714, 51.247), (0.578, 44.704), (0.417, 29.223)),
        "max": ((0.685, 49.826), (0.370, 41.944), (0.358, 22.041)),
        "power": ((0.419, 35.587), (0.286, 26.329), (0.178, 16.567)),
        "sum": ((0.408, 35.153), (0.268, 26.172), (0.193, 17.315)),
        "lp": ((0.686, 49.912), (0.542, 43.083), (0.347, 25.139)),
        "gated": ((0.689, 50.104), (0.560, 43.437), (0.353, 25.672)),
        "dpp": ((0.702, 50.598), (0.562, 44.076), (0.396, 27.421)),
        "lip": ((0.711, 50.831), (0.559, 44.432), (0.401, 28.285)),
        "stochastic": ((0.631, 45.362), (0.479, 39.895), (0.295, 21.314)),
        "s3": ((0.609, 44.760), (0.454, 39.326), (0.280, 20.773)),
        "soft": ((0.729, 51.436), (0.594, 44.747), (0.421, 29.583)),
    },
    "Urban100": {
        "avg": ((0.691, 50.380), (0.563, 41.745), (0.372, 28.270)),
        "max": ((0.662, 48.266), (0.528, 40.709), (0.330, 20.654)),
        "power": ((0.312, 31.911), (0.219, 24.698), (0.124, 15.659)),
        "sum": ((0.301, 31.657), (0.208, 24.735), (0.123, 15.243)),
        "lp": ((0.676, 48.508), (0.534, 39.986), (0.326, 26.365)),
        "gated": ((0.675, 49.769), (0.537, 40.422), (0.328, 26.731)),
        "dpp": ((0.684, 49.947), (0.551, 40.813), (0.365, 27.136)),
        "lip": ((0.689, 50.266), (0.558, 41.159), (0.370, 27.849)),
        "stochastic": ((0.616, 44.342), (0.463, 37.223), (0.286, 19.358)),
        "s3": ((0.608, 44.239), (0.459, 36.965), (0.272, 19.645)),
        "soft": ((0.694, 50.687), (0.578, 41.851), (0.394, 28.326)),
    },
    "Manga109": {
        "avg": ((0.695, 54.326), (0.582, 43.657), (0.396, 29.862)),
        "max": ((0.671, 50.085), (0.544, 41.128), (0.324, 22.307)),
        "power": ((0.381, 29.248), (0.276, 18.874), (0.160, 9.266)),
        "sum": ((0.374, 30.169), (0.271, 20.150), (0.168, 13.081)),
        "lp": ((0.675, 51.721), (0.561, 41.824), (0.367, 27.469)),
        "gated": ((0.679, 51.980), (0.569, 42.127), (0.374, 27.754)),
        "dpp": ((0.691, 52.646), (0.573, 42.794), (0.386, 28.598)),
        "lip": ((0.689, 53.537), (0.579, 43.018), (0.391, 29.331)),
        "stochastic": ((0.583, 46.274), (0.427, 39.259), (0.255, 22.953)),
        "s3": ((0.576, 46.613), (0.426, 39.866), (0.232, 23.242)),
        "soft": ((0.704, 54.563), (0.586, 43.782), (0.403, 30.114)),
    },
    "Flickr2K": {
        "avg": ((0.709, 51.786), (0.572, 44.246), (0.408, 28.957)),
        "max": ((0.674, 47.613), (0.385, 40.735), (0.329, 21.368)),
        "power": ((0.392, 34.319), (0.271, 26.820), (0.163, 15.453)),
        "sum": ((0.386, 34.173), (0.265, 26.259), (0.161, 15.218)),
        "lp": ((0.683, 48.617), (0.437, 42.079), (0.341, 24.432)),
        "gated": ((0.687, 49.314), (0.449, 42.722), (0.358, 25.687)),
        "dpp": ((0.691, 50.586), (0.534, 43.608), (0.385, 27.430)),
        "lip": ((0.696, 50.947), (0.548, 43.882), (0.390, 28.134)),
        "stochastic": ((0.625, 46.714), (0.474, 38.365), (0.264, 21.428)),
        "s3": ((0.611, 46.547), (0.476, 37.706), (0.252, 21.363)),
        "soft": ((0.721, 52.356), (0.587, 44.893), (0.416, 29.341)),
    },
}
"""SSIM and PSNR in dB for each window size, by image dataset and method.

Flickr2K is from Table 3 ("Flicker2K" there), the others are from Table 1. The tables name one
method differently: ``dpp`` is "Lite-S3DPP" and "DPP".
"""


class Latency(NamedTuple):
    """Latencies of a pooling method in Table 3, in milliseconds."""

    cpu_forward: float
    cpu_backward: float
    cuda_forward: float
    cuda_backward: float


TABLE_3_LATENCY = {
    "avg": Latency(9, 49, 14, 76),
    "max": Latency(91, 152, 195, 267),
    "power": Latency(74, 329, 120, 433),
    "sum": Latency(26, 163, 79, 323),
    "lp": Latency(116, 338, 214, 422),
    "gated": Latency(245, 339, 327, 540),
    "dpp": Latency(427, 860, 634, 1228),
    "lip": Latency(134, 257, 258, 362),
    "stochastic": Latency(162, 341, 219, 485),
    "s3": Latency(233, 410, 345, 486),
    "soft": Latency(31, 156, 56, 234),
}
"""Latencies of Table 3 as printed, where each method is slower on CUDA than on the CPU.

The paper states neither the layer nor the window. It used 2080 Ti GPUs and a Threadripper 2950X,
float16 and batches of 64 images (S7).
"""


class ErrorCounts(NamedTuple):
    """A row of Table 4 and its counts from Table S1: two networks on 50,000 images.

    In the names of the counts, the first word is the result of the SoftPool network and the second
    that of the original one: ``correct_wrong`` counts images that only the SoftPool network
    classifies correctly.
    """

    network: str
    correct_correct: int
    correct_wrong: int
    wrong_correct: int
    wrong_wrong: int
    soft_totals: tuple[int, int]
    """Sums of correct and wrong for the SoftPool network, as printed."""
    original_totals: tuple[int, int]
    statistic: str
    """Chi-square, as printed in Table 4."""
    p_value: str
    """As printed, with an ASCII minus sign."""
    top1: tuple[float, float]
    """Accuracy of the original and of the SoftPool network in percent (Tables 2, 5 and 6)."""


TABLE_S1 = (
    ErrorCounts(
        "ResNet18",
        31838,
        3795,
        3011,
        11356,
        (35633, 14367),
        (34849, 15151),
        "90.08",
        "2.28e-21",
        (69.76, 71.27),
    ),
    ErrorCounts(
        "ResNet34",
        34090,
        3246,
        2940,
        9724,
        (37336, 12664),
        (37030, 12970),
        "15.04",
        "1.05e-4",
        (73.3, 74.67),
    ),
    ErrorCounts(
        "ResNet50",
        35472,
        3203,
        2603,
        8722,
        (38675, 11325),
        (38075, 11925),
        "61.80",
        "3.80e-15",
        (76.15, 77.35),
    ),
    ErrorCounts(
        "ResNet101",
        36553,
        2609,
        2272,
        8566,
        (39162, 10838),
        (38825, 11175),
        "23.13",
        "1.51e-6",
        (77.37, 78.32),
    ),
    ErrorCounts(
        "ResNet152",
        37247,
        2373,
        1908,
        8472,
        (39620, 10380),
        (39155, 10845),
        "50.29",
        "1.32e-12",
        (78.31, 79.24),
    ),
    ErrorCounts(
        "DenseNet121",
        34097,
        3836,
        2253,
        9814,
        (37933, 12067),
        (36350, 13650),
        "411.02",
        "2.19-91",
        (74.65, 75.88),
    ),
    ErrorCounts(
        "DenseNet161",
        35160,
        4237,
        3631,
        6972,
        (39397, 10603),
        (38791, 11209),
        "46.52",
        "9.06e-12",
        (77.65, 78.72),
    ),
    ErrorCounts(
        "DenseNet169",
        35074,
        3407,
        2988,
        8531,
        (38481, 11519),
        (38062, 11938),
        "27.32",
        "1.72e-7",
        (76.0, 76.95),
    ),
    ErrorCounts(
        "ResNeXt50 32x4d",
        36628,
        2618,
        2153,
        8601,
        (39246, 10754),
        (38781, 11219),
        "45.13",
        "1.85e-11",
        (77.62, 78.48),
    ),
    ErrorCounts(
        "ResNeXt101 32x8d",
        38633,
        2587,
        1005,
        7775,
        (41220, 8780),
        (39638, 10362),
        "695.87",
        "2.36e-53",
        (79.31, 80.12),
    ),
    ErrorCounts(
        "wide-ResNet50",
        36638,
        3113,
        2636,
        7613,
        (39751, 10249),
        (38781, 10726),
        "39.41",
        "3.43e-10",
        (78.51, 79.52),
    ),
    ErrorCounts(
        "InceptionV1",
        31826,
        3897,
        3037,
        11240,
        (35723, 14277),
        (34863, 15137),
        "106.41",
        "5.98e-25",
        (69.78, 71.43),
    ),
    ErrorCounts(
        "InceptionV3",
        36341,
        3029,
        2370,
        8260,
        (14874, 10630),
        (38711, 11289),
        "80.19",
        "3.39e-19",
        (77.45, 79.04),
    ),
)


class PublishedRow(NamedTuple):
    """A row of Table 7, and the corresponding model."""

    method: str
    gflops: float
    accuracies: tuple[float | None, ...]
    """Top-1 and top-5 in percent on each of ``ACTION_DATASETS``; None for N/A."""
    model: str
    soft: bool = False
    clip: tuple[int, ...] = (32, 224, 224)
    """Clip shape (T, H, W) that results in the paper's GFLOPs."""


TABLE_7 = (
    PublishedRow("r3d-50", 53.16, (78.36, 93.76, 49.08, 72.54, 93.13, 96.29), "r3d_50"),
    PublishedRow("r3d-101", 78.52, (80.49, 95.18, 52.58, 74.63, 95.76, 98.42), "r3d_101"),
    PublishedRow("r(2+1)d-50", 50.04, (81.34, 94.51, 49.93, 73.40, 93.92, 97.84), "r2plus1d_50"),
    PublishedRow("I3D", 55.27, (79.95, 94.48, 53.01, 69.19, 92.45, 97.62), "i3d"),
    PublishedRow("ir-CSN-101", 17.26, (None, None, 54.66, 73.78, 95.13, 97.85), "ir_csn_101"),
    PublishedRow("MF-Net", 22.50, (78.31, 94.62, 54.25, 73.38, 93.86, 98.37), "mfnet"),
    PublishedRow(
        "SlowFast r3d-50",
        36.71,
        (None, None, 56.17, 75.57, 94.62, 98.75),
        "pytorchvideo/slowfast_r50_4x16",
        clip=(32, 256, 256),
    ),
    PublishedRow("SRTG r3d-50", 53.22, (80.36, 95.55, 53.52, 74.17, 96.85, 98.26), "srtg_r3d_50"),
    PublishedRow(
        "SRTG r(2+1)d-50", 50.10, (83.77, 96.56, 54.17, 74.62, 95.99, 98.20), "srtg_r2plus1d_50"
    ),
    PublishedRow("SRTG r3d-101", 78.66, (81.66, 96.37, 56.46, 76.82, 97.32, 99.56), "srtg_r3d_101"),
    PublishedRow(
        "r3d-50 with SoftPool", 53.16, (79.82, 94.64, 50.36, 73.72, 93.90, 97.02), "r3d_50", True
    ),
    PublishedRow(
        "SRTG r(2+1)d-50 with SoftPool",
        50.10,
        (84.78, 97.72, 55.27, 75.44, 96.46, 98.73),
        "srtg_r2plus1d_50",
        True,
    ),
    PublishedRow(
        "SRTG r3d-101 with SoftPool",
        78.66,
        (83.28, 97.04, 57.76, 77.84, 98.06, 99.82),
        "srtg_r3d_101",
        True,
    ),
)
"""Table 7."""
ACTION_DATASETS = ("HACS", "Kinetics-700", "UCF-101")
"""Datasets of the accuracies in Table 7."""
