"""``vidpool bench data``: clips per second of loading, by stage and number of workers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.progress import Progress
from rich.table import Table

from vidpool.bench.data import (
    PYTORCHVIDEO,
    STAGES,
    VIDPOOL,
    ClipSource,
    LoadingResult,
    loading_chart,
    measure_loading,
)
from vidpool.bench.timing import describe_machine
from vidpool.cli.arguments import DATA_HELP, add_output, check_at_least, results_file
from vidpool.cli.configs import make_datamodule
from vidpool.data.catalogue.table import LabelledVideo
from vidpool.data.datamodule import VideoDataModule
from vidpool.data.dataset import TrainingClips
from vidpool.data.listed import ListedDataModule
from vidpool.data.parallel import usable_cpus
from vidpool.data.transforms.augmentation import Augmentation
from vidpool.data.views import ClipShape
from vidpool.errors import ConfigError
from vidpool.results import provenance, wide_console, write_results

FILES = ClipShape(frames=16, stride=4, crop=112)  # clips of files where no config says


class _NoDataSet(VideoDataModule):
    """Default settings for reading files without a config."""

    class_names = ["none"]  # noqa: RUF012 (a property in the base class)


def add_parser(what: Any) -> None:
    """Add ``data`` to the subcommands of ``vidpool bench``."""
    parser = what.add_parser(
        "data",
        help="time the loading of training clips, compared with PyTorchVideo",
        usage="%(prog)s [--config FILE] [--files FILE...] [options] [--data.OPTION VALUE]...",
        description="Load random training clips of a data set, or of each FILE. Prints "
        "milliseconds per clip by stage, clips per second for several numbers of workers, compared "
        "with PyTorchVideo's LabeledVideoDataset on the same videos, and how many workers a "
        "training step needs.",
        epilog=f"{DATA_HELP}. Example: vidpool bench data --config data/ucf101 --step_ms 250",
    )
    parser.set_defaults(run=run, takes_data=True)
    add = parser.add_argument
    # not as positional arguments, which would swallow the values of --config and --data.…
    add("--files", nargs="+", default=[], metavar="FILE", help="videos, each measured alone")
    add(
        "--num_workers",
        type=int,
        nargs="+",
        metavar="N",
        help="(default: 1, 2, 4, … up to the CPUs)",
    )
    add("--step_ms", type=float, default=250, metavar="MS", help="(default: %(default)s)")
    add("--clips", type=int, default=64, metavar="N", help="of each round (default: %(default)s)")
    add("--rounds", type=int, default=3, metavar="N", help="(default: %(default)s)")
    add("--device", choices=["cpu", "cuda"], default="cpu", help="(default: %(default)s)")
    add("--no_peer", action="store_true", help="do not measure PyTorchVideo")
    add_output(add, "every time")


def run(args: argparse.Namespace) -> int:
    """Measure and print.

    Raises:
        ConfigError: An option cannot work.
        DataError: The data set is not on disk.
        VideoError: A file cannot be read.
    """
    output = results_file(args)
    cpus = usable_cpus()
    workers = args.num_workers or [2**i for i in range(cpus.bit_length())]
    check_at_least(args, 1, "clips", "rounds")
    check_at_least(args, 1e-3, "step_ms")
    if min(workers) < 1:
        raise ConfigError(f"--num_workers must be at least 1, got {min(workers)}")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda' cannot be used: PyTorch finds no GPU here")
    sources = _sources(args.files, args.rest)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in loader processes
    results = []
    try:
        with Progress(transient=True, auto_refresh=False) as bar:
            for source in sources:
                task = bar.add_task(source.name, total=1 + args.rounds * len(workers))
                bar.refresh()
                for result in measure_loading(
                    source, workers, args.clips, args.rounds, args.device, not args.no_peer
                ):
                    bar.update(task, advance=1, refresh=True)
                    if result not in results:
                        results.append(result)
    finally:
        torch.set_num_threads(threads)

    machine = describe_machine(args.device)
    console = wide_console()
    console.print(f"{machine['device_name']}, {cpus} CPUs", markup=False, highlight=False)
    console.print(_stage_table(results))
    console.print(_rate_table(results, workers))
    for result in results:
        if result.missing:
            console.print(f"none: {PYTORCHVIDEO} on {result.name}: {result.missing}", markup=False)
        print(result.workers_needed(args.step_ms / 1e3, cpus))
    if output:
        about = {**provenance(args.command), **machine, "cpus": cpus}
        content = [result.as_dict() for result in results]
        for path in write_results(output, about, content, loading_chart(results, machine)):
            print(f"wrote {path}")
    return 0


def _sources(files: list[str], rest: list[str]) -> list[ClipSource]:
    """Return the data set, or one source per file; files are read with the config's settings."""
    if rest:
        data = make_datamodule("bench data", rest)
    elif files:
        # sizes as PyTorchVideo's recipe draws them, so that both do the same
        augment = Augmentation(crop="short_side")
        data = _NoDataSet(
            frames=FILES.frames, stride=FILES.stride, crop=FILES.crop, augment=augment
        )
    else:
        raise ConfigError("vidpool bench data needs --config FILE, or --files with videos")
    p = data.preprocessing
    if files:
        sources = []
        for name in files:
            clips = TrainingClips(
                [LabelledVideo(name, 0)],
                data.augment,
                data.decoder,
                fast=data.fast,
                square_pixels=p.square_pixels,
            )
            sources.append(ClipSource(Path(name).name, clips, data, p.shape, data.batch_size))
        return sources
    if not isinstance(data, ListedDataModule):
        raise ConfigError(f"{type(data).__name__} has no files to draw clips of")
    clips = TrainingClips(
        data.videos("train"),
        data.augment,
        data.decoder,
        data.on_bad_video,
        data.fast,
        p.square_pixels,
    )
    return [ClipSource(type(data).__name__, clips, data, p.shape, data.batch_size)]


def _stage_table(results: list[LoadingResult]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="ms a clip in one process", title_justify="left")
    table.add_column("")
    for name in (*STAGES, "all"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        total = sum(result.stages.values())
        shares = [f"{1e3 * s:.2f} ({s / total:.0%})" for s in result.stages.values()]
        table.add_row(result.name, *shares, f"{1e3 * total:.1f}")
    return table


def _rate_table(results: list[LoadingResult], workers: list[int]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        title="clips a second",
        title_justify="left",
        caption="spread: the interquartile range of the rounds, of their median, where it is "
        "widest. CPU ms: of a clip, in the loader's processes, those of starting included.",
        caption_justify="left",
    )
    table.add_column("")
    for name in ("workers", VIDPOOL, PYTORCHVIDEO, "ratio", "spread", "CPU ms", "theirs", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        for count in workers:
            rates = [result.rate(loader, count) for loader in (VIDPOOL, PYTORCHVIDEO)]
            ratio = result.ratio(count)
            cpu = [result.cpu_seconds.get((loader, count)) for loader in (VIDPOOL, PYTORCHVIDEO)]
            cpu_ratio = cpu[1].median / cpu[0].median if cpu[0] and cpu[1] else None
            spread = max(times.spread for (_, n), times in result.seconds.items() if n == count)
            cells = [_number(rate, 1) for rate in rates]
            cells += [_number(ratio, 2), f"{spread:.0%}"]
            cells += [_number(1e3 * times.median if times else None, 1) for times in cpu]
            table.add_row(result.name, str(count), *cells, _number(cpu_ratio, 2))
    return table


def _number(value: float | None, digits: int) -> str:
    return "none" if value is None else f"{value:.{digits}f}"
