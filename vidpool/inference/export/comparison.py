"""Comparison of an exported network with the network that it was made from."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidpool.errors import ConfigError
from vidpool.inference.loading import Network
from vidpool.models import model_info
from vidpool.train.checkpoints import CLASS


@torch.no_grad()
def compare(
    network: nn.Module,
    exported: Network,
    shapes: Iterable[Sequence[int]],
    tolerance: float,
    path: Path,
) -> dict[str, Any]:
    """Compare the logits of an exported file with the network's.

    Args:
        network: In evaluation mode, on the CPU.
        exported: The network loaded from the file.
        shapes: (N, C, T, H, W) of the clips, which are smooth noise.
        tolerance: As for :func:`export`.
        path: For the message.

    Returns:
        Plain values: the `clips`, the largest absolute `max_difference`, the `largest_logit`, the
        `logits_range` (the largest range of a class's logit over the clips) and the `tolerance`.

    Raises:
        ConfigError: The file cannot take a size, or the difference is too large, or not a number.
    """
    shapes = [tuple(shape) for shape in shapes]
    generator = torch.Generator().manual_seed(0)
    differences, logits = [], []
    for shape in shapes:
        clip = _smooth_noise(shape, generator)
        expected = network(clip)
        try:
            found = exported.logits(clip)
        except Exception as error:  # of whatever runs the file
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"{path}: the exported network fails on clips of shape {shape} ({reason}); "
                "nothing was written; fixed_size may help",
                "fixed_size",
            ) from error
        logits.append(expected)
        differences.append((found - expected).abs().max())
    difference, every = torch.stack(differences).max().item(), torch.cat(logits)
    largest = every.abs().max().item()
    if not difference <= tolerance * max(1.0, largest):
        raise ConfigError(
            f"{path}: the exported network's logits differ by {difference:.1e} from PyTorch's, "
            f"which reach {largest:.3g}; that is beyond the tolerance {tolerance:g}; "
            "nothing was written",
            "tolerance",
        )
    return {
        "clips": [list(shape) for shape in shapes],
        "max_difference": difference,
        "largest_logit": largest,
        "logits_range": (every.amax(0) - every.amin(0)).max().item(),
        "tolerance": tolerance,
    }


def example_shapes(
    name: str, channels: int, clip: Sequence[int], fixed: str
) -> list[tuple[int, ...]]:
    """Return shapes of clips to compare with: two batch sizes, and an odd size that is not square.

    Args:
        name: Name of the network.
        channels: C of the clips.
        clip: (T, H, W) of the checkpoint's clips.
        fixed: The axes of the exported network whose size is fixed, such as ``THW``.
    """
    shapes = [(n, channels, *clip) for n in ((1,) if "N" in fixed else (1, 2))]
    if set("THW") <= set(fixed):
        return shapes
    shares = (3 / 4, 3 / 4, 5 / 8)
    of_class = name.startswith(CLASS)  # about which nothing is known
    smallest = (1, 1, 1) if of_class else (1, *model_info(name).smallest)[-3:]  # pictures have no T
    other = [
        size if axis in fixed else max(least, int(size * share) | 1)
        for axis, size, share, least in zip("THW", clip, shares, smallest, strict=True)
    ]
    return [*shapes, (2, channels, *other)]


def _smooth_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return clips that differ as a whole, like clips of videos, and in detail."""
    n, c, *size = shape
    coarse = torch.randn(n, c, 2, 3, 3, generator=generator)
    fine = torch.randn(*shape, generator=generator)
    return F.interpolate(coarse, size, mode="trilinear") + 0.3 * fine
