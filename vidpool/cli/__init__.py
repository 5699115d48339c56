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

from vidpool import __version__
from vidpool.errors import StoppedError, VidpoolError

# verb → (module with a `main(verb, arguments)`, what the verb does)
VERBS = {
    "fit": ("vidpool.cli.training", "train a network on videos"),
    "validate": ("vidpool.cli.training", "accuracy on the validation videos, one view each"),
    "test": ("vidpool.cli.training", "accuracy on the test videos, over several views each"),
    "predict": ("vidpool.cli.predict", "the classes of video files, by a checkpoint"),
    "import": ("vidpool.cli.import_", "make a checkpoint of one that others made"),
    "export": ("vidpool.cli.export", "make a file that others run: ONNX, torch.export, weights"),
    "data": ("vidpool.cli.data", "make data sets, check and prepare them (vidpool data check, …)"),
    "schedule": ("vidpool.cli.schedule", "what a training will be: phases, clips, rate, cost"),
    "bench": ("vidpool.cli.bench", "time what is here (vidpool bench pool, decode, data, index)"),
    "eval": ("vidpool.cli.eval", "the paper's tables (vidpool eval similarity, mcnemar, table7)"),
    "show": (
        "vidpool.cli.show",
        "pictures (vidpool show pooling, saliency, activations, embedding, …)",
    ),
    "models": ("vidpool.cli.models", "the networks: parameters, multiply-adds, pooling layers"),
    "env": ("vidpool.cli.env", "versions, processors, and which kernels are compiled"),
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
    verbs = "\n".join(f"  {verb:<10} {what}" for verb, (_, what) in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="vidpool",
        usage="vidpool VERB [options]",
        description="Video action recognition with SoftPool.",
        epilog=f"verbs:\n{verbs}\n\n`vidpool VERB --help` says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"vidpool {__version__}")
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help=argparse.SUPPRESS)
    verb: str = parser.parse_args(arguments[:1]).verb
    arguments = [_expand_tilde(argument) for argument in arguments]
    module, _ = VERBS[verb]
    try:
        run: Callable[[str, list[str]], int] = import_module(module).main
        return run(verb, arguments[1:])
    except KeyboardInterrupt:
        print(f"vidpool {verb}: interrupted", file=sys.stderr)
        return 130
    except StoppedError as stop:
        print(f"vidpool {verb}: {stop}", file=sys.stderr)
        return 128 + stop.signal  # as shells have it
    except Exception as error:
        message = user_message(error)
        if message is None or os.environ.get("VIDPOOL_TRACEBACK"):
            raise
        print(f"vidpool {verb}: error: {message}", file=sys.stderr)
        return 1


def _expand_tilde(argument: str) -> str:
    """Expand ``~/`` after ``--option=`` too, where shells leave it."""
    option, equals, value = argument.rpartition("=")
    if value.startswith("~/") and (not equals or option.startswith("--")):
        return f"{option}{equals}{Path(value).expanduser()}"
    return argument


def user_message(error: BaseException | None) -> str | None:
    """Return the message of an error of vidpool, or of one that it was raised from; None for a bug.

    jsonargparse wraps errors of the classes that it makes in its own errors.
    """
    while error is not None and not isinstance(error, VidpoolError):
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if error is None:
        return None
    text = str(error)
    if text.startswith("Caught "):  # a loader process put its traceback before the words
        marker = f"{type(error).__name__}: "
        text = text[text.rindex(marker) + len(marker) :].strip()
    return text
