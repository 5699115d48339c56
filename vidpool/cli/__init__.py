"""The ``vidpool`` command: each verb is a thin layer over a documented Python function.

Nothing here imports PyTorch before the verb is known, so that ``vidpool --help`` answers at once.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import NamedTuple

from vidpool import __version__
from vidpool.cli.arguments import (
    Parser,
    forget_options,
    option_of,
    run_subcommand,
    take_plugins,
)
from vidpool.errors import StoppedError, VidpoolError
from vidpool.plugins import load_installed_plugins, load_plugin


class Verb(NamedTuple):
    """One verb of the command line."""

    description: str
    module: str = ""
    """Module with ``main(verb, arguments)``, or with a function ``add_WHAT`` for each subcommand.

    Empty if each subcommand has its own module, with ``add_parser``.
    """
    subcommands: tuple[str, ...] = ()
    """Names of the subcommands. That of ``vidpool show pooling`` is in ``show_pooling.py``."""


VERBS = {
    "fit": Verb("train a network on videos", "training"),
    "validate": Verb("measure accuracy on the validation videos, one view each", "training"),
    "test": Verb("measure accuracy on the test videos, several views each", "training"),
    "predict": Verb("classify video files with a checkpoint", "predict"),
    "import": Verb("convert a third-party checkpoint", "import_"),
    "export": Verb("export a network as ONNX, torch.export or weights", "export"),
    "data": Verb(
        "make, check and prepare data sets", "data", ("demo", "check", "prepare", "shard")
    ),
    "schedule": Verb("preview the training schedule and its cost", "schedule"),
    "bench": Verb("run benchmarks", subcommands=("pool", "decode", "index", "data")),
    "eval": Verb(
        "reproduce tables of the SoftPool paper", subcommands=("similarity", "mcnemar", "table7")
    ),
    "show": Verb(
        "draw figures of videos, pooling and networks",
        subcommands=("augment", "activations", "embedding", "pooling", "saliency"),
    ),
    "models": Verb("list the networks with their parameters, cost and pooling layers", "models"),
    "env": Verb("show versions, hardware and the active SoftPool kernels", "env"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Errors that the user can mend are printed without a traceback and end with status 1; set
    ``VIDPOOL_TRACEBACK=1`` to see where they come from.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names that it cannot encode are shown escaped
            stream.reconfigure(errors="backslashreplace")
    verbs = "\n".join(
        f"  {name:<10} {verb.description}"
        + (f": {', '.join(verb.subcommands)}" if verb.subcommands else "")
        for name, verb in VERBS.items()
    )
    parser = Parser(
        prog="vidpool",
        usage="vidpool VERB [options]",
        description="Video action recognition with SoftPool.",
        epilog=f"verbs:\n{verbs}\n\n`vidpool VERB --help` lists the options of a verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vidpool {__version__}")
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help=argparse.SUPPRESS)
    try:
        plugins, arguments = take_plugins(arguments)
    except VidpoolError as error:
        parser.error(str(error))
    verb: str = parser.parse_args(arguments[:1]).verb
    arguments = [_expand_tilde(argument) for argument in arguments]
    forget_options()
    try:
        load_installed_plugins()
        for plugin in plugins:
            load_plugin(plugin)
        return _run(verb, arguments[1:])
    except KeyboardInterrupt:
        print(f"vidpool {verb}: interrupted", file=sys.stderr)
        return 130
    except StoppedError as stop:
        resume = "" if stop.checkpoint is None else f"; resume with --ckpt_path {stop.checkpoint}"
        print(f"vidpool {verb}: {stop.reason}{resume}", file=sys.stderr)
        return 128 + stop.signal  # as shells have it
    except Exception as error:
        cause = user_error(error)
        if cause is None or os.environ.get("VIDPOOL_TRACEBACK"):
            raise
        message = user_message(cause)
        print(f"vidpool {verb}: error: {message}", file=sys.stderr)
        option = option_of(cause.argument)
        if option is not None and option not in message:
            print(f"  option: {option}", file=sys.stderr)
        return 1


def _run(verb: str, arguments: list[str]) -> int:
    """Run a verb and return its exit status."""
    description, module, subcommands = VERBS[verb]
    if subcommands:
        places = {
            name: f"{module}:add_{name}" if module else f"{verb}_{name}:add_parser"
            for name in subcommands
        }
        places = {name: f"{__name__}.{place}" for name, place in places.items()}
        return run_subcommand(verb, description, places, arguments)
    run: Callable[[str, list[str]], int] = import_module(f"{__name__}.{module}").main
    return run(verb, arguments)


def _expand_tilde(argument: str) -> str:
    """Expand ``~/`` after ``--option=`` too, where shells leave it."""
    option, equals, value = argument.rpartition("=")
    if value.startswith("~/") and (not equals or option.startswith("--")):
        return f"{option}{equals}{Path(value).expanduser()}"
    return argument


def user_error(error: BaseException | None) -> VidpoolError | None:
    """Return an error of vidpool, or the one that an error was raised from; None for a bug.

    jsonargparse wraps errors of the classes that it makes in its own errors.
    """
    while error is not None and not isinstance(error, VidpoolError):
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error


def user_message(error: VidpoolError) -> str:
    """Return the message of an error, without the traceback that a loader process adds."""
    text = str(error)
    if text.startswith("Caught "):
        marker = f"{type(error).__name__}: "
        text = text[text.rindex(marker) + len(marker) :].strip()
    return text
