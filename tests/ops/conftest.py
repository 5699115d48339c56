"""Which implementation computes SoftPool in a test."""

import pytest
import torch

from vidpool.ops import operator


def use_kernels(patch, name):
    """Let compiled kernels of one instruction set compute, or skip where they cannot."""
    if "cpu" not in operator.COMPILED:
        pytest.skip("the kernels are not compiled")
    patch.setenv("VIDPOOL_CPU_CAPABILITY", name)
    try:
        assert torch.ops.vidpool.cpu_capability() == name
    except RuntimeError:
        pytest.skip(f"this processor cannot run {name}")


@pytest.fixture(scope="module", params=["baseline", "avx2", "avx512"])
def kernels(request):
    """Compiled kernels of each instruction set in turn."""
    with pytest.MonkeyPatch.context() as patch:
        use_kernels(patch, request.param)
        yield request.param


@pytest.fixture(scope="module", params=["reference", "baseline", "avx2", "avx512"])
def implementation(request):
    """The reference and compiled kernels of each instruction set in turn."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "reference":
            patch.setattr(operator, "COMPILED", frozenset())
        else:
            use_kernels(patch, request.param)
        yield request.param
