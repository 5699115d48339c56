"""Recipes made of parts: a config file may begin with ``base: [part.yaml, …]``.

The parts are read before the file itself, in order, so that later values win. Paths are relative
to the file that names them, or begin with ``~`` or an environment variable; parts may have parts.
"""

from pathlib import Path

import yaml

from vidpool.cli.yaml_texts import load_yaml
from vidpool.errors import ConfigError
from vidpool.files import expand_path

OPTIONS = ("-c", "--config")


def expand_bases(arguments: list[str], section: str | None = None) -> list[str]:
    """Replace each ``--config FILE`` with ``--config`` options for its parts and its own values.

    Args:
        arguments: A command line.
        section: Keep nothing else of the files than this section, such as ``data``.

    Returns:
        The command line; a file that has a ``base``, or sections that are not kept, is given by the
        text of the rest.

    Raises:
        ConfigError: A file is missing, is not YAML, or is a part of itself.
    """
    expanded: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option not in OPTIONS:
            expanded.append(argument)
            continue
        path = value if equals else next(rest, None)
        if path is None:
            raise ConfigError(f"{option} needs the path of a config file")
        for config in _parts(expand_path(path), (), section):
            expanded += ["--config", config]
    return expanded


def _parts(path: Path, within: tuple[Path, ...], section: str | None) -> list[str]:
    """The file's parts and the file, each as a path or as YAML text."""
    if path.resolve() in within:
        raise ConfigError(f"{path}: this config is a base of itself")
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        named = f" (a base of {within[-1]})" if within else ""
        raise ConfigError(f"{path}: no such config file{named}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML ({error})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a config file holds settings by name, such as `model: …`")
    if "base" not in content and section is None:
        return [str(path)]
    bases = content.pop("base", [])
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{path}: base must be a list of paths, got {bases!r}")
    inside = (*within, path.resolve())
    parts = [
        part for base in bases for part in _parts(path.parent / expand_path(base), inside, section)
    ]
    if section is not None:
        content = {section: content[section]} if section in content else {}
    return [*parts, yaml.safe_dump(content, sort_keys=False)] if content else parts
