"""The order of the package's parts: ``ops → nn → models``, ``video → data``, both ``→ train``."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vidpool"
# every part may import these
FREE = {"errors", "figures", "files", "lazy", "registration", "results", "__init__"}
TRAINING = {"ops", "nn", "models", "video", "data"}
BEFORE = {
    "ops": set(),
    "nn": {"ops"},
    "models": {"ops", "nn"},
    "video": set(),
    "data": {"video"},
    "train": TRAINING,
    "inference": TRAINING | {"train"},
    "bench": TRAINING | {"train"},
    "analysis": TRAINING | {"train", "inference", "bench"},
    "cli": TRAINING | {"train", "inference", "bench", "analysis", "plugins"},
    "__main__": {"cli"},
    "errors": set(),
    "figures": set(),
    "files": set(),
    "lazy": set(),
    "registration": set(),
    "results": set(),
    "plugins": set(),
    # the public names, imported on first use
    "__init__": TRAINING | {"train", "inference", "plugins"},
}


def part_of(path):
    """The part of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """(line, module) for whatever a file imports of the package, at whichever depth."""
    package = ["vidpool", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from vidpool import nn` imports a part, `from vidpool import __version__` does not
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "vidpool")


def wrong_imports(path):
    """What a file imports though it may not."""
    own = part_of(path)
    wrong = []
    for line, name in imported(path):
        parts = name.split(".")[1:]
        # the public names are for users; the package imports them from where they are defined
        part = parts[0] if parts and parts[0] in BEFORE else "__init__"
        if part not in {own} | FREE | BEFORE[own] or (
            part == "__init__" and name != "vidpool.__version__"
        ):
            wrong.append(f"{path}:{line} imports {name}")
    return wrong


@pytest.mark.parametrize("part", BEFORE)
def test_every_part_imports_only_those_before_it(part):
    files = [path for path in PACKAGE.rglob("*.py") if part_of(path) == part]
    assert files
    assert [wrong for path in files for wrong in wrong_imports(path)] == []


def test_every_part_has_its_place():
    parts = {part_of(path) for path in PACKAGE.rglob("*.py")}
    assert parts == set(BEFORE), "say in BEFORE what the new parts may import"


def folder_imports():
    """Return the folders that each folder imports from, but for those above and below it."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[:-1]
        for _, name in imported(path):
            parts = tuple(name.split(".")[1:])
            while not PACKAGE.joinpath(*parts).is_dir():
                parts = parts[:-1]
            if own[: len(parts)] != parts[: len(own)]:
                found.setdefault("/".join(own), set()).add("/".join(parts))
    return found


def circles(graph):
    """Return the pairs of folders that import each other, directly or through others."""

    def reachable(start):
        seen, waiting = set(), [start]
        while waiting:
            new = graph.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        return seen

    reached = {folder: reachable(folder) for folder in graph}
    return [
        (one, other)
        for one in sorted(reached)
        for other in sorted(reached[one])
        if one < other and one in reached.get(other, ())
    ]


def test_folders_do_not_import_each_other_in_a_circle():
    assert circles(folder_imports()) == []


def test_a_circle_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    for file, line in {
        "data/datasets/ucf101.py": "from vidpool.data.prepare.check import check",
        "data/prepare/check.py": "from vidpool.data.datasets.layouts import find",
        "data/datasets/layouts.py": "",
    }.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(line)
    assert circles(folder_imports()) == [("data/datasets", "data/prepare")]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("nn/layer.py", "from vidpool.models import create_model"),
        ("nn/layer.py", "import vidpool.train"),
        ("nn/layer.py", "from vidpool import models"),
        ("nn/layer.py", "from ..models.registry import list_models"),
        ("nn/layer.py", "from .. import models"),
        ("nn/layer.py", "def late():\n    from vidpool import data"),
        ("data/dataset.py", "from vidpool.nn import SoftPool3d"),
        ("video/base.py", "from ..train import metrics"),
        ("video/base.py", "from vidpool.data import views"),
        ("train/metrics.py", "from vidpool.cli import main"),
        ("inference/predictor.py", "import vidpool.cli.training"),
        ("inference/export/tracing.py", "from vidpool.analysis import table7"),
        ("train/importing.py", "from vidpool.inference.export import export"),
        ("bench/pool.py", "from vidpool.analysis import layers"),
        ("analysis/mcnemar.py", "from vidpool.cli import main"),
        ("ops/operator.py", "from vidpool.bench import timing"),
        ("errors.py", "from vidpool.data import dataset"),
    ],
)
def test_a_wrong_import_is_found(monkeypatch, tmp_path, file, line):
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line)
    assert len(wrong_imports(path)) == 1
    path.write_text("from vidpool import __version__\nfrom vidpool.errors import DataError\n")
    assert wrong_imports(path) == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["no_such_verb"], []])
def test_the_command_line_answers_without_torch(arguments):
    code = f"""
import sys
from vidpool.cli import main
try:
    main({arguments})
except SystemExit as end:
    status = end.code or 0
heavy = {{"torch", "torchvision", "pytorch_lightning", "numpy", "av", "decord"}} & set(sys.modules)
assert not heavy, heavy
sys.exit(status)
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    asked = arguments[:1] in (["--help"], ["--version"])
    assert run.returncode == (0 if asked else 2), run.stderr
    assert "vidpool" in (run.stdout if asked else run.stderr)
