"""PyTorchVideo's Kinetics-400 networks for clips of any size.

The networks are built by the functions of :mod:`pytorchvideo.models.hub`, so the `model_state` of
its checkpoints loads. There are two differences, neither of which has weights. The heads average
over all positions, while PyTorchVideo's average over a window of the training size. The outputs are
logits, while PyTorchVideo's R(2+1)D and X3D end with a softmax. At the size that a network was
designed for, the logits are the same. At larger sizes, PyTorchVideo averages over overlapping
windows, which weight the center more than the border.

PyTorchVideo is imported when a network is built.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vidpool.models.common import VideoNet, check_options, run_block
from vidpool.models.registry import register_model


class PyTorchVideoNet(VideoNet):
    """Blocks of a PyTorchVideo network, ending with its head.

    Args:
        blocks: The `blocks` of a network built by PyTorchVideo; average pooling over windows of
            fixed size is replaced.
        dropout: Probability of dropping a feature before the classifier.
        alpha: Ratio of the frame rates of SlowFast's pathways; None for networks with a single
            pathway.
        gradient_checkpointing: See :class:`~vidpool.models.common.VideoNet`, which also lists the
            exceptions.
    """

    def __init__(
        self,
        blocks: nn.ModuleList,
        dropout: float,
        alpha: int | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(dropout=dropout, gradient_checkpointing=gradient_checkpointing)
        self.blocks = blocks
        self.alpha = alpha
        for parent in list(blocks.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.AvgPool3d):  # only heads have these
                    setattr(parent, name, nn.AdaptiveAvgPool3d(1))
                if name == "multipathway_fusion" and isinstance(child, nn.Identity):
                    setattr(parent, name, None)  # torch.fx cannot trace an Identity of a list
        head: Any = blocks[-1]
        head.output_pool = None  # its input is a single position now
        head.dropout = None
        self.dropout = nn.Dropout(dropout)
        self.head = f"blocks.{len(blocks) - 1}.proj"
        if alpha is not None:
            self.input_convolutions = tuple(
                f"blocks.0.multipathway_blocks.{pathway}.conv" for pathway in (0, 1)
            )

    def _embed(self, x: Tensor) -> Tensor:
        state: Any = x if self.alpha is None else split_pathways(x, self.alpha)
        for block in self.blocks[:-1]:
            state = run_block(block, state, gradient_checkpointing=self.gradient_checkpointing)
        head: Any = self.blocks[-1]
        return (state if head.pool is None else head.pool(state)).flatten(1)


def split_pathways(x: Tensor, alpha: int) -> list[Tensor]:
    """Return the inputs of SlowFast's pathways: evenly spaced frames, and all frames.

    Section 3.1 of "SlowFast Networks for Video Recognition" (ICCV 2019), with the frames of
    PyTorchVideo: from the first to the last in equal steps, rounded down.

    Args:
        x: (N, C, T, H, W) clips.
        alpha: Number of frames of the fast pathway per frame of the slow pathway.

    Returns:
        Clips with T / alpha frames, rounded up as in the lateral connections, and x.
    """
    frames = x.shape[2]
    # on the CPU, since GPUs may round differently
    picked = torch.linspace(0, frames - 1, -(-frames // alpha), device="cpu").long()
    return [x.index_select(2, picked.to(x.device)), x]


def _build(
    builder: str,
    alpha: int | None,
    settings: dict[str, Any],
    *,
    num_classes: int,
    dropout: float,
    gradient_checkpointing: bool = False,
) -> PyTorchVideoNet:
    """Build a network by a function of `pytorchvideo.models.hub` or `pytorchvideo.models`."""
    # imported here, since it takes a second and most networks do not need it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch.jit, by the import
        from pytorchvideo import models
        from pytorchvideo.models import hub
    check_options(num_classes=num_classes, dropout=dropout)
    build = getattr(models if builder.startswith("create_") else hub, builder)
    net = build(model_num_class=num_classes, head_activation=None, **settings)
    return PyTorchVideoNet(net.blocks, dropout, alpha, gradient_checkpointing)


def _register(
    name: str,
    builder: str,
    size: tuple[int, int, int],
    *,
    dropout: float = 0.5,
    alpha: int | None = None,
    **settings: Any,
) -> None:
    name = f"pytorchvideo/{name}"
    build = partial(_build, builder, alpha, settings, dropout=dropout)
    register_model(name=name, size=size, source="PyTorchVideo")(build)


_register("ir_csn_101", "csn_r101", (32, 224, 224), dropout=0.0)
_register("r2plus1d_r50", "r2plus1d_r50", (16, 224, 224))
_register("slow_r50", "slow_r50", (8, 224, 224))
_register(
    "slowfast_r50_4x16",  # in PyTorchVideo's model zoo, but no function of its hub
    "create_slowfast",
    (32, 224, 224),
    alpha=8,
    model_depth=50,
    slowfast_fusion_conv_kernel_size=(5, 1, 1),
    slowfast_fusion_conv_stride=(8, 1, 1),
)
_register("slowfast_r50_8x8", "slowfast_r50", (32, 224, 224), alpha=4)
_register("x3d_xs", "x3d_xs", (4, 160, 160))
_register("x3d_s", "x3d_s", (13, 160, 160))
_register("x3d_m", "x3d_m", (16, 224, 224))
_register("x3d_l", "x3d_l", (16, 312, 312))
