"""``vidpool models``: the registered networks, what they cost and what they pool."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch
from rich import box
from rich.table import Table
from torch import nn

from vidpool.analysis.published import ACTION_SETS, TABLE_7
from vidpool.cli.arguments import Parser
from vidpool.data.progress import counting_bar
from vidpool.errors import ConfigError
from vidpool.models import ModelInfo, create_model, find_models, list_models, model_info
from vidpool.models.cost import Cost, PoolingLayer, measure_cost, pooling_layers
from vidpool.models.registry import size_text
from vidpool.nn import swap_pooling
from vidpool.results import wide_console

CLIP = (16, 224, 224)
CLASSES = {"video": 400, "image": 1000}  # of Kinetics-400 and ImageNet, as most papers count

Item = TypeVar("Item")


@dataclass(frozen=True)
class Row:
    """What was measured of one model."""

    info: ModelInfo
    size: tuple[int, ...]
    cost: Cost | None = None
    pooling: tuple[PoolingLayer, ...] = ()
    reason: str = ""
    """Why nothing could be measured."""

    def as_dict(self) -> dict[str, Any]:
        """The row for JSON."""
        about = {
            "name": self.info.name,
            "kind": self.info.kind,
            "source": self.info.source,
            "sizes": self.info.sizes,
            "options": self.info.options,
            "size": self.size,
        }
        if self.cost is None:
            return about | {"error": self.reason}
        return about | {
            "parameters": self.cost.parameters,
            "multiply_adds": {
                "conv_linear": self.cost.conv_linear,
                "fvcore": self.cost.fvcore,
                "paper": self.cost.paper,
            },
            "pooling": [asdict(layer) for layer in self.pooling],
        }


def main(verb: str, arguments: list[str]) -> int:
    """Run ``vidpool models``; the exit status is 1 if no model could be measured."""
    args = _parser(verb).parse_args(arguments)
    clip = _clip(args.clip)
    if args.markdown:
        if clip:
            raise ConfigError(f"--clip {args.clip}: --markdown has the clips of the paper's table")
        print(table_7(args.pattern))
        return 0
    names = find_models(args.pattern)
    rows = [measure(name, clip) for name in _with_progress(names, str)]
    if args.json:
        print(json.dumps([row.as_dict() for row in rows], indent=2))
    else:
        console = wide_console()
        console.print(_pooling_table(rows) if args.pooling else _cost_table(rows))
        for reason in dict.fromkeys(row.reason for row in rows if row.reason):
            console.print(reason, markup=False, highlight=False)
    return 0 if any(row.cost for row in rows) else 1


def measure(name: str, clip: Sequence[int] | None = None, soft: bool = False) -> Row:
    """Measure a registered model's cost, and list its pooling layers.

    Args:
        name: One of :func:`vidpool.models.list_models`.
        clip: (T, H, W) of the clip; for an image model H and W count. Without one it is 16x224x224,
            or what the model was designed for where it takes pictures or no other size.
        soft: Swap the pooling first.

    Returns:
        The row; where the model cannot be built here or cannot take the clip, it says why.

    Raises:
        ConfigError: If the name is unknown.
    """
    info = model_info(name)
    size = tuple(clip or (info.size if info.fixed or info.kind == "image" else CLIP))
    size = size[-len(info.size) :]
    try:
        info.check_size(size)
        model = _build(info)
        if soft:
            swap_pooling(model)
        return Row(info, size, measure_cost(model, size), tuple(pooling_layers(model, size)))
    except ConfigError as error:
        return Row(info, size, reason=str(error))


def table_7(patterns: Sequence[str] = ()) -> str:
    """Table 7 of the paper in Markdown, beside what is measured here.

    Args:
        patterns: Shell-style patterns for the names of our models; without any, all rows.

    Raises:
        ConfigError: If nothing matches.
    """
    chosen = [
        row
        for row in TABLE_7
        if not patterns or any(fnmatchcase(row.model, pattern) for pattern in patterns)
    ]
    if not chosen:
        known = ", ".join(dict.fromkeys(row.model for row in TABLE_7))
        raise ConfigError(f"no model of Table 7 matches {' '.join(patterns)}; they are {known}")
    sets = [f"{name} top-{k}" for name in ACTION_SETS for k in (1, 5)]
    header = ["method", "GFLOPs", *(f"{name} (%)" for name in sets)]
    header += ["our model", "clip", "GFLOPs measured", "parameters (M)"]
    lines = [header, ["---", *["---:"] * 7, "---", "---", "---:", "---:"]]
    known_models = set(list_models())
    for row in _with_progress(chosen, lambda row: row.model):
        cells = [row.method, f"{row.gflops:.2f}"]
        cells += ["N/A" if value is None else f"{value:.2f}" for value in row.accuracies]
        cells += [f"`{row.model}`", size_text(row.clip)]
        cost = measure(row.model, row.clip, row.soft).cost if row.model in known_models else None
        cells += (
            [f"{cost.paper / 1e9:.2f}", f"{cost.parameters / 1e6:.2f}"] if cost else ["none"] * 2
        )
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


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
        help="what to count the multiply-adds for; H and W count for networks that take pictures "
        "(default: 16x224x224, and what such a network was designed for)",
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


def _build(info: ModelInfo) -> nn.Module:
    """A model without data."""
    with torch.device("meta"):
        return create_model(info.name, num_classes=CLASSES[info.kind])


def _with_progress(items: Sequence[Item], name: Callable[[Item], str]) -> Iterator[Item]:
    """Go through items under a progress bar, which disappears."""
    with counting_bar() as bar:
        task = bar.add_task("", total=len(items))
        for item in items:
            bar.update(task, description=name(item))
            yield item
            bar.advance(task)


def _cost_table(rows: Iterable[Row]) -> Table:
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


def _pooling_table(rows: Iterable[Row]) -> Table:
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
