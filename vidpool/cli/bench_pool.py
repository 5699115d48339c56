"""``vidpool bench pool``: time pooling, as a table, a JSON file and a chart."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from typing import Any, TypeVar, get_args

import torch
from rich import box
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from vidpool.bench.cases import CASES, DTYPES, VALUES, Case, MemoryFormat
from vidpool.bench.methods import TABLE_3_CASE, MethodsResult, measure_methods
from vidpool.bench.pool import CLONE, PASSES, PoolCall, PoolResult, measure_pools, pool_chart
from vidpool.bench.timing import describe_machine, keep_heap_warm
from vidpool.cli import bench_methods
from vidpool.cli.arguments import add_output, check_at_least, results_file
from vidpool.errors import ConfigError
from vidpool.nn.registry import POOLING_METHODS
from vidpool.results import provenance, wide_console, write_results

Measurement = TypeVar("Measurement")


def add_parser(what: Any) -> None:
    """Add ``pool`` to the subcommands of ``vidpool bench``."""
    parser = what.add_parser(
        "pool",
        help="time soft, max and average pooling, or every pooling method (Table 3)",
        description="Time forward and forward + backward of soft, max and average pooling and of "
        "SoftPool in plain PyTorch, interleaved in one process, compared with `x.clone()`. With "
        "--methods, time forward and backward of every pooling method and measure its memory, "
        "compared with average pooling and the paper's Table 3.",
        epilog=f"cases: {', '.join(CASES)}. example: vidpool bench pool --methods all "
        "--output table3.json",
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("--case", action="append", metavar="NAME", help="a case, repeatable (default: all)")
    add("--shape", metavar="N,C,T,H,W", help="a custom case; also N,C,H,W and N,C,T")
    add("--kernel_size", metavar="K", help="window size for --shape: 3, or 1,3,3")
    add("--stride", metavar="S", help="(default: the kernel size)")
    add("--padding", metavar="P", help="(default: 0)")
    add(
        "--methods",
        nargs="+",
        metavar="NAME",
        help=f"methods instead, Table 3: all, or some of {', '.join(POOLING_METHODS)} (average "
        f"pooling is always there; case: {TABLE_3_CASE.name}, unless given)",
    )
    several: dict[str, Iterable[str]] = {
        "dtype": DTYPES,
        "layout": get_args(MemoryFormat),
        "values": VALUES,
    }
    defaults = {"dtype": ["float32"], "layout": None, "values": ["randn"]}
    explained = {
        "dtype": "one or more (default: float32)",
        "layout": "one or more (default: both, with --methods contiguous)",
        "values": "one or more of randn, 30 randn, randn + 300 and 100 randn (default: randn)",
    }
    for name, choices in several.items():
        add(
            f"--{name}",
            nargs="+",
            choices=list(choices),
            default=defaults[name],
            help=explained[name],
        )
    add("--device", choices=["cpu", "cuda"], default="cpu", help="(default: %(default)s)")
    add("--threads", type=int, metavar="N", help="CPU threads (default: 1 with --device cpu)")
    add("--rounds", type=int, metavar="N", help="(default: two seconds per case, 7 to 200 rounds)")
    add("--compile", action="store_true", help="plain PyTorch under torch.compile too (slow)")
    add_output(add, "every time")


def run(args: argparse.Namespace) -> int:
    """Time pooling; the exit status is 1 if SoftPool could not be measured."""
    cases = _cases(args)
    args.methods = _methods(args)
    args.layout = args.layout or (["contiguous"] if args.methods else list(get_args(MemoryFormat)))
    check_at_least(args, 1, "rounds", "threads")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"device 'cuda' cannot be used: PyTorch {torch.__version__} finds no GPU here; "
            "give --device cpu"
        )
    output = results_file(args)

    threads_before = torch.get_num_threads()
    threads = args.threads or (1 if args.device == "cpu" else threads_before)
    torch.set_num_threads(threads)
    try:
        machine = describe_machine(args.device)
        machine["heap_kept_warm"] = keep_heap_warm() if args.device == "cpu" else None
        by_method: list[MethodsResult] = []
        results: list[PoolResult] = []
        if args.methods:
            by_method = _measure_all(cases, args, partial(measure_methods, args.methods))
        else:
            results = _measure_all(cases, args, measure_pools, args.compile)
    finally:
        torch.set_num_threads(threads_before)

    console = wide_console()
    kernels = "compiled kernels" if machine["compiled_kernels"] else "plain PyTorch"
    console.print(
        f"{machine['device_name']}, PyTorch {machine['torch']}, CPU threads: {threads}, "
        f"SoftPool: {kernels}",
        markup=False,
        highlight=False,
    )
    if by_method:
        bench_methods.show(console, by_method, args.device)
        if output:
            for path in bench_methods.write(output, machine, by_method, args.command):
                print(f"wrote {path}")
        return 1 if any("soft" in result.missing for result in by_method) else 0
    table = _table(results)
    if console.measure(table, options=console.options.update(width=999)).maximum > console.width:
        table = _table(results, narrow=True)
    console.print(table)
    for reason in _reasons(results):
        console.print(reason, markup=False, highlight=False)
    if output:
        about = {**provenance(args.command), **machine}
        content = [result.as_dict() for result in results]
        for path in write_results(output, about, content, pool_chart(results, machine)):
            print(f"wrote {path}")
    return 1 if any(key.pool == "soft" for result in results for key in result.missing) else 0


def _cases(args: argparse.Namespace) -> list[Case]:
    """Return the checked cases, the custom one last.

    Raises:
        ConfigError: A case is unknown, or --shape and its window are incomplete or do not fit.
    """
    table_3 = args.methods is not None
    known = CASES | ({TABLE_3_CASE.name: TABLE_3_CASE} if table_3 else {})
    names = args.case or ([] if args.shape else [TABLE_3_CASE.name] if table_3 else list(CASES))
    for name in names:
        if name not in known:
            raise ConfigError(f"case {name!r} is unknown; there are {', '.join(known)}")
    cases = [known[name] for name in dict.fromkeys(names)]
    if args.shape:
        if not args.kernel_size:
            raise ConfigError(f"--shape {args.shape} needs --kernel_size")
        shape, kernel_size = _numbers(args, "shape"), _numbers(args, "kernel_size")
        stride, padding = _numbers(args, "stride"), _numbers(args, "padding") or (0,)
        geometry = {"k": kernel_size, "s": stride, "p": padding if any(padding) else ()}
        suffix = "".join(k + ".".join(map(str, v)) for k, v in geometry.items() if v)
        name = f"{'x'.join(map(str, shape))}_{suffix}"
        cases.append(Case(name, shape, kernel_size, stride, padding))
        _ = cases[-1].window  # checks it
    else:
        for name in ("kernel_size", "stride", "padding"):
            if getattr(args, name):
                raise ConfigError(f"--{name} {getattr(args, name)} is for --shape; give that too")
    return cases


def _methods(args: argparse.Namespace) -> list[str]:
    """Return the pooling methods of ``--methods``; none without it.

    Raises:
        ConfigError: One is unknown, or --compile was given, which is for SoftPool in plain PyTorch.
    """
    if args.methods is None:
        return []
    if args.compile:
        raise ConfigError("--compile measures SoftPool in plain PyTorch; leave --methods out")
    for name in args.methods:
        if name not in (*POOLING_METHODS, "all"):
            raise ConfigError(f"--methods {name}: there are {', '.join(POOLING_METHODS)}, and all")
    return list(POOLING_METHODS) if "all" in args.methods else args.methods


def _numbers(args: argparse.Namespace, name: str) -> tuple[int, ...]:
    """Return the comma-separated whole numbers of an option; none without it."""
    text = getattr(args, name)
    try:
        numbers = tuple(map(int, text.split(","))) if text else ()
        if any(abs(number) >= 2**31 for number in numbers):  # more overflows in PyTorch
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"--{name} {text} must be whole numbers below 2^31 with commas between them"
        ) from None
    return numbers


def _measure_all(
    cases: list[Case], args: argparse.Namespace, measure_one: Callable[..., Measurement], *more: Any
) -> list[Measurement]:
    """Measure every case in every layout, dtype and distribution that was asked for."""
    lists = [list(dict.fromkeys(named)) for named in (args.layout, args.dtype, args.values)]
    settings = list(product(cases, *lists))
    results = []
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    # the thread that else draws the bar would disturb what is measured
    with Progress(*columns, transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=len(settings))
        for case, layout, dtype, values in settings:
            bar.update(task, description=f"{case.name} {layout} {dtype} {values}", refresh=True)
            results.append(
                measure_one(case, layout, dtype, values, args.device, args.rounds, *more)
            )
            bar.advance(task)
    return results


def _table(results: list[PoolResult], narrow: bool = False) -> Table:
    """Times of a copy in milliseconds; SoftPool as ratios to the others, by pass.

    A narrow table has one column, of several lines, for what is measured.
    """
    peaks = any(result.peak_bytes for result in results)
    rivals = {"forward": ("max", "avg"), "forward_backward": ("max", "avg", "reference")}
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="fwd: soft pooling forward, over what stands below it; f+b: forward + backward, "
        "over the other's forward + backward (clone: its forward); ref: SoftPool in plain PyTorch. "
        "spread: the widest interquartile range of the row's times, of its median.",
        caption_justify="left",
    )
    for name in ("case",) if narrow else ("case", "layout", "dtype", "values"):
        table.add_column(name, overflow="fold")
    numbers = ["clone\nms", "spread\n"]
    for passes, short in zip(PASSES, ("fwd", "f+b"), strict=True):
        numbers += [
            f"{short}\n/{name.replace('reference', 'ref')}" for name in ("clone", *rivals[passes])
        ]
    for name in [*numbers, *(["peak\nMiB"] if peaks else [])]:
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        spread = max(times.spread for times in result.times.values())
        cells = [f"{1e3 * result.times[CLONE].median:#.3g}", f"{spread:.0%}"]
        for passes in PASSES:
            soft = PoolCall("soft", passes)
            others = [CLONE, *(PoolCall(name, passes) for name in rivals[passes])]
            ratios = [result.ratio(soft, other) for other in others]
            cells += ["none" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        if peaks:
            peak = result.peak_bytes.get(PoolCall("soft", "forward_backward"))
            cells.append("none" if peak is None else f"{peak / 2**20:.1f}")
        names = (result.case.name, result.layout, result.dtype, result.values)
        table.add_row(*([" ".join(names)] if narrow else names), *cells)
    return table


def _reasons(results: list[PoolResult]) -> list[str]:
    """Why some columns say "none", each reason once."""
    reasons = [
        f"none: {key.pool} of {result.dtype}: {reason}"
        for result in results
        for key, reason in result.missing.items()
    ]
    return list(dict.fromkeys(reasons))
