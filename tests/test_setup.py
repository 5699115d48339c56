"""Installing from source where something is missing."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (
    "configs",
    "csrc",
    "vidpool",
    "tools",
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)


FIND_A_RECIPE = """
import vidpool
from vidpool.cli.configs import expand_bases
print(vidpool.__file__)
print(*expand_bases(["--config", "table7/hacs/i3d"])[1::2], sep="\\0")
"""


def test_configs_are_in_the_wheel_and_found_from_any_folder(tmp_path):
    wheels = tmp_path / "dist"
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        wheels,
    ]
    tree = copy_sources(tmp_path)
    environment = {**os.environ, "VIDPOOL_KERNELS": "none"}
    done = subprocess.run(
        [*build, tree], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = wheels.glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    inside = {
        path.relative_to(installed / "vidpool") for path in installed.rglob("configs/**/*.yaml")
    }
    assert inside == {path.relative_to(ROOT) for path in ROOT.glob("configs/**/*.yaml")}
    assert find_a_recipe(tmp_path, {**os.environ, "PYTHONPATH": str(installed)}) == installed


def test_configs_are_found_from_the_environment_that_runs_the_tests(tmp_path):
    """An editable installation, as a rule."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    find_a_recipe(tmp_path, environment)


def find_a_recipe(folder, environment):
    """Find the parts of a recipe in a fresh process; return where vidpool is installed."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-c", FIND_A_RECIPE]
    run = subprocess.run(
        command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    package, _, parts = run.stdout.partition("\n")
    files = {Path(part).name for part in parts.strip().split("\0") if part.endswith(".yaml")}
    assert files >= {"gpu.yaml", "hacs.yaml", "i3d.yaml", "sgd.yaml"}
    return Path(package).parents[1]


def copy_sources(folder):
    """Copy what an installation is built from, without compiled kernels."""
    tree = folder / "tree"
    tree.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tree / name)
    for library in (tree / "vidpool/ops").glob("*.so"):
        library.unlink()
    return tree


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "told"),
    [("auto", 'building extension "vidpool.ops._cpu" failed'), ("none", ""), ("cpu", None)],
)
def test_without_a_compiler(tmp_path, asked, told):
    tree = copy_sources(tmp_path)
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
