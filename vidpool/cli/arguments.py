"""Argument parsers of the verbs, and the options that several verbs share."""

import argparse
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from vidpool.errors import ConfigError
from vidpool.files import check_output, expand_path

PICTURES = (".png", ".jpg", ".pdf", ".svg")
LARGEST_SEED = 2**32 - 1
"""The largest seed that NumPy and scikit-learn take, as well as PyTorch."""
DATA_HELP = "`--config FILE` and `--data.OPTION VALUE` as `vidpool fit` takes them"
PLUGIN = "--plugin"
PLUGIN_HELP = (
    "import a module, or a file that ends in .py, whose networks, pooling layers, datamodules and "
    "other classes can be named here; may be repeated"
)

_options: dict[str, set[str]] = {}
"""Options of the command that runs, by the dotted name of their argument."""


class Parser(argparse.ArgumentParser):
    """An argparse parser that takes no abbreviations and prints errors in one line.

    Its help lists ``--plugin``, which :func:`take_plugins` has removed from the command line.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        self.add_argument(PLUGIN, metavar="PLUGIN", default=argparse.SUPPRESS, help=PLUGIN_HELP)

    def add_argument(self, *args: Any, **kwargs: Any) -> argparse.Action:
        """Add an argument, and note its option for :func:`option_of`."""
        action = super().add_argument(*args, **kwargs)
        if action.option_strings:
            note_options({action.dest: action.option_strings[-1]})
        return action

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse a command line; an unrecognized option exits with the options most like it."""
        parsed, rest = self.parse_known_args(args, namespace)
        self.refuse(rest)
        return parsed

    def refuse(self, arguments: Sequence[str]) -> None:
        """Exit with an error that names these arguments and similar options, if there are any."""
        if not arguments:
            return
        options = sorted(set(re.findall(r"--\w[\w-]*", self.format_help())))
        names = [argument.partition("=")[0] for argument in arguments]
        near = {
            option: None
            for name in names
            for option in get_close_matches(name.replace("-", "_").replace("__", "--", 1), options)
        }
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        self.error(f"unrecognized arguments: {' '.join(arguments)}{hint}")


def take_plugins(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the values of all ``--plugin`` options, and the other arguments.

    Raises:
        ConfigError: The last ``--plugin`` has no value.
    """
    plugins: list[str] = []
    others: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option != PLUGIN:
            others.append(argument)
            continue
        plugin = value if equals else next(rest, None)
        if not plugin:
            raise ConfigError(f"{PLUGIN} needs the name of a module or the path of a file")
        plugins.append(plugin)
    return plugins, others


def note_options(options: Mapping[str, str]) -> None:
    """Note options of the command that runs, for :func:`option_of`.

    Args:
        options: Options by the dotted name of their argument, such as ``--model.lr`` by
            ``model.lr``.
    """
    for name, option in options.items():
        _options.setdefault(name, set()).add(option)


def forget_options() -> None:
    """Forget the options of the command that ran before."""
    _options.clear()


def option_of(argument: str | None) -> str | None:
    """Return the option of the running command that sets an argument of the library.

    That is the option of this name, such as ``--clips`` for ``clips``, or else the option whose
    name ends with it, such as ``--model.init_from`` for ``init_from``. Of several, the one with the
    fewest dots counts.

    Returns:
        None if there is no such option, or if several are equally short.
    """
    if argument is None:
        return None
    found = [
        (name.count("."), option)
        for name, options in _options.items()
        if name == argument or name.endswith(f".{argument}")
        for option in options
    ]
    fewest = min((dots for dots, _ in found), default=0)
    shortest = {option for dots, option in found if dots == fewest}
    return shortest.pop() if len(shortest) == 1 else None


def run_subcommand(
    verb: str, description: str, places: Mapping[str, str], arguments: Sequence[str]
) -> int:
    """Run a verb with subcommands, ``vidpool VERB WHAT``.

    Args:
        verb: The verb.
        description: Description of the verb in its help.
        places: By the name of a subcommand the function that adds its parser, as
            ``module:function``. The function takes argparse's subparsers. It sets the defaults
            ``run``, a function of the parsed arguments that returns the exit status, and
            ``takes_data=True`` if it also takes ``--config`` and ``--data.…``. Such a function
            finds these in ``args.rest``. The whole command is in ``args.command``.
        arguments: Command line after the verb.

    Returns:
        The exit status.
    """
    parser = Parser(
        prog=f"vidpool {verb}",
        description=f"{description[0].upper()}{description[1:]}.",
        epilog=f"`vidpool {verb} WHAT --help` lists the options of a subcommand.",
    )
    subparsers = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    named = [name for name in arguments[:1] if name in places]
    for name in named or places:
        module, _, function = places[name].partition(":")
        getattr(import_module(module), function)(subparsers)
    args, rest = parser.parse_known_args(arguments)
    subparser: Parser = subparsers.choices[args.what]
    if "takes_data" in args:  # what is left is for jsonargparse
        options = ("--data", "--config", "--print_config")
        subparser.refuse([a for a in rest if a.startswith("--") and not a.startswith(options)])
    else:
        subparser.refuse(rest)
    args.rest = rest
    args.command = shlex.join(["vidpool", verb, *arguments])
    status: int = args.run(args)
    return status


def add_seed(add: Callable[..., Any], what: str = "") -> None:
    """Add ``--seed``, a whole number that every random number generator takes.

    Args:
        add: ``add_argument`` of a parser.
        what: Help text; defaults to nothing but the default.
    """
    text = f"{what} (default: %(default)s)".strip()
    add("--seed", type=_seed, default=0, metavar="N", help=text)


def _seed(text: str) -> int:
    if not (text.isdecimal() and int(text) <= LARGEST_SEED):
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 0 to {LARGEST_SEED}")
    return int(text)


def add_num_workers(add: Callable[..., Any]) -> None:
    """Add ``--num_workers``, the number of processes; None without it.

    Args:
        add: ``add_argument`` of a parser.
    """
    add("--num_workers", type=int, metavar="N", help="processes (default: one per CPU)")


def check_at_least(args: argparse.Namespace, least: float, *names: str) -> None:
    """Check numbers that were given.

    Args:
        args: The parsed options.
        least: The smallest number that is allowed.
        names: Names of the options, without dashes.

    Raises:
        ConfigError: A number is smaller, or is not a number; the message names the option.
    """
    for name in names:
        value = getattr(args, name)
        if value is not None and not value >= least:
            raise ConfigError(f"--{name} must be at least {least}, got {value}")


def add_output(add: Callable[..., Any], what: str) -> None:
    """Add ``--output`` and ``--overwrite``; :func:`results_file` reads them.

    Args:
        add: ``add_argument`` of a parser.
        what: Content of the JSON file.
    """
    add("--output", metavar="FILE.json", help=f"write {what} to it, and a picture to FILE.png")
    add("--overwrite", action="store_true", help="replace these files")


def results_file(args: argparse.Namespace) -> Path | None:
    """Return the checked path of ``--output FILE.json``; None without it.

    Args:
        args: The parsed options.

    Raises:
        ConfigError: As :func:`new_file`, for the picture FILE.png too.
    """
    if args.output is None:
        return None
    return new_file("--output", args.output, [".json"], args.overwrite, [".png"])


def new_file(
    option: str,
    name: str,
    suffixes: Sequence[str],
    overwrite: bool,
    more_suffixes: Sequence[str] = (),
) -> Path:
    """Check a file that is to be written, before any work is done for it.

    Args:
        option: The option that names the file.
        name: Value of the option.
        suffixes: Suffixes that the file may have.
        overwrite: Replace the file if it exists.
        more_suffixes: Suffixes of files of the same name that are written too.

    Returns:
        The path, with ``~`` and environment variables expanded.

    Raises:
        ConfigError: The file has another suffix, its folder does not exist, or it exists.
    """
    path = expand_path(name)
    if path.suffix not in suffixes:
        raise ConfigError(f"{path}: {option} must end in {', '.join(suffixes)}")
    for file in (path, *map(path.with_suffix, more_suffixes)):
        check_output(file, overwrite, [file.suffix])
    return path


def add_checkpoint(add: Callable[..., Any], text: str | None = None) -> None:
    """Add ``ckpt_path``, the first positional argument of every verb that takes a checkpoint.

    Args:
        add: ``add_argument`` of a parser.
        text: Help text; defaults to a checkpoint of vidpool's.
    """
    text = text or "a checkpoint of `vidpool fit` or `vidpool import`"
    add("ckpt_path", metavar="CKPT", help=text)


def add_device(add: Callable[..., Any]) -> None:
    """Add ``--device``.

    Args:
        add: ``add_argument`` of a parser.
    """
    add("--device", default="auto", help="a PyTorch device (default: %(default)s)")


def class_index(name: str, class_names: Sequence[str], owner: str) -> int:
    """Return the index of a class.

    Args:
        name: Name of the class, as the user gave it.
        class_names: All names.
        owner: The checkpoint or data set that has these classes, for the error.

    Raises:
        ConfigError: There is no class of this name; the message lists similar ones.
    """
    if name in class_names:
        return list(class_names).index(name)
    near = get_close_matches(name, class_names, n=3, cutoff=0.4) or list(class_names[:10])
    raise ConfigError(
        f"{owner} has no class {name!r}, but {len(class_names)} others, such as {', '.join(near)}"
    )
