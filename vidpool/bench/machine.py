"""The machine that benchmarks run on: its description, its heap, and the memory of processes."""

from __future__ import annotations

import ctypes
import platform
import re
from pathlib import Path
from typing import Any

import torch

from vidpool import __version__
from vidpool.ops.operator import COMPILED

# from glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4


def keep_heap_warm() -> bool:
    """Let glibc keep freed memory for the next tensor, until the process ends.

    By default glibc returns large blocks to the system and requests them again for each result.
    Zeroing fresh pages then costs more than pooling, and everything looks equally slow.

    Returns:
        True if glibc accepted the settings; False elsewhere, where nothing is changed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # older versions of glibc limit the threshold; disabling mappings has the same effect
    unmapped = mallopt(_M_MMAP_THRESHOLD, 2**31 - 1) or mallopt(_M_MMAP_MAX, 0)
    kept = mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    padded = mallopt(_M_TOP_PAD, 2**28)
    return bool(unmapped and kept and padded)


def describe_machine(device: str) -> dict[str, Any]:
    """Return the hardware and software that times depend on, as JSON values.

    Args:
        device: ``cpu``, or ``cuda`` for the current device.
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
    """Return the model name of the CPU from Linux, or elsewhere the name that Python knows."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        label, _, name = line.partition(":")
        if label.strip() == "model name" and name.strip():
            return name.strip()
    return platform.processor() or platform.machine()


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes; 0 on systems other than Linux."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * 4096


def proc_bytes(file: str, field: str) -> int:
    """Return a field of a file in ``/proc/self`` in bytes.

    Args:
        file: ``status`` or ``smaps_rollup``, which list fields as ``Name:  123 kB``.
        field: Name of the field, such as ``VmRSS`` (resident memory), ``RssAnon`` (the part of it
            that maps no file) or ``Private_Dirty`` (written, and shared with no other process).

    Raises:
        OSError: The system is not Linux.
    """
    text = Path("/proc/self", file).read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    assert found, field
    return int(found[1]) * 1024
