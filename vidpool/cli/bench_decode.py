"""``vidpool bench decode``: wrong frames and CPU time per clip, by decoder."""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

from rich import box
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from vidpool.bench.decode import (
    FRAMES,
    ROUNDS,
    SHORT_SIDE,
    STRIDE,
    VIDEO_KINDS,
    DecodeResult,
    decode_chart,
    generate,
    measure_decoding,
    memory_growth,
)
from vidpool.bench.timing import describe_machine
from vidpool.cli.arguments import add_output, check_at_least, results_file
from vidpool.errors import ConfigError
from vidpool.results import provenance, wide_console, write_results

MIB = 2**20


def add_parser(what: Any) -> None:
    """Add ``decode`` to the subcommands of ``vidpool bench``."""
    parser = what.add_parser(
        "decode",
        help="time reading clips of videos, compared with decord and torchcodec",
        description=f"Read clips of {FRAMES} frames, stride {STRIDE}, short side {SHORT_SIDE}, at "
        "random places of videos. Prints CPU time compared with decord and torchcodec, one thread "
        "each, and the share of wrong frames on generated videos with numbered frames.",
        epilog=f"kinds: {', '.join(VIDEO_KINDS)}. Example: vidpool bench decode --kind gop12.mp4 "
        "my.avi",
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("files", nargs="*", metavar="FILE", help="your own videos (default: all kinds)")
    add("--kind", action="append", metavar="NAME", help="a kind to generate, repeatable")
    add("--keep", metavar="DIR", help="keep generated videos here (default: they are deleted)")
    add(
        "--rounds",
        type=int,
        default=ROUNDS,
        metavar="N",
        help="clips of each video (default: %(default)s)",
    )
    add("--memory", type=int, metavar="N", help="also read N clips and watch memory grow")
    add_output(add, "every time")


def run(args: argparse.Namespace) -> int:
    """Measure and print; the exit status is 1 if ``auto`` returned a wrong frame.

    Raises:
        ConfigError: An option cannot work.
        VideoError: A file cannot be read.
    """
    output = results_file(args)
    for kind in args.kind or []:
        if kind not in VIDEO_KINDS:
            raise ConfigError(f"kind {kind!r} is unknown; there are {', '.join(VIDEO_KINDS)}")
    check_at_least(args, 1, "rounds", "memory")
    kinds = list(dict.fromkeys(args.kind or ([] if args.files else VIDEO_KINDS)))
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        # decoders say that they return wrong frames; the table does, too
        warnings.simplefilter("ignore", UserWarning)
        folder = Path(args.keep or temporary)
        results, memory = _measure_all([Path(f) for f in args.files], kinds, folder, args)
    machine = describe_machine("cpu")
    console = wide_console()
    console.print(f"{machine['device_name']}, one thread", markup=False, highlight=False)
    console.print(_table(results))
    for result in results:
        for decoder, reason in result.missing.items():
            console.print(f"none: {decoder} on {result.name}: {reason}", markup=False)
    if memory:
        console.print(
            f"memory: {memory['start'] / MIB:.1f} MiB after the first {memory['warm_up']} clips, "
            f"{memory['end'] / MIB:.1f} MiB after {memory['clips']}, "
            f"at most {memory['most'] / MIB:.1f} MiB",
            highlight=False,
        )
    if output:
        about = {**provenance(args.command), **machine, "threads": 1}
        content = {
            "clip": {"frames": FRAMES, "stride": STRIDE, "short_side": SHORT_SIDE},
            "files": [result.as_dict() for result in results],
            "memory_bytes": memory or None,
        }
        for path in write_results(output, about, content, decode_chart(results, machine)):
            print(f"wrote {path}")
    return 1 if any(result.wrong.get("auto") for result in results) else 0


def _measure_all(
    files: list[Path], kinds: list[str], folder: Path, args: argparse.Namespace
) -> tuple[list[DecodeResult], dict[str, int]]:
    results = []
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    # the thread that else draws the bar would disturb what is measured
    with Progress(*columns, transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=2 * len(kinds) + len(files))
        paths = []
        for kind in kinds:
            bar.update(task, description=f"generating {kind}", refresh=True)
            paths.append(generate(kind, folder))
            bar.advance(task)
        paths += files
        for path in paths:
            bar.update(task, description=path.name, refresh=True)
            results.append(measure_decoding(path, args.rounds))
            bar.advance(task)
        if not args.memory:
            return results, {}
        task = bar.add_task("memory", total=args.memory)
        warm_up = max(args.memory // 10, 1)
        start = most = end = 0
        for done, held in memory_growth(paths, args.memory):
            start = held if done == warm_up else start
            most, end = max(most, held), held
            bar.update(task, completed=done, refresh=done % 50 == 0)
    return results, {
        "clips": args.memory,
        "warm_up": warm_up,
        "start": start,
        "end": end,
        "most": most,
    }


def _table(results: list[DecodeResult]) -> Table:
    """CPU times as milliseconds and as ratios to decord's, and shares of wrong frames."""
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="CPU time of a random clip, opening included, as median; ratios are to decord's, "
        "which scales while it decodes, as torchcodec does. fast: auto without the loop filter; "
        "dB: how near its pixels are to exact ones. wrong: frames that are not those asked for.",
        caption_justify="left",
    )
    table.add_column("file", overflow="fold")
    for name in (
        *("decord\nms", "auto\nms", "auto\n/decord", "fast\n/decord", "fast\ndB"),
        *("torchcodec\n/decord", "auto\nwrong", "torchcodec\nwrong", "decord\nwrong"),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        times = [result.times.get(decoder) for decoder in ("decord", "auto")]
        ratios = [result.ratio(decoder) for decoder in ("auto", "auto fast", "torchcodec")]
        cells = [f"{1e3 * time.median:.1f}" if time else "none" for time in times]
        cells += ["none" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        cells.insert(4, "same" if result.fast_psnr is None else f"{result.fast_psnr:.1f}")
        for decoder in ("auto", "torchcodec", "decord"):
            wrong = result.wrong.get(decoder)
            cells.append("" if wrong is None else f"{wrong:.0%}")
        table.add_row(result.name, *cells)
    return table
