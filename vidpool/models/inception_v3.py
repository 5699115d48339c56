"""Inception v3's blocks with their pooling as layers; importing this imports torchvision.

torchvision's blocks pool by calling functions, which :func:`vidpool.nn.swap_pooling` cannot see.
Here each has a layer `pool`, so that "Refining activation downsampling with SoftPool" (Table 6) can
be repeated with patterns such as `where=["maxpool*", "Mixed_5*"]`. State-dict keys are the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import inception as tv


def _run(block: nn.Module, branch: str, last: int, x: Tensor) -> Tensor:
    """Chain the layers of a branch, whose names end in 1 to `last`."""
    for i in range(1, last + 1):
        x = block.get_submodule(f"{branch}_{i}")(x)
    return x


class InceptionA(tv.InceptionA):
    """Mixed 5b to 5d."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pool = nn.AvgPool2d(kernel_size=3, stride=1, padding=1)

    def _forward(self, x: Tensor) -> list[Tensor]:
        wide, double = _run(self, "branch5x5", 2, x), _run(self, "branch3x3dbl", 3, x)
        return [self.branch1x1(x), wide, double, self.branch_pool(self.pool(x))]


class InceptionB(tv.InceptionB):
    """Mixed 6a, which halves H and W."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2)

    def _forward(self, x: Tensor) -> list[Tensor]:
        return [self.branch3x3(x), _run(self, "branch3x3dbl", 3, x), self.pool(x)]


class InceptionC(tv.InceptionC):
    """Mixed 6b to 6e."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pool = nn.AvgPool2d(kernel_size=3, stride=1, padding=1)

    def _forward(self, x: Tensor) -> list[Tensor]:
        wide, double = _run(self, "branch7x7", 3, x), _run(self, "branch7x7dbl", 5, x)
        return [self.branch1x1(x), wide, double, self.branch_pool(self.pool(x))]


class InceptionD(tv.InceptionD):
    """Mixed 7a, which halves H and W."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2)

    def _forward(self, x: Tensor) -> list[Tensor]:
        return [_run(self, "branch3x3", 2, x), _run(self, "branch7x7x3", 4, x), self.pool(x)]


class InceptionE(tv.InceptionE):
    """Mixed 7b and 7c."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pool = nn.AvgPool2d(kernel_size=3, stride=1, padding=1)

    def _forward(self, x: Tensor) -> list[Tensor]:
        single, double = self.branch3x3_1(x), _run(self, "branch3x3dbl", 2, x)
        single = torch.cat([self.branch3x3_2a(single), self.branch3x3_2b(single)], 1)
        double = torch.cat([self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)], 1)
        return [self.branch1x1(x), single, double, self.branch_pool(self.pool(x))]


BLOCKS = [
    tv.BasicConv2d,
    InceptionA,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE,
    tv.InceptionAux,
]
"""For the argument `inception_blocks` of :func:`torchvision.models.inception_v3`."""
