r"""Config files by name and from parts, their data section, and the datamodules they may name.

``--config recipes/ucf101`` names a file of the user's, or else one that is shipped with vidpool.

A config file may begin with ``base: [part.yaml, …]``. The parts are read before the file itself, in
order, so that later values win. Their paths are relative to the file that names them, or names of
shipped files; ``~`` and environment variables are expanded. Parts may have parts.

File names that are not UTF-8 contain lone surrogates in Python. PyYAML writes them as ``"\uDCE9"``,
but libyaml does not read that; :func:`load_yaml` does.
"""

import argparse
import re
from collections.abc import Callable
from difflib import get_close_matches
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace, get_loader, set_loader

from vidpool.cli.arguments import note_options
from vidpool.data.datamodule import VideoDataModule
from vidpool.data.registry import datamodules, find_datamodule
from vidpool.errors import ConfigError
from vidpool.files import expand_path

CONFIG_OPTIONS = ("-c", "--config")
DATA_OPTIONS = ("--data", "--data.class_path")
SUFFIX = ".yaml"
_SURROGATE = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")
_load_other = get_loader("yaml")


def find_config(name: str, base_of: Path | None = None) -> Path:
    """Return the path of a config file.

    Args:
        name: Path of a file, with or without ``.yaml``, or the name of a file that is shipped with
            vidpool, such as ``recipes/ucf101`` or ``table7/hacs/i3d``. The user's own file wins.
        base_of: Config file that names this one as a part; relative paths start from its folder.
            Defaults to None: relative paths start from the working directory.

    Raises:
        ConfigError: There is no such file; the message suggests names of shipped files.
    """
    path = expand_path(name)
    for folder in (Path() if base_of is None else base_of.parent, shipped_configs()):
        for file in (folder / path, folder / f"{path}{SUFFIX}"):
            if file.is_file():
                return file
    near = get_close_matches(name.removesuffix(SUFFIX), config_names(), n=3)
    hint = f"; shipped with vidpool are {', '.join(near)}" if near else ""
    named = "" if base_of is None else f" (a base of {base_of})"
    raise ConfigError(f"{name}: no such config file{named}{hint}")


def config_names() -> list[str]:
    """Return the names of the config files that are shipped with vidpool, sorted."""
    shipped = shipped_configs()
    return sorted(
        file.relative_to(shipped).with_suffix("").as_posix() for file in shipped.rglob(f"*{SUFFIX}")
    )


def shipped_configs() -> Path:
    """Return the folder of the config files that are shipped with vidpool."""
    return Path(str(files("vidpool.configs")))


def expand_bases(arguments: list[str], section: str | None = None) -> list[str]:
    """Replace each ``--config FILE`` with ``--config`` options for its parts and its own values.

    The names of registered datamodules are replaced by the import paths of their classes.

    Args:
        arguments: A command line.
        section: Section of the files to keep, such as ``data``. Defaults to None: all of them.

    Returns:
        The command line. A file with a ``base``, or with sections that are left out, is replaced by
        the text of the rest.

    Raises:
        ConfigError: A file is missing, is not YAML, or is a part of itself.
    """
    expanded: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option in DATA_OPTIONS:
            expanded.append(option)
            expanded += [_import_path(name) for name in ([value] if equals else islice(rest, 1))]
            continue
        if option not in CONFIG_OPTIONS:
            expanded.append(argument)
            continue
        path = value if equals else next(rest, None)
        if path is None:
            raise ConfigError(f"{option} needs the path of a config file")
        for config in _parts(find_config(path), (), section):
            expanded += ["--config", config]
    return expanded


def _parts(path: Path, users: tuple[Path, ...], section: str | None) -> list[str]:
    """Return the file's parts and the file, each as a path or as YAML text.

    ``users`` are the files that the file is a part of.
    """
    if path.resolve() in users:
        raise ConfigError(f"{path}: this config is a base of itself")
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML ({error})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a config file holds settings by name, such as `model: …`")
    data = content.get("data")
    named = data.get("class_path") if isinstance(data, dict) else data
    class_path = _import_path(named) if isinstance(named, str) else named
    registered = class_path != named
    if registered:
        content["data"] = (
            {**data, "class_path": class_path} if isinstance(data, dict) else class_path
        )
    if "base" not in content and section is None and not registered:
        return [str(path)]
    bases = content.pop("base", [])
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{path}: base must be a list of paths, got {bases!r}")
    users = (*users, path.resolve())
    parts = [part for base in bases for part in _parts(find_config(base, path), users, section)]
    if section is not None:
        content = {section: content[section]} if section in content else {}
    return [*parts, yaml.safe_dump(content, sort_keys=False)] if content else parts


def _import_path(name: str) -> str:
    """Return the import path of a registered datamodule; import paths are returned unchanged.

    jsonargparse finds a class by its import path, or by its name if that is unique.

    Raises:
        ConfigError: No datamodule has this name; the message suggests names.
    """
    is_registered = name in datamodules()
    if not is_registered and (not name.isidentifier() or name in _names_of_datamodules()):
        return name
    found = find_datamodule(name)
    return f"{found.__module__}.{found.__qualname__}"


def _names_of_datamodules() -> set[str]:
    """Return the names of all datamodules that are imported, registered or not."""
    classes: list[type] = [pl.LightningDataModule]
    for each in classes:
        classes += each.__subclasses__()
    return {"null", *(each.__name__ for each in classes)}


def add_config(add: Callable[..., Any]) -> None:
    """Add ``--config`` to a parser with positional arguments; :func:`data_arguments` reads it.

    Without it, argparse would take the value of ``--config`` for a positional argument.

    Args:
        add: ``add_argument`` of a parser.
    """
    text = "a recipe, or only its data section"
    add("--config", "-c", action="append", default=[], metavar="FILE", help=text)


def data_arguments(args: argparse.Namespace) -> list[str]:
    """Return ``--config FILE`` and ``--data.option VALUE`` for :func:`parse_data`, if any.

    Args:
        args: The parsed options, with those that the parser does not know as ``rest``.
    """
    return [*(part for file in args.config for part in ("--config", file)), *args.rest]


def parse_data(command: str, arguments: list[str]) -> Namespace:
    """Parse ``--config FILE`` and ``--data.option VALUE``; other sections of the files are ignored.

    Args:
        command: The verb and subcommand, for help and errors.
        arguments: The options.

    Returns:
        ``class_path`` and, with all defaults, ``init_args``.

    Raises:
        ConfigError: A file is missing or wrong, or names no datamodule.
    """
    return _parse(command, arguments)[1].data


def make_datamodule(command: str, arguments: list[str]) -> VideoDataModule:
    """Make the datamodule that the options describe.

    Args:
        command: As for :func:`parse_data`.
        arguments: As for :func:`parse_data`.

    Raises:
        ConfigError: As :func:`parse_data`; or a setting cannot work.
        DataError: The data are not where the settings say.
    """
    parser, settings = _parse(command, arguments)
    return parser.instantiate(settings).data


def _parse(command: str, arguments: list[str]) -> tuple[ArgumentParser, Namespace]:
    read_surrogates()
    parser = ArgumentParser(
        prog=f"vidpool {command}", usage=f"vidpool {command} --config FILE [--data.OPTION VALUE]..."
    )
    parser.add_argument("--config", "-c", action=ActionConfigFile)
    parser.add_subclass_arguments(VideoDataModule, "data")
    missing = ConfigError(f"vidpool {command} needs --config FILE with a section `data`")
    # without a class, jsonargparse's own error would be about abstract classes
    if not any(argument.partition("=")[0] in (*CONFIG_OPTIONS, "--data") for argument in arguments):
        raise missing
    settings = parser.parse_args(expand_bases(arguments, section="data"))
    if settings.get("data") is None:
        raise missing
    note_settings(settings)
    return parser, settings


def note_settings(settings: Namespace) -> None:
    """Note the options of parsed settings, so that errors can name them.

    Settings of the class of a section, such as ``data.init_args.root``, are typed ``--data.root``.
    """
    names = (name.replace(".init_args.", ".") for name in settings.keys(branches=True))
    note_options({name: f"--{name}" for name in names})


def load_yaml(text: str) -> Any:
    """Return the values of a YAML text, which may contain lone surrogates, escaped or not.

    Raises:
        yaml.YAMLError: The text is not valid YAML.
    """
    return yaml.load(text, _Loader if _SURROGATE.search(text) else yaml.SafeLoader)


def read_surrogates() -> None:
    """Make jsonargparse read values and config files with names that are not UTF-8."""
    set_loader("yaml", _load, (yaml.YAMLError,))


def _load(text: str) -> Any:
    return load_yaml(text) if _SURROGATE.search(text) else _load_other(text)


class _Loader(yaml.SafeLoader):
    """PyYAML's loader written in Python; like jsonargparse's, it reads 1e-3 as a number."""

    def check_printable(self, data: str) -> None:
        """Refuse characters that YAML does not allow, except surrogates."""
        super().check_printable(re.sub("[\ud800-\udfff]", "", data))


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)
