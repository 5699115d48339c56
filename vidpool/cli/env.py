"""``vidpool env``: versions, hardware and the active SoftPool kernels, for bug reports."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from vidpool import __version__
from vidpool.bench.timing import cpu_name
from vidpool.cli.arguments import Parser
from vidpool.ops.operator import COMPILED

PACKAGES = (
    "torchvision",
    "pytorch-lightning",
    "torchmetrics",
    "jsonargparse",
    "av",
    "decord",
    "pytorchvideo",
    "numpy",
)


def main(verb: str, arguments: list[str]) -> int:
    """Run ``vidpool env``."""
    Parser(
        prog=f"vidpool {verb}",
        description="Print versions, hardware and the active SoftPool kernels.",
    ).parse_args(arguments)
    lines = {
        "vidpool": __version__,
        "Python": f"{platform.python_version()} on {platform.platform()}",
        "torch": f"{torch.__version__}, for CUDA {torch.version.cuda or '(none)'}",
        **{name: _version(name) for name in PACKAGES},
        "CPU": f"{cpu_name()}, {os.cpu_count()} threads, PyTorch uses {torch.get_num_threads()}",
        "GPU": ", ".join(_gpus()) or "none that PyTorch can use",
        "SoftPool on CPU": cpu_kernels(),
        "SoftPool on CUDA": cuda_kernels(),
    }
    width = max(map(len, lines))
    for name, value in lines.items():
        print(f"{name:<{width}}  {value}")
    return 0


def cpu_kernels() -> str:
    """Return a description of the kernels that compute SoftPool on the CPU."""
    if "cpu" in COMPILED:
        try:
            return f"compiled kernels for {torch.ops.vidpool.cpu_capability()}"
        except RuntimeError as error:  # the environment asks for what this processor lacks
            return str(error)
    return (
        "plain PyTorch, which is slower: the kernels are not compiled. Install vidpool from a "
        "wheel, or again from source on a machine with GCC or Clang"
    )


def cuda_kernels() -> str:
    """Return a description of the kernels that compute SoftPool on GPUs."""
    if torch.version.cuda is None:
        return "none, since this PyTorch has no CUDA part"
    if "cuda" in COMPILED:
        return f"compiled kernels for compute capability {torch.ops.vidpool.cuda_architectures()}"
    return (
        "plain PyTorch, which is slower: the kernels are not compiled. Install vidpool from a "
        "wheel, or again from source on a machine with a GPU and nvcc"
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _gpus() -> list[str]:
    properties = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [f"{p.name} (compute capability {p.major}.{p.minor})" for p in properties]
