"""Entries of a registry are replaced from the same origin only."""

from functools import partial

import pytest

from vidpool.errors import ConfigError
from vidpool.registration import Origin


def run(code, module, file):
    """Run a module or a notebook's cell, and return the origin that it computes."""
    variables = {"__name__": module, "register": lambda entry: Origin.of(entry)}
    exec(compile(code, file, "exec"), variables)
    return variables["origin"]


CELL = "def entry(): pass\norigin = register(entry)"


def test_a_cell_that_is_run_again_has_the_same_origin():
    first, second = (run(CELL, "__main__", f"<cell {number}>") for number in (1, 2))
    first.check_replaceable_by(second, "it")


def test_a_file_that_is_loaded_twice_has_the_same_origin(tmp_path):
    file = tmp_path / "plugin.py"
    file.write_text(CELL)
    first, second = (run(CELL, name, str(file)) for name in ("plugin", "zoo.plugin"))
    first.check_replaceable_by(second, "it")


@pytest.mark.parametrize(
    "other",
    [CELL, "from torch import nn\norigin = register(nn.Linear)", "origin = register(print)"],
)
def test_other_modules_have_other_origins(other):
    first, second = run(CELL, "one", "one.py"), run(other, "two", "two.py")
    with pytest.raises(ConfigError, match=r"^it is registered already, by one \(one.py\): choose"):
        first.check_replaceable_by(second, "it")


def test_who_registers_counts_as_well_as_what_is_registered():
    code = "from torch import nn\norigin = register(nn.Linear)"
    first, second = run(code, "one", "one.py"), run(code, "two", "two.py")
    with pytest.raises(ConfigError):
        first.check_replaceable_by(second, "it")


def test_partials_and_objects_have_the_origin_of_their_function_or_class():
    class Callable:
        def __call__(self):
            pass

    def function():
        pass

    for entry in (partial(partial(function)), Callable(), Callable):
        assert Origin.of(entry, depth=0).definition.module == __name__
        assert Origin.of(entry, depth=0).definition.file == __file__
