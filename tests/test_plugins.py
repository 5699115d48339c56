"""Modules and files of the user's own that are loaded before vidpool looks for a name."""

import multiprocessing
import subprocess
import sys

import pytest

from vidpool import plugins
from vidpool.errors import ConfigError
from vidpool.plugins import load_installed_plugins, load_plugin, loaded_plugins


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """Load nothing that stays, in an empty folder."""
    modules = set(sys.modules)
    monkeypatch.setattr(plugins, "_LOADED", {})
    monkeypatch.setattr(plugins, "_INSTALLED", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_is_the_module_of_its_name(tmp_path):
    file = write(tmp_path / "own/my_own_nets.py", "import my_own_part\nVALUES = [1]\n")
    write(tmp_path / "own/my_own_part.py", "")
    module = load_plugin("own/my_own_nets.py")
    assert (module.__name__, module.__file__) == ("my_own_nets", str(file))
    assert sys.modules["my_own_nets"] is module
    assert load_plugin(file) is module  # it is loaded once, whatever its path is written like
    assert loaded_plugins() == [str(file)]


def test_a_module_is_found_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    write(tmp_path / "my_own_package/nets.py", "VALUE = 1\n")
    assert load_plugin("my_own_package.nets").VALUE == 1
    assert loaded_plugins() == ["my_own_package.nets"]


def test_paths_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("OWN", str(tmp_path))
    write(tmp_path / "my_own_expanded.py", "")
    assert load_plugin("$OWN/my_own_expanded.py").__name__ == "my_own_expanded"


def test_a_spawned_process_imports_it(tmp_path):
    write(tmp_path / "own/my_own_function.py", "def add(a, b):\n    return a + b\n")
    add = load_plugin("own/my_own_function.py").add
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(add, (1, 2)) == 3


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        ("none.py", r"^none\.py: no such plugin file$"),
        ("none/none", r"^none/none: no such plugin file$"),
        ("my_own_none.part", r"^my_own_none\.part: there is no module 'my_own_none'; install"),
        ("json.my_own", r"^json\.my_own: there is no module 'json\.my_own'"),
        ("my-own.py", r"'my-own' is no name of a module; rename it"),
        ("json.py", r"json\.py: there is another module 'json' \(.*json.__init__\.py\); rename"),
        ("broken.py", r"broken\.py: .*: invalid syntax \(.*broken\.py, line 2\)$"),
        ("absent.py", r"ModuleNotFoundError: No module named 'my_own_none' \(.*absent\.py, line 3"),
        ("refused.py", r"ConfigError: .* \(.*refused\.py, line 2\)$"),
        ("package_that_fails", r"the plugin cannot be loaded: ZeroDivisionError: .*line 1\)$"),
    ],
)
def test_mistakes_are_told_with_file_and_line(tmp_path, plugin, message):
    for name, text in {
        "my-own": "",
        "json": "",
        "broken": "a = 1\nb = = 2\n",
        "absent": "import os\n\nimport my_own_none\n",
        "refused": "from vidpool.files import expand_path\nexpand_path('$MY_OWN_UNSET')\n",
        "package_that_fails/__init__": "1 / 0\n",
    }.items():
        write(tmp_path / f"{name}.py", text)
    with pytest.raises(ConfigError, match=message) as error:
        load_plugin(plugin)
    assert error.value.argument == "plugin"
    assert "broken" not in sys.modules
    assert loaded_plugins() == []


def install(folder, value):
    """Write what an installed distribution has, which announces a plugin."""
    info = folder / "my_distribution-1.2.dist-info"
    write(info / "METADATA", "Metadata-Version: 2.1\nName: my-distribution\nVersion: 1.2\n")
    write(info / "entry_points.txt", f"[vidpool.plugins]\nnets = {value}\n")
    sys.path.append(str(folder))


def test_installed_packages_announce_plugins(tmp_path):
    write(tmp_path / "site/my_own_installed.py", "TIMES = []\n")
    install(tmp_path / "site", "my_own_installed")
    assert load_installed_plugins() == load_installed_plugins() == ["nets"]
    assert "my_own_installed" in sys.modules


def test_an_installed_plugin_that_fails_names_its_distribution(tmp_path):
    write(tmp_path / "site/my_own_failing.py", "\n\nimport my_own_none\n")
    install(tmp_path / "site", "my_own_failing")
    message = (
        r"^the plugin 'nets' \(my_own_failing\) of the distribution my-distribution 1\.2 cannot be "
        r"loaded: ModuleNotFoundError: No module named 'my_own_none' \(.*my_own_failing\.py, line 3"
    )
    with pytest.raises(ConfigError, match=message):
        load_installed_plugins()


def test_loading_needs_no_torch():
    code = "import sys, vidpool.plugins; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
