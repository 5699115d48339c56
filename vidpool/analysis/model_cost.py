"""Cost and pooling layers of the registered models, alone and compared with the paper's Table 7."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from vidpool.analysis.published import ACTION_DATASETS, TABLE_7, PublishedRow
from vidpool.errors import ConfigError
from vidpool.models import ModelInfo, create_model, list_models, model_info
from vidpool.models.cost import Cost, PoolingLayer, measure_cost, pooling_layers
from vidpool.models.registry import size_text
from vidpool.nn import swap_pooling

CLIP = (16, 224, 224)
CLASSES = {"video": 400, "image": 1000}  # of Kinetics-400 and ImageNet, as most papers count


@dataclass(frozen=True)
class ModelCost:
    """Cost and pooling layers of one model.

    Attributes:
        info: The registered model.
        size: Input size (T, H, W), or (H, W) of an image model.
        cost: Parameters and multiply-adds; None if the model could not be measured.
        pooling: Its pooling layers.
        reason: Why it could not be measured; empty if it was.
    """

    info: ModelInfo
    size: tuple[int, ...]
    cost: Cost | None = None
    pooling: tuple[PoolingLayer, ...] = ()
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the values for JSON."""
        about = {
            "name": self.info.name,
            "kind": self.info.modality,
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


def measure_model(name: str, clip: Sequence[int] | None = None, soft: bool = False) -> ModelCost:
    """Measure a registered model's cost, and list its pooling layers.

    Args:
        name: One of :func:`vidpool.models.list_models`.
        clip: (T, H, W) of the clip; only H and W matter for an image model. Defaults to 16x224x224,
            or, for models of images or of one size, to the size they were designed for.
        soft: Swap its pooling for SoftPool first.

    Returns:
        The cost, or the reason if the model cannot be built here or cannot take the clip.

    Raises:
        ConfigError: The name is unknown.
    """
    info = model_info(name)
    size = tuple(clip or (info.size if info.fixed or info.modality == "image" else CLIP))
    size = size[-len(info.size) :]
    try:
        info.check_size(size)
        model = _build(info)
        if soft:
            swap_pooling(model)
        return ModelCost(info, size, measure_cost(model, size), tuple(pooling_layers(model, size)))
    except ConfigError as error:
        return ModelCost(info, size, reason=str(error))


def table_7_rows(patterns: Sequence[str] = ()) -> list[PublishedRow]:
    """Return rows of the paper's Table 7.

    Args:
        patterns: Shell-style patterns for the names of our models. Defaults to all rows.

    Raises:
        ConfigError: No row matches.
    """
    chosen = [
        row
        for row in TABLE_7
        if not patterns or any(fnmatchcase(row.model, pattern) for pattern in patterns)
    ]
    if not chosen:
        known = ", ".join(dict.fromkeys(row.model for row in TABLE_7))
        raise ConfigError(f"no model of Table 7 matches {' '.join(patterns)}; they are {known}")
    return chosen


def table_7_markdown(rows: Iterable[PublishedRow]) -> str:
    """Return rows of the paper's Table 7 in Markdown, with costs measured on our models.

    Args:
        rows: The rows, such as those of :func:`table_7_rows`.
    """
    sets = [f"{name} top-{k}" for name in ACTION_DATASETS for k in (1, 5)]
    header = ["method", "GFLOPs", *(f"{name} (%)" for name in sets)]
    header += ["our model", "clip", "GFLOPs measured", "parameters (M)"]
    lines = [header, ["---", *["---:"] * 7, "---", "---", "---:", "---:"]]
    known = set(list_models())
    for row in rows:
        cells = [row.method, f"{row.gflops:.2f}"]
        cells += ["N/A" if value is None else f"{value:.2f}" for value in row.accuracies]
        cells += [f"`{row.model}`", size_text(row.clip)]
        cost = measure_model(row.model, row.clip, row.soft).cost if row.model in known else None
        cells += (
            [f"{cost.paper / 1e9:.2f}", f"{cost.parameters / 1e6:.2f}"] if cost else ["none"] * 2
        )
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _build(info: ModelInfo) -> nn.Module:
    """Return a model on the meta device, without data."""
    with torch.device("meta"):
        return create_model(info.name, num_classes=CLASSES[info.modality])
