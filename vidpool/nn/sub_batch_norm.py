"""Batch norm over a constant number of clips, independent of the batch size.

Batch norm regularizes by the noise of its statistics, which depends on the number of clips. If the
batch size varies during training, groups of a constant size keep this noise constant.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# PyTorch has no public name for the base class of its batch norms
from torch.nn.modules.batchnorm import _BatchNorm

from vidpool.errors import ConfigError


class SubBatchNorm(_BatchNorm):
    """Batch norm that normalizes groups of ``clips`` consecutive clips separately in training.

    Running statistics are those of the whole batch, so evaluation is the same as with plain batch
    norm, as are parameters and buffers. A batch that cannot be divided evenly is split into groups
    of nearly the same size; none is smaller than ``clips`` unless the batch is.

    Args:
        num_features: C, channels.
        clips: Number of clips per group.
        eps: Value added to the variance.
        momentum: Momentum of the running statistics; None means their cumulative average.
        affine: Learn a scale and a shift.
        track_running_stats: Keep running statistics.

    Shape:
        (N, C, …), and the same.

    Raises:
        ConfigError: If ``clips`` is below 1.
    """

    def __init__(
        self,
        num_features: int,
        clips: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats)
        if clips < 1:
            raise ConfigError(
                f"sub-batch norm needs at least 1 clip in a group, but clips is {clips}", "clips"
            )
        self.clips = clips

    def extra_repr(self) -> str:
        """Return the arguments for `repr`."""
        return f"{super().extra_repr()}, clips={self.clips}"

    def forward(self, x: Tensor) -> Tensor:
        """Normalize a batch (N, C, …)."""
        groups = len(x) // self.clips
        if groups <= 1 or not self.training:
            return super().forward(x)
        # with momentum 1, the running statistics are each group's mean and unbiased variance
        running = self.running_mean
        dtype = torch.promote_types(x.dtype, torch.float32) if running is None else running.dtype
        statistics = torch.zeros(2, groups, self.num_features, dtype=dtype, device=x.device)
        parts = x.tensor_split(groups)
        normalised = torch.cat(
            [
                F.batch_norm(part, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
                for part, mean, variance in zip(parts, *statistics, strict=True)
            ]
        )
        cells = x[0, 0].numel()
        self._update_running_statistics(
            statistics, statistics.new_tensor([len(part) * cells for part in parts])
        )
        return normalised

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch norm takes (N, C, …), got {input.dim()} dimensions")

    @torch.no_grad()
    def _update_running_statistics(self, statistics: Tensor, sizes: Tensor) -> None:
        """Update the running statistics with those of the whole batch.

        Args:
            statistics: (2, groups, C), means and unbiased variances.
            sizes: (groups,), number of values per channel.
        """
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        factor = 1.0 / float(self.num_batches_tracked) if momentum is None else momentum
        means, variances = statistics
        sizes = sizes[:, None]
        total = sizes.sum()
        mean = (means * sizes).sum(0) / total
        squares = variances * (sizes - 1) + (means - mean).square() * sizes
        self.running_mean.lerp_(mean, factor)
        self.running_var.lerp_(squares.sum(0) / (total - 1), factor)


def split_batch_norm(model: nn.Module, clips: int) -> list[str]:
    """Replace a model's batch norms by sub-batch norm in place; state-dict keys stay.

    Args:
        model: Any network, before it is wrapped for distributed training.
        clips: Number of clips per group.

    Returns:
        The names of the replaced layers.

    Raises:
        ConfigError: If ``clips`` is below 1, or the model has no batch norm.
    """
    new: dict[nn.Module, SubBatchNorm] = {}
    names = []
    for name, old in list(model.named_modules(remove_duplicate=False)):
        if not isinstance(old, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)) or not name:
            continue
        if old not in new:
            split = SubBatchNorm(
                old.num_features, clips, old.eps, old.momentum, old.affine, old.track_running_stats
            )
            split._parameters, split._buffers = old._parameters, old._buffers
            new[old] = split.train(old.training)
        model.set_submodule(name, new[old])
        names.append(name)
    if not names:
        raise ConfigError(f"{type(model).__name__} has no batch norm that could be split", "model")
    return names
