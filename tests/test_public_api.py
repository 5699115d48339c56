"""``import vidpool``: cheap, complete, and seen by ``dir`` and type checkers."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import vidpool

SOURCE = Path(vidpool.__file__)
PUBLIC = [name for name in vidpool.__all__ if name != "__version__"]


def test_the_import_does_not_import_torch():
    code = "import sys, vidpool; print(sorted({'torch', 'numpy', 'av'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_is_there_with_an_example(name):
    value = getattr(vidpool, name)
    assert value is getattr(vidpool, name)
    assert name in dir(vidpool)
    assert "Examples:" in value.__doc__
    assert ">>>" in value.__doc__


def test_type_checkers_see_what_is_imported_lazily():
    tree = ast.parse(SOURCE.read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    lazy = {name: module for module, names in vidpool._MODULES.items() for name in names}
    assert typed == lazy
    assert sorted(lazy) == sorted(PUBLIC)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'SoftPol3d'"):
        vidpool.SoftPol3d  # noqa: B018
    assert import_module("vidpool.nn").SoftPool3d is vidpool.SoftPool3d
