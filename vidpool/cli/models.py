"""``vidpool models``: list the networks with their parameters, cost and pooling layers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from rich import box
from rich.table import Table

from vidpool.analysis.model_cost import ModelCost, measure_model, table_7_markdown, table_7_rows
from vidpool.cli.arguments import Parser
from vidpool.data.parallel import counting_bar
from vidpool.errors import ConfigError
from vidpool.models import find_models
from vidpool.models.registry import size_text
from vidpool.results import wide_console

Item = TypeVar("Item")


def main(verb: str, arguments: list[str]) -> int:
    """Run ``vidpool models``; the exit status is 1 if no model could be measured."""
    args = _parser(verb).parse_args(arguments)
    clip = _clip(args.clip)
    if args.markdown:
        if clip:
            raise ConfigError(f"--clip {args.clip}: --markdown has the clips of the paper's table")
        print(table_7_markdown(_with_progress(table_7_rows(args.pattern), lambda row: row.model)))
        return 0
    names = find_models(args.pattern)
    rows = [measure_model(name, clip) for name in _with_progress(names, str)]
    if args.json:
        print(json.dumps([row.as_dict() for row in rows], indent=2))
    else:
        console = wide_console()
        console.print(_pooling_table(rows) if args.pooling else _cost_table(rows))
        for reason in dict.fromkeys(row.reason for row in rows if row.reason):
            console.print(reason, markup=False, highlight=False)
    return 0 if any(row.cost for row in rows) else 1


def _parser(verb: str) -> Parser:
    parser = Parser(
        prog=f"vidpool {verb}",
        description="List the networks, their parameters and multiply-adds.",
    )
    add = parser.add_argument
    add("pattern", nargs="*", metavar="PATTERN", help="names, like r3d_50 or 'torchvision/*'")
    add(
        "--clip",
        metavar="TxHxW",
        help="clip to count the multiply-adds for; only H and W matter for image networks "
        "(default: 16x224x224, or the size that an image network was designed for)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--pooling", action="store_true", help="list the pooling layers")
    form.add_argument(
        "--markdown", action="store_true", help="the paper's Table 7, beside what is measured here"
    )
    form.add_argument("--json", action="store_true", help="everything, as JSON")
    return parser


def _clip(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not re.fullmatch(r"[1-9]\d{0,5}(x[1-9]\d{0,5}){2}", text):
        raise ConfigError(f"--clip {text} must be TxHxW, like 16x224x224")
    return tuple(map(int, text.split("x")))


def _with_progress(items: Sequence[Item], name: Callable[[Item], str]) -> Iterator[Item]:
    """Iterate over items under a progress bar, which disappears at the end."""
    with counting_bar() as bar:
        task = bar.add_task("", total=len(items))
        for item in items:
            bar.update(task, description=name(item))
            yield item
            bar.advance(task)


def _cost_table(rows: Iterable[ModelCost]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        caption="Multiply-adds in units of 10^9 (G). conv+linear: of convolutions, linear layers "
        "and attention; fvcore: and batch norm; paper: and ReLU and LSTM, as the SoftPool paper "
        "counts. pooling: layers that swap_pooling replaces, of all; --pooling lists them.",
        caption_justify="left",
    )
    table.add_column("model", overflow="fold")
    table.add_column("input", no_wrap=True)
    for name in ("params\nM", "conv+linear\nG", "fvcore\nG", "paper\nG", "pooling\n"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = ["none"] * 5
        if row.cost:
            counts = (row.cost.conv_linear, row.cost.fvcore, row.cost.paper)
            swapped = sum(layer.swapped for layer in row.pooling)
            cells = [f"{row.cost.parameters / 1e6:.2f}", *(f"{n / 1e9:.2f}" for n in counts)]
            cells.append(f"{swapped} of {len(row.pooling)}")
        table.add_row(row.info.name, size_text(row.size), *cells)
    return table


def _pooling_table(rows: Iterable[ModelCost]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        caption="swapped: whether swap_pooling replaces the layer unless told otherwise; "
        "functional: it is a call, which functional=True replaces.",
        caption_justify="left",
    )
    for name in ("model", "layer", "class", "geometry"):
        table.add_column(name, overflow="fold")
    for name in ("input", "output", "swapped"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        if row.cost and not row.pooling:
            table.add_row(row.info.name, "none")
        for layer in row.pooling:
            geometry = ", ".join(f"{k}={_short(v)}" for k, v in layer.geometry.items())
            sizes = ["", ""] if layer.sizes is None else map(size_text, layer.sizes)
            swapped = "functional" if layer.called else "yes" if layer.swapped else "no"
            table.add_row(row.info.name, layer.name, layer.kind, geometry, *sizes, swapped)
    return table


def _short(value: Any) -> str:
    return size_text(value) if isinstance(value, (tuple, list)) else str(value)
