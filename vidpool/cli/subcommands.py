"""Verbs that do several things, ``vidpool VERB WHAT``: one way from the command line to each."""

import argparse
import shlex
from collections.abc import Callable, Sequence
from typing import Any


def run_subcommand(
    verb: str,
    arguments: list[str],
    parts: Sequence[Callable[[Any], None]],
    description: str,
    epilog: str | None = None,
) -> int:
    """Parse the command line and run what it names.

    Args:
        verb: The verb.
        arguments: What follows it.
        parts: Each adds the parser of one WHAT to argparse's subparsers, with the defaults ``run``,
            a function of the parsed arguments that returns the exit status, and ``takes_rest=True``
            where it takes options that are not its own, such as ``--data.…``. It finds these in
            ``args.rest``, and the whole command in ``args.command``.
        description: What the verb does.
        epilog: Of the verb's own help.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog=f"vidpool {verb}", description=description, epilog=epilog, allow_abbrev=False
    )
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for add in parts:
        add(what)
    args, rest = parser.parse_known_args(arguments)
    args.rest = rest
    if rest and "takes_rest" not in args:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.command = shlex.join(["vidpool", verb, *arguments])
    return args.run(args)
