"""torch.compile for clips whose shape varies from step to step.

The compiler is imported where it is used: that takes a second.
"""

from torch import Tensor, nn

# multigrid training has up to 12 clip sizes, and evaluation compiles again
RECOMPILATIONS = 64


def compile_network(model: nn.Module, backend: str | None = None) -> None:
    """Compile a network in place, unless it is: once for each clip size, given :func:`mark`.

    A batch of a single clip is compiled apart, and on CPUs convolutions of 16 clips or more and a
    batch larger than those before it; the last, smaller batch of an epoch is not.

    PyTorch gives up after 8 compilations and goes on uncompiled, with no more than a warning; the
    limit is raised so that all sizes of multigrid training have a place.

    Args:
        model: The network; its state-dict keys stay.
        backend: See ``torch.compile``; by default its own.
    """
    if model._compiled_call_impl is not None:
        return
    from torch._dynamo import config

    config.recompile_limit = max(config.recompile_limit, RECOMPILATIONS)
    model.compile(**({} if backend is None else {"backend": backend}))


def mark(clip: Tensor) -> Tensor:
    """Say that a compiled network is to take batches of any size, but T, H and W as they are.

    Args:
        clip: (N, C, T, H, W).

    Returns:
        The clip itself.
    """
    from torch._dynamo import mark_static, maybe_mark_dynamic

    maybe_mark_dynamic(clip, 0)  # "maybe": sub-batch norm has its number of groups compiled in
    mark_static(clip, [1, 2, 3, 4])
    return clip
