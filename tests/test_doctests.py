"""The examples in docstrings run and print what they say."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import vidpool

PACKAGE = Path(vidpool.__file__).parent
MODULES = sorted(
    ".".join(["vidpool", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(
        ".__init__"
    )
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # the module, not a function that has its name
    result = doctest.testmod(import_module(name), optionflags=FLAGS)
    assert result.attempted
    assert result.failed == 0
