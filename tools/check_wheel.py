"""``make check-wheel``: the wheel in clean environments, with each PyTorch that it promises.

For each version a virtual environment is made that holds that PyTorch, the wheel and what the tests
need. There is no compiler on the PATH, and the source tree is out of sight.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEST_NEEDS = ("numpy", "pytest", "hypothesis")
SKIPPED = "inductor or kernels_are_built"  # these are about compilers


def main() -> None:
    """Check the newest wheel in dist; the exit status is 1 if a version fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "versions",
        nargs="*",
        default=["2.11.*", "2.13.*", ""],
        help="of torch; '' is the newest (default: 2.11.* 2.13.* and the newest)",
    )
    wheels = sorted((ROOT / "dist").glob("*.whl"), key=lambda path: path.stat().st_mtime)
    if not wheels:
        sys.exit("there is no wheel in dist: make wheel")
    results = {v or "newest": check(wheels[-1], v) for v in parser.parse_args().versions}
    print(f"\n{wheels[-1].name}")
    for wanted, result in results.items():
        print(f"  torch {wanted:<8} {result}")
    sys.exit(any("passed" not in result or "failed" in result for result in results.values()))


def check(wheel: Path, wanted: str) -> str:
    """Install and test the wheel with one version of torch; return the last words of the tests."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        python = folder / "venv/bin/python"
        pip = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir"]
        torch = f"torch=={wanted}" if wanted else "torch"
        subprocess.run([*pip, torch, *TEST_NEEDS], check=True)
        subprocess.run([*pip, "--no-deps", wheel], check=True)
        for part in ("ops", "helpers"):
            shutil.copytree(ROOT / "tests" / part, folder / "tests" / part)
        settings = "[pytest]\nmarkers = slow: long\npythonpath = tests/helpers\n"
        (folder / "pytest.ini").write_text(settings)
        done = subprocess.run(
            [python, "-m", "pytest", "-q", "-m", "not slow", "-k", f"not ({SKIPPED})", "tests/ops"],
            cwd=folder,
            env={**os.environ, "PATH": str(python.parent)},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        version = subprocess.run(
            [python, "-c", "import torch, vidpool.ops.operator as o; "
             "print(torch.__version__, *sorted(o.COMPILED))"],
            cwd=folder, stdout=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        print(done.stdout)
    outcome = done.stdout.strip().splitlines()[-1]
    seconds = time.monotonic() - begin
    return f"is {version.stdout.strip()}: {outcome}; {seconds:.0f} s in all"


if __name__ == "__main__":
    main()
