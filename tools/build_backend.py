"""setuptools' build backend, which asks for PyTorch only where it is not installed already.

pip builds in an environment of its own, and would fetch the gigabytes of PyTorch into it again
although the kernels need no more of it than headers and the library's name.
"""

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403


def find_torch() -> Path | None:
    """The folder of an installed PyTorch, also one that pip's build environment hides."""
    spec = importlib.util.find_spec("torch")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent
    for kind in ("purelib", "platlib"):
        folder = Path(sysconfig.get_path(kind)) / "torch"
        if (folder / "include").is_dir():
            return folder
    return None


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """What `pip install .` needs to build."""
    return build_meta.get_requires_for_build_wheel(config_settings) + _torch()


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """What `pip install --editable .` needs to build."""
    return build_meta.get_requires_for_build_editable(config_settings) + _torch()


def _torch() -> list[str]:
    return [] if find_torch() else ["torch>=2.11"]
