"""Builds SoftPool's compiled kernels where that is possible; pyproject.toml has the rest.

They are written against PyTorch's stable ABI and use nothing of Python, so one build serves every
Python >= 3.10 and every PyTorch >= 2.11. The CUDA kernels are a library of their own, since it
cannot be loaded where PyTorch has no CUDA part.

Environment variables:
    VIDPOOL_KERNELS: `auto` (the default: what can be built is built, else a warning says why not),
        `cpu` or `cpu,cuda` (these, or the installation fails), or `none`.
    VIDPOOL_CUDA_ARCHS: What to compile for, like `8.0;9.0+PTX`. By default the GPUs that are there;
        where there is none, `auto` builds no CUDA kernels.
    NVCC: The CUDA compiler, where it is not on the PATH.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import warnings
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

sys.path.insert(0, str(Path(__file__).parent / "tools"))
from build_backend import find_torch

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
TORCH_MACROS = [("TORCH_TARGET_VERSION", "0x020b000000000000"), ("TORCH_STABLE_ONLY", None)]
COMPILER_FLAGS = [
    "-std=c++20",
    "-O3",
    "-g0",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wno-psabi",
]
HEADERS = [str(path) for kind in ("h", "cuh") for path in sorted(Path("csrc").rglob(f"*.{kind}"))]


class BuildKernels(build_ext):
    """Says in one sentence why kernels are left out; compiles those for CUDA with nvcc."""

    def build_extension(self, ext: Extension) -> None:
        """Build one library, or raise CompileError, which an optional one may."""
        if find_torch() is None:
            raise CompileError("PyTorch is not there to build against")
        if sys.platform == "win32":
            raise CompileError("the kernels need GCC or Clang")
        if ext.name.endswith("_cuda"):
            self.build_with_nvcc(ext)
        else:
            super().build_extension(ext)

    def build_with_nvcc(self, ext: Extension) -> None:
        """Compile and link in one call, which finds the toolkit also behind a wrapper script."""
        output = Path(self.get_ext_fullpath(ext.name))
        output.parent.mkdir(parents=True, exist_ok=True)
        options = ["-shared", "-std=c++20", "-O3", "-cudart=static", "--threads", "0"]
        options += ["-Xcompiler", ",".join(["-fPIC", *COMPILER_FLAGS[2:]])]
        options += [
            f"-D{name}" + (f"={value}" if value else "") for name, value in ext.define_macros
        ]
        options += ext.extra_compile_args[-2:]  # PyTorch's headers
        options += [f"-L{path}" for path in ext.library_dirs]
        options += [f"-l{library}" for library in ext.libraries]
        command = [nvcc() or "nvcc", *options, *cuda_targets(), "-o", str(output), *ext.sources]
        print(shlex.join(command), flush=True)
        if subprocess.run(command, check=False).returncode:
            raise CompileError("nvcc failed, see above")


def nvcc() -> str | None:
    """The CUDA compiler, if there is one."""
    return os.environ.get("NVCC") or shutil.which("nvcc")


def cuda_targets() -> list[str]:
    """Nvcc's options for the architectures to compile for."""
    options = []
    for name in cuda_architectures():
        number = name.removesuffix("+PTX").replace(".", "")
        code = f"sm_{number},compute_{number}" if name.endswith("+PTX") else f"sm_{number}"
        options.append(f"-gencode=arch=compute_{number},code=[{code}]")
    return options


def cuda_architectures() -> list[str]:
    """Architectures like `9.0` or `9.0+PTX`: those asked for, or those of the GPUs here."""
    asked = os.environ.get("VIDPOOL_CUDA_ARCHS", "").replace(";", " ").split()
    if asked or shutil.which("nvidia-smi") is None:
        return asked
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, check=False)
    return sorted(set(found.stdout.split())) if found.returncode == 0 else []


def extensions() -> list[Extension]:
    """The libraries to build."""
    asked = os.environ.get("VIDPOOL_KERNELS", "auto")
    if asked not in ("auto", "cpu", "cpu,cuda", "none"):
        sys.exit(f"VIDPOOL_KERNELS must be auto, cpu, cpu,cuda or none, got {asked!r}")
    if asked == "none":
        return []
    torch = find_torch()
    common = {
        "define_macros": TORCH_MACROS,
        "depends": HEADERS,
        "py_limited_api": not FREE_THREADED,
        "optional": asked == "auto",
        # as a system's: its warnings are not ours
        "extra_compile_args": [*COMPILER_FLAGS, "-isystem", f"{torch}/include"],
        "library_dirs": [str(torch / "lib")] if torch else [],
    }
    cpu = Extension(
        "vidpool.ops._cpu",
        ["csrc/operator.cpp", *sorted(map(str, Path("csrc/cpu").glob("*.cpp")))],
        libraries=["torch_cpu"],
        language="c++",
        **common,
    )
    cuda = Extension(
        "vidpool.ops._cuda",
        ["csrc/operator.cpp", *sorted(map(str, Path("csrc/cuda").glob("*.cu")))],
        libraries=["torch_cuda", "torch_cpu"],
        **{**common, "define_macros": [*TORCH_MACROS, ("USE_CUDA", None)]},
    )
    if asked == "cpu":
        return [cpu]
    if asked == "cpu,cuda":
        if not cuda_architectures():
            sys.exit("VIDPOOL_KERNELS=cpu,cuda needs VIDPOOL_CUDA_ARCHS, for there is no GPU here")
        return [cpu, cuda]
    has_cuda = torch is not None and any((torch / "lib").glob("libtorch_cuda.*"))
    if not (has_cuda and cuda_architectures()):
        return [cpu]
    if nvcc() is None:
        warnings.warn("vidpool: nvcc is not there, so SoftPool gets no CUDA kernels", stacklevel=1)
        return [cpu]
    return [cpu, cuda]


setup(
    # the config files lie beside the package and are installed as vidpool.configs
    packages=[
        *find_packages(include=["vidpool*"]),
        "vidpool.configs",
        *(f"vidpool.configs.{name}" for name in find_packages("configs")),
    ],
    package_dir={"vidpool.configs": "configs"},
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildKernels},
    # free-threaded Pythons have no limited API; the libraries would do for them too
    options={} if FREE_THREADED else {"bdist_wheel": {"py_limited_api": "cp310"}},
)
