"""setuptools' build backend, which asks for PyTorch only where it is not installed already.

pip builds in an environment of its own, and would fetch the gigabytes of PyTorch into it again
although the kernels need no more of it than headers and the library's name.
"""

import importlib.util
import os
import re
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403


def find_torch() -> Path | None:
    """The folder of an installed PyTorch >= 2.11, also one that pip's build environment hides."""
    spec = importlib.util.find_spec("torch")
    folders = [Path(spec.origin).parent] if spec is not None and spec.origin is not None else []
    folders += [Path(sysconfig.get_path(kind)) / "torch" for kind in ("purelib", "platlib")]
    return next((folder for folder in folders if _version(folder) >= (2, 11)), None)


def _version(folder: Path) -> tuple[int, int]:
    try:
        found = re.search(r"__version__ = '(\d+)\.(\d+)", (folder / "version.py").read_text())
    except OSError:
        found = None
    return (int(found[1]), int(found[2])) if found else (0, 0)


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """What `pip install .` needs to build."""
    return build_meta.get_requires_for_build_wheel(config_settings) + _torch()


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """What `pip install --editable .` needs to build."""
    return build_meta.get_requires_for_build_editable(config_settings) + _torch()


def _torch() -> list[str]:
    wanted = os.environ.get("VIDPOOL_KERNELS") != "none"
    return [] if find_torch() or not wanted else ["torch>=2.11"]
