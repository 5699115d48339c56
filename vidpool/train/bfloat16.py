"""Check of bfloat16: some CPUs compute its 3D convolutions wrongly."""

import functools

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from vidpool.errors import ConfigError

# kernel sizes whose weight gradients PyTorch 2.14 gets wrong at T = 2, on CPUs with AVX512-BF16
BFLOAT16_KERNELS = ((3, 1, 1), (3, 3, 3))
BFLOAT16_TRIALS = 2
# relative errors: rounding to bfloat16 gives less than 0.01, uninitialized memory 1 or NaN
BFLOAT16_TOLERANCE = 0.05


def check_precision(trainer: pl.Trainer, is_image_model: bool) -> None:
    """Refuse to train in bfloat16 on a CPU where PyTorch's 3D convolutions are wrong.

    The convolutions are measured once per process.

    Args:
        trainer: The trainer, set up for training.
        is_image_model: The network has 2D convolutions, which are right.

    Raises:
        ConfigError: The convolutions are wrong; the message says which precision works.
    """
    precision = str(trainer.precision)
    on_cpu = trainer.strategy.root_device.type == "cpu"
    if not on_cpu or is_image_model or not precision.startswith("bf16"):
        return
    fault = bfloat16_fault()
    if fault is not None:
        raise ConfigError(
            f"precision {precision} would train on wrong gradients: on this CPU, {fault}. "
            "Set precision to 32-true",
            argument="precision",
        )


@functools.cache
def bfloat16_fault() -> str | None:
    """Compare small bfloat16 3D convolutions of two frames on the CPU with float32.

    Some CPUs read uninitialized memory there, so freed memory is filled with NaN beforehand.

    Returns:
        What is wrong, or None where the output and both gradients are right.
    """
    generator = torch.Generator().manual_seed(0)
    for kernel_size in BFLOAT16_KERNELS:
        for _ in range(BFLOAT16_TRIALS):
            x, weight, gradient = (
                torch.randn(
                    shape, generator=generator, dtype=torch.float32, device="cpu"
                ).bfloat16()
                for shape in ((4, 16, 2, 14, 14), (16, 16, *kernel_size), (4, 16, 2, 14, 14))
            )
            expected = _convolve(x.float(), weight.float(), gradient.float())
            computed = _convolve(x, weight, gradient)
            names = ("output", "gradient of the input", "gradient of the weight")
            for name, got, right in zip(names, computed, expected, strict=True):
                error = float((got.float() - right).norm() / right.norm())
                if not error < BFLOAT16_TOLERANCE:  # NaN too
                    return (
                        f"PyTorch {torch.__version__} computes bfloat16 3D convolutions wrongly "
                        f"(kernel size {kernel_size}, 2 frames: relative error {error:.2g} of the "
                        f"{name})"
                    )
    return None


@torch.enable_grad()
def _convolve(x: Tensor, weight: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output of a same-padded convolution, and the gradients of x and weight."""
    x, weight = x.requires_grad_(), weight.requires_grad_()
    _fill_freed_memory()
    output = F.conv3d(x, weight, padding=[size // 2 for size in weight.shape[2:]])
    _fill_freed_memory()
    of_x, of_weight = torch.autograd.grad(output, (x, weight), gradient)
    return output.detach(), of_x, of_weight


def _fill_freed_memory() -> None:
    """Leave NaN in the memory that the allocator hands out next, in blocks of 256 B to 4 MiB."""
    for exponent in reversed(range(8, 23)):
        # a byte of 255 is part of a NaN in every floating-point format
        blocks = [torch.full((1 << exponent,), 255, dtype=torch.uint8) for _ in range(4)]
        del blocks
