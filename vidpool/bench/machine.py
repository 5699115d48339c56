"""The machine that is measured: what it is called, and a heap that stays warm."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path
from typing import Any

import torch

from vidpool import __version__
from vidpool.ops.operator import COMPILED

# of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4


def keep_heap_warm() -> bool:
    """Let glibc keep freed memory for the next tensor, for as long as the process lives.

    By default it gives large blocks back to the system and has to fetch them again for each
    result; filling in fresh pages then costs more than pooling, and everything looks equally slow.

    Returns:
        Whether glibc is there and took it; elsewhere nothing is done.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # glibc had an upper limit for the threshold once; no mappings at all does the same
    unmapped = mallopt(_M_MMAP_THRESHOLD, 2**31 - 1) or mallopt(_M_MMAP_MAX, 0)
    kept = mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    padded = mallopt(_M_TOP_PAD, 2**28)
    return bool(unmapped and kept and padded)


def describe(device: str) -> dict[str, Any]:
    """What times depend on, for JSON.

    Args:
        device: `cpu` or `cuda`, the current device.
    """
    return {
        "device": device,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else cpu_name(),
        "torch": torch.__version__,
        "vidpool": __version__,
        "compiled_kernels": device in COMPILED,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's model as Linux names it, elsewhere what Python knows."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        label, _, name = line.partition(":")
        if label.strip() == "model name" and name.strip():
            return name.strip()
    return platform.processor() or platform.machine()
