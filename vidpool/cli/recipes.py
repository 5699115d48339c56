"""Config files: those shipped with vidpool, and recipes made of parts.

``--config recipes/ucf101`` names a file of the user's, or else one that is shipped with vidpool.

A config file may begin with ``base: [part.yaml, …]``. The parts are read before the file itself, in
order, so that later values win. Their paths are relative to the file that names them, or names of
shipped files; ``~`` and environment variables are expanded. Parts may have parts.
"""

from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

import yaml

from vidpool.cli.yaml_texts import load_yaml
from vidpool.errors import ConfigError
from vidpool.files import expand_path

OPTIONS = ("-c", "--config")
SUFFIX = ".yaml"


def find_config(name: str, base_of: Path | None = None) -> Path:
    """Return the path of a config file.

    Args:
        name: Path of a file, with or without ``.yaml``, or the name of a file that is shipped with
            vidpool, such as ``recipes/ucf101`` or ``table7/hacs/i3d``. The user's own file wins.
        base_of: Config file that names it, whose folder relative paths start from. Defaults to
            none; then relative paths start from the working directory.

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
        for config in _parts(find_config(path), (), section):
            expanded += ["--config", config]
    return expanded


def _parts(path: Path, within: tuple[Path, ...], section: str | None) -> list[str]:
    """The file's parts and the file, each as a path or as YAML text."""
    if path.resolve() in within:
        raise ConfigError(f"{path}: this config is a base of itself")
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
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
    parts = [part for base in bases for part in _parts(find_config(base, path), inside, section)]
    if section is not None:
        content = {section: content[section]} if section in content else {}
    return [*parts, yaml.safe_dump(content, sort_keys=False)] if content else parts
