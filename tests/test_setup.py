"""Installing from source where something is missing."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("csrc", "vidpool", "tools", "setup.py", "pyproject.toml", "README.md", "LICENSE")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "told"),
    [("auto", 'building extension "vidpool.ops._cpu" failed'), ("none", ""), ("cpu", None)],
)
def test_without_a_compiler(tmp_path, asked, told):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tree / name)
    for library in (tree / "vidpool/ops").glob("*.so"):
        library.unlink()
    missing = {"CC": "/nowhere/cc", "CXX": "/nowhere/c++", "VIDPOOL_KERNELS": asked}
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "-w", tmp_path / "dist", tree],
        env={**os.environ, **missing},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if told is None:
        assert done.returncode != 0
        assert "/nowhere/c" in done.stdout
        return
    assert done.returncode == 0, done.stdout
    assert told in done.stdout
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "vidpool/ops/operator.py" in names
    assert not any(name.endswith(".so") for name in names)
