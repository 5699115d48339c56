"""SoftPool layers with a given output size, drop-in replacements for PyTorch's adaptive pooling."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

from torch import Tensor, nn

from vidpool.nn.pooling.base import is_traced_part, record_as_leaf
from vidpool.nn.pooling.docstrings import complete_docstring
from vidpool.ops import Gradient
from vidpool.ops.adaptive import OutputSize, adaptive_soft_pool, expand_output_size
from vidpool.ops.geometry import check_return_indices
from vidpool.ops.operator import refuse_scripting
from vidpool.ops.reference import check_gradient


class _AdaptiveSoftPoolNd(nn.Module):
    """Adaptive SoftPool over any number of dimensions.

    A drop-in replacement for adaptive max and average pooling, such as
    :class:`torch.nn.AdaptiveMaxPool3d`, with the same windows and the same output size. Each window
    is averaged with the softmax of its own values as weights;
    :func:`vidpool.ops.adaptive_soft_pool3d` documents the windows and the exceptions of the forward
    pass. The layer has no parameters.

    Args:
        output_size: Size of the output; an int or one int per dimension. None keeps the input's
            size.
        return_indices: Must be False. The argument keeps the positions of
            `torch.nn.AdaptiveMaxPool3d`'s arguments; unlike a maximum, the output does not come
            from one cell of the window.
        gradient: `"exact"` for the derivative, or `"paper"` for the gradient of the paper's
            section 3.2; see :func:`vidpool.ops.soft_pool3d`.

    Raises:
        TypeError: If `output_size` is neither an int, None nor a sequence of these.
        RuntimeError: If `output_size` has the wrong length or is less than 1.
        ConfigError: If `gradient` is unknown or `return_indices` is set.
    """

    ndim: ClassVar[int]
    """Number of pooled dimensions."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Complete the docstring of a layer class; see :func:`complete_docstring`."""
        super().__init_subclass__(**kwargs)
        if "ndim" in vars(cls):
            cls.__doc__ = complete_docstring(cls, _AdaptiveSoftPoolNd)

    def __init__(
        self,
        output_size: OutputSize,
        return_indices: bool = False,
        *,
        gradient: Gradient = "exact",
    ) -> None:
        super().__init__()
        check_return_indices(type(self).__name__, return_indices)
        check_gradient(gradient)
        expand_output_size(self.ndim, output_size)
        self.output_size = output_size
        self.gradient = gradient

    def forward(self, x: Tensor) -> Tensor:
        """Pool x, whose shape the class documents, and return the same dtype."""
        if is_traced_part(self, x):
            recorded: Tensor = record_as_leaf(self, x)
            return recorded
        output_size = expand_output_size(self.ndim, self.output_size)
        return adaptive_soft_pool(x, output_size, self.gradient)

    def extra_repr(self) -> str:
        """Return the arguments for `repr`."""
        return f"output_size={self.output_size!r}, gradient={self.gradient!r}"

    def __prepare_scriptable__(self) -> NoReturn:
        """Refuse torch.jit.script, also for a network that contains the layer."""
        refuse_scripting()


class AdaptiveSoftPool1d(_AdaptiveSoftPoolNd):
    """SoftPool over T of (N, C, T) or (C, T) to a given output size.

    Examples:
        >>> import torch
        >>> from vidpool.nn import AdaptiveSoftPool1d
        >>> AdaptiveSoftPool1d(5)(torch.rand(2, 8, 16)).shape
        torch.Size([2, 8, 5])
    """

    ndim = 1


class AdaptiveSoftPool2d(_AdaptiveSoftPoolNd):
    """SoftPool over H, W of (N, C, H, W) or (C, H, W) to a given output size.

    Examples:
        >>> import torch
        >>> from vidpool.nn import AdaptiveSoftPool2d
        >>> AdaptiveSoftPool2d(1)(torch.rand(2, 8, 7, 7)).shape
        torch.Size([2, 8, 1, 1])
        >>> AdaptiveSoftPool2d((5, None))(torch.rand(2, 8, 7, 7)).shape
        torch.Size([2, 8, 5, 7])
    """

    ndim = 2


class AdaptiveSoftPool3d(_AdaptiveSoftPoolNd):
    """SoftPool over T, H, W of (N, C, T, H, W) or (C, T, H, W) to a given output size.

    Examples:
        >>> import torch
        >>> from vidpool.nn import AdaptiveSoftPool3d
        >>> AdaptiveSoftPool3d(1)(torch.rand(2, 8, 4, 7, 7)).shape
        torch.Size([2, 8, 1, 1, 1])
        >>> AdaptiveSoftPool3d((None, 1, 1))(torch.rand(2, 8, 4, 7, 7)).shape
        torch.Size([2, 8, 4, 1, 1])
    """

    ndim = 3
