"""Plugins: modules and files of the user's own that register models, poolings and datamodules.

A plugin is Python code that is imported before vidpool looks for a name. Whatever it defines or
registers can be named on the command line, which loads plugins with ``--plugin``. Installed
packages announce plugins as entry points of the group ``vidpool.plugins``.
"""

import os
import sys
import traceback
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from vidpool.errors import ConfigError
from vidpool.files import expand_path

GROUP = "vidpool.plugins"
"""The group of entry points that installed packages announce plugins in."""

_LOADED: dict[str, ModuleType] = {}
"""Plugins that were loaded by name or path, by the absolute path or the name of the module."""
_INSTALLED: dict[EntryPoint, object] = {}
_PACKAGE = str(Path(__file__).parent)


def load_plugin(plugin: str | os.PathLike[str]) -> ModuleType:
    """Import a plugin, unless it is loaded already.

    A file becomes the module of its name, so that ``my_plugin.py`` gives ``my_plugin.MyNet``. The
    file's folder is appended to ``sys.path``, so that loader workers and further files of the
    plugin can import from there.

    Args:
        plugin: The name of a module, such as ``my_package.module``, which is installed or lies in
            the working directory; or the path of a file, such as ``plugins/my_plugin.py``. ``~``
            and environment variables are expanded.

    Returns:
        The module.

    Raises:
        ConfigError: There is no such file or module, its name is that of another module, or it
            raises an error; the message gives file and line.

    Examples:
        >>> from pathlib import Path
        >>> from tempfile import mkdtemp
        >>> file = Path(mkdtemp()) / "my_nets.py"
        >>> _ = file.write_text("WIDTH = 8")
        >>> from vidpool.plugins import load_plugin
        >>> load_plugin(file).WIDTH
        8
    """
    text = os.fspath(plugin)
    if text.endswith(".py") or Path(text).name != text:
        return _load_file(text)
    if text not in _LOADED:
        _LOADED[text] = _load_module(text)
    return _LOADED[text]


def load_installed_plugins() -> list[str]:
    """Load the plugins that installed packages announce, unless they are loaded already.

    Returns:
        The names of the entry points.

    Raises:
        ConfigError: A plugin raises an error; the message names its distribution.
    """
    found: Iterable[EntryPoint] = entry_points(group=GROUP)
    for entry in found:
        if entry in _INSTALLED:
            continue
        try:
            _INSTALLED[entry] = entry.load()
        except Exception as error:
            owner = "an unknown distribution"
            if entry.dist is not None:
                owner = f"the distribution {entry.dist.name} {entry.dist.version}"
            raise ConfigError(
                f"the plugin {entry.name!r} ({entry.value}) of {owner} cannot be loaded: "
                f"{_reason(error)}; repair or uninstall it"
            ) from error
    return [entry.name for entry in _INSTALLED]


def loaded_plugins() -> list[str]:
    """Return what :func:`load_plugin` has loaded: names of modules, absolute paths of files."""
    return list(_LOADED)


def _load_file(text: str) -> ModuleType:
    path = expand_path(text).absolute()
    key = str(path)
    if key in _LOADED:
        return _LOADED[key]
    if not path.is_file():
        raise ConfigError(f"{text}: no such plugin file", argument="plugin")
    name = path.stem
    if not name.isidentifier():
        raise ConfigError(
            f"{text}: a plugin becomes the module of its name, but {name!r} is no name of a "
            "module; rename it with letters, digits and _",
            argument="plugin",
        )
    _check_free(name, path)
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _plugin_error(text, error) from error
    _LOADED[key] = module
    return module


def _check_free(name: str, path: Path) -> None:
    """Raise an error if a file's name is that of another module.

    Raises:
        ConfigError: It is.
    """
    other = getattr(sys.modules[name], "__file__", None) if name in sys.modules else None
    if name not in sys.modules:
        spec = find_spec(name)
        if spec is None:
            return
        other = spec.origin
    if other is None or not Path(other).exists() or not path.samefile(other):
        raise ConfigError(
            f"{path}: there is another module {name!r} ({other or 'a package'}); rename the file",
            argument="plugin",
        )


def _load_module(name: str) -> ModuleType:
    if not {"", str(Path.cwd())} & set(sys.path):  # the command `vidpool` does not look here
        sys.path.append(str(Path.cwd()))
    try:
        return import_module(name)
    except Exception as error:
        absent = isinstance(error, ModuleNotFoundError) and (
            error.name is not None and f"{name}.".startswith(f"{error.name}.")
        )
        if absent:
            raise ConfigError(
                f"{name}: there is no module {error.name!r}; install the plugin's package, or give "  # type: ignore[attr-defined]
                "the path of a file that ends in .py",
                argument="plugin",
            ) from error
        raise _plugin_error(name, error) from error


def _plugin_error(plugin: str, error: Exception) -> ConfigError:
    return ConfigError(f"{plugin}: the plugin cannot be loaded: {_reason(error)}", "plugin")


def _reason(error: Exception) -> str:
    """Return the error in one line, with file and line of the code that raised it."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} ({error.filename}, line {error.lineno})"
    text = " ".join(str(error).split())
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and not frame.filename.startswith("<frozen importlib")
    ]
    # the plugin's own line is more to the point than one within a package that it calls
    own = [each for each in frames if "site-packages" not in each.filename] or frames
    own = [each for each in own if not each.filename.startswith(_PACKAGE)] or own
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {text}{place}"
