"""Tracing of networks to graphs of PyTorch's own operators."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from fnmatch import fnmatch
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vidpool.errors import ConfigError
from vidpool.models import model_info
from vidpool.ops import DECOMPOSITIONS
from vidpool.train.checkpoints import CLASS


class Limits(NamedTuple):
    """Limits on the clips that a program takes."""

    fixed: str = ""
    """Axes of "NTHW" whose size has to be the traced one."""
    reason: str = ""


_LIMITS = {
    "i3d": Limits("THW", "its padding is another for even sizes than for odd ones"),
    "srtg_*": Limits("T", "its LSTMs run for as many steps as were traced"),
    "pytorchvideo/slowfast_*": Limits("T", "its slow pathway's choice of frames is in the graph"),
    "torchvision/swin3d_*": Limits("THW", "where its windows lie is in the graph"),
}
"""Limits of networks that PyTorch cannot trace for any size, or not within minutes."""
_SEVERAL_CLIPS = tuple(f"L['clip'].size()[0] {than}" for than in ("> 1", "!= 1", ">= 2"))
"""Guards of traces that were made with two clips."""
_LARGE = (48, 160, 192)
"""T, H and W to trace with: no map becomes a single cell, and no two sizes are the same."""


def known_limits(name: str) -> Limits:
    """Return the limits of a network.

    Args:
        name: One of :func:`vidpool.models.list_models`, or a class that none are known of.
    """
    if name.startswith(CLASS):
        return Limits()
    if model_info(name).fixed:
        return Limits("THW", "the network takes this size only")
    if model_info(name).modality == "image":
        return Limits("T", "the network takes pictures, which are clips of one frame")
    return next((limits for pattern, limits in _LIMITS.items() if fnmatch(name, pattern)), Limits())


def trace(
    network: nn.Module, shapes: Sequence[Sequence[int]], limits: Limits
) -> tuple[torch.export.ExportedProgram, Limits]:
    """Trace a network for any size of the axes that are not fixed, or as many as PyTorch can.

    SoftPool becomes PyTorch's own operators: for each pooled axis the maximum, `exp` of the
    differences to it, and sums. The program therefore runs without vidpool, and is as exact for
    values of any size. The program's input is called `clip`.

    Args:
        network: In evaluation mode, on the CPU, in float32.
        shapes: Shapes (N, C, T, H, W) that the program has to take, except for fixed axes. These
            have the size of the first shape; a fixed N is 1.
        limits: Axes that are known to be fixed.

    Returns:
        The program and its limits.

    Raises:
        ConfigError: PyTorch cannot trace the network even for one size.
    """
    reason: Exception | None = None
    single = Limits("THW", "torch.export traces this network for one size only")
    alone = Limits("NTHW", "torch.export traces this network for one clip of one size only")
    for attempt in (limits, single, alone):
        if attempt is not limits and set(attempt.fixed) <= set(limits.fixed):
            continue
        try:
            program = _trace(network, shapes[0], attempt.fixed)
        except Exception as error:  # PyTorch's tracing raises what it likes
            reason = error
            continue
        if all(_takes(program, shape) for shape in shapes if _within(shape, shapes[0], attempt)):
            return program, attempt
    message = (str(reason or "").strip().splitlines() or [type(reason).__name__])[0]
    raise ConfigError(f"torch.export cannot trace this network: {message}") from reason


def _trace(network: nn.Module, shape: Sequence[int], fixed: str) -> torch.export.ExportedProgram:
    from torch.fx.experimental import _config

    symbolic: Any = _config
    places = zip("NTHW", (0, 2, 3, 4), strict=True)
    free = {place: torch.export.Dim.AUTO for axis, place in places if axis not in fixed}
    n, *used = (
        given if axis in fixed else max(given, large)
        for axis, given, large in zip("NTHW", (1, *shape[2:]), (2, *_LARGE), strict=True)
    )
    example = torch.zeros(n, shape[1], *used)
    # sizes of 0 and 1 are no special cases, as they would be without this
    with warnings.catch_warnings(), symbolic.patch(backed_size_oblivious=True):
        warnings.simplefilter("ignore")
        program = torch.export.export(
            _Logits(network), (example,), dynamic_shapes=(free,), strict=False
        ).run_decompositions(_DECOMPOSITIONS)
    # that a map is no single cell changes no result, nor does a batch of more than one clip: files
    # are checked with both
    program._guards_code = [
        code
        for code in program._guards_code
        if not ("*" in code and code.endswith("!= 1")) and code not in _SEVERAL_CLIPS
    ]
    # it would be in the file, and large
    program.example_inputs = (torch.zeros(()).expand(example.shape),), {}
    return program


def _within(shape: Sequence[int], first: Sequence[int], limits: Limits) -> bool:
    """Return True if a shape has the size of the first shape along the fixed axes."""
    places = {"N": 0, "T": 2, "H": 3, "W": 4}
    return all(shape[places[axis]] == first[places[axis]] for axis in limits.fixed)


def _takes(program: torch.export.ExportedProgram, shape: Sequence[int]) -> bool:
    """Return True if a program that was traced with other clips is right for clips of a shape.

    The guards of the trace tell, expressions about the branches that it took.
    """
    (name,) = program.graph_signature.user_inputs
    traced = next(node for node in program.graph.nodes if node.name == name).meta["val"].shape
    if any(isinstance(was, int) and was != size for was, size in zip(traced, shape, strict=True)):
        return False
    known = {"L": {"clip": torch.empty(*shape, device="meta")}, "torch": torch, "math": math}
    try:
        return all(eval(code, known) for code in program._guards_code)
    except Exception:  # an expression of an unknown kind
        return False


class ImageModelOfClips(nn.Module):
    """An image model that takes clips of one frame."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clip: Tensor) -> Tensor:
        """Return the logits (N, classes) of clips (N, C, 1, H, W)."""
        return self.network(clip.squeeze(2))


class _Logits(nn.Module):
    """A network whose input is called `clip`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clip: Tensor) -> Tensor:
        return self.network(clip)


def _cdist(x: Tensor, y: Tensor, p: float = 2.0, compute_mode: int | None = None) -> Tensor:  # noqa: ARG001
    """Return distances (N, T, T') of steps; ONNX has no operator for them."""
    return torch.linalg.vector_norm(x.unsqueeze(-2) - y.unsqueeze(-3), p, dim=-1)


_DECOMPOSITIONS: dict[Any, Any] = {
    **DECOMPOSITIONS,
    torch.ops.aten.cdist.default: _cdist,
}
