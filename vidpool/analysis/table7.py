"""Table 7 from runs: accuracy of tested networks by dataset, parameters and multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from vidpool.analysis.published import ACTION_DATASETS, TABLE_7, PublishedRow
from vidpool.errors import ConfigError, DataError
from vidpool.figures import BLUE, ORANGE, plain_text
from vidpool.files import read_json
from vidpool.models.cost import Cost, measure_cost
from vidpool.train.callbacks.test_report import RUN
from vidpool.train.classifier import VideoClassifier

METRICS = "metrics.json"
DATASETS = {
    "HACSDataModule": ("HACS", 200),
    "Kinetics700DataModule": ("Kinetics-700", 700),
    "UCF101DataModule": ("UCF-101", 101),
}
"""Name and number of classes of the datasets of Table 7, by datamodule."""


@dataclass(frozen=True)
class TestedRun:
    """Results of ``vidpool test`` for a network."""

    folder: Path
    method: str
    """Name of the network in Table 7, or else a description of it."""
    data_set: str
    """Name from ``ACTION_DATASETS``, or else that of the data folder."""
    top1: float
    """Percent."""
    top5: float | None
    """Percent; None for at most five classes."""
    videos: int
    clip: tuple[int, int, int]
    """(T, H, W)."""
    views: int
    """Clips per video times crops per clip."""
    cost: Cost
    """Cost of one clip."""
    static: bool = False
    """True if each clip repeated a single frame."""

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of top-1 in percent, given the number of videos.

        Wilson's interval (1927) also holds for few videos and for accuracies near 100 %.
        """
        share, spread = self.top1 / 100, 1.96**2 / self.videos
        centre = (share + spread / 2) / (1 + spread)
        half = (spread * share * (1 - share) + spread**2 / 4) ** 0.5 / (1 + spread)
        return 100 * (centre - half), 100 * (centre + half)

    def as_dict(self) -> dict[str, Any]:
        """Return the run as JSON values."""
        return {
            "folder": str(self.folder),
            "method": self.method,
            "data_set": self.data_set,
            "top1": self.top1,
            "top5": self.top5,
            "videos": self.videos,
            "clip": self.clip,
            "views": self.views,
            "static": self.static,
            "parameters": self.cost.parameters,
            "multiply_adds": {
                "conv_linear": self.cost.conv_linear,
                "fvcore": self.cost.fvcore,
                "paper": self.cost.paper,
            },
        }


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """Return the folders of tests.

    Args:
        folders: Folders of tests, or folders that are searched recursively for them.

    Raises:
        DataError: A folder does not exist, or contains no tests.
    """
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        inside = sorted(file.parent for file in folder.rglob(RUN))
        if not inside:
            raise DataError(
                f"{folder}: holds no test, which `vidpool test` leaves in runs/NAME/test_N; older "
                f"versions wrote no {RUN} there: test again"
            )
        found += inside
    return list(dict.fromkeys(found))


def read_run(folder: Path) -> TestedRun:
    """Read the results of a test from its folder, and compute the cost of its network.

    Raises:
        DataError: A file is missing, or does not have the format of ``vidpool test``.
        ConfigError: The network cannot be created here; the message names the run.
    """
    metrics, run = (_read_json(folder / name) for name in (METRICS, RUN))
    try:
        network, data = dict(run["network"]), run["data"]
        shape, root = data["preprocessing"], data["root"]
        clip = (int(shape["frames"]), int(shape["crop"]), int(shape["crop"]))
        views = int(shape["clips"]) * int(shape["crops"])
        top1, top5 = 100 * float(metrics["top1"]), metrics.get("top5")
        videos, classes = int(metrics["videos"]), int(network["num_classes"])
        name, expected = DATASETS.get(data["datamodule"], ("", -1))
        method = method_name(network)
        top5 = None if top5 is None else 100 * float(top5)
        if not (videos >= 1 and 0 <= top1 <= 100 and (top5 is None or 0 <= top5 <= 100)):
            raise ValueError(f"top-1 {top1} %, top-5 {top5} % of {videos} videos")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{folder}: {METRICS} and {RUN} are not as `vidpool test` writes them ({error!r})"
        ) from None
    own_name = Path(root).name if root else data["datamodule"]
    try:
        with torch.device("meta"):
            classifier = VideoClassifier(**network)
    except TypeError as error:
        raise DataError(f"{folder / RUN}: is of another version of vidpool ({error})") from None
    except ConfigError as error:
        raise ConfigError(f"{folder}: {error}") from error
    size = clip[1:] if classifier.is_image_model else clip
    channels = (network.get("backbone_options") or {}).get("in_channels", 3)
    return TestedRun(
        folder,
        method,
        name if classes == expected else own_name,
        top1,
        top5,
        videos,
        clip,
        views,
        measure_cost(classifier.model, size, channels),
        bool(data.get("static")),
    )


def method_name(network: dict[str, Any]) -> str:
    """Return the name of a network in Table 7, or else its name, width, options and pooling.

    Args:
        network: Values of ``backbone``, ``width``, ``backbone_options``, ``pooling`` and
            ``pooling_options``.
    """
    backbone, pooling = network["backbone"], network["pooling"]
    options = network["backbone_options"] or {}
    pooling_options = network["pooling_options"] or {}
    if network["width"] is None and not options and not pooling_options:
        for row in TABLE_7:
            if row.model == backbone and pooling == ("soft" if row.soft else None):
                return row.method
    parts = [] if network["width"] is None else [f"width {network['width']}"]
    parts += [f"{key} {value}" for key, value in (*options.items(), *pooling_options.items())]
    parts += [f"{pooling} pooling"] if pooling else ["its own pooling"]
    return f"{backbone}, {', '.join(parts)}"


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise DataError(f"{file}: is not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"{file}: is not as `vidpool test` writes it")
    return content


@dataclass(frozen=True)
class Method:
    """A row of the table: a network with published results, measured results, or both."""

    name: str
    published: PublishedRow | None
    runs: tuple[TestedRun, ...]

    def on(self, data_set: str) -> list[TestedRun]:
        """Return the runs on a dataset."""
        return [run for run in self.runs if run.data_set == data_set]

    def as_dict(self) -> dict[str, Any]:
        """Return the published row as JSON values."""
        assert self.published is not None
        accuracies = {name: self.published_on(name) for name in ACTION_DATASETS}
        return {
            "method": self.name,
            "gflops": self.published.gflops,
            "accuracies": {
                name: {"top1": top1, "top5": top5} for name, (top1, top5) in accuracies.items()
            },
        }

    def published_on(self, data_set: str) -> tuple[float | None, float | None]:
        """Return the published top-1 and top-5 on a dataset in percent."""
        if self.published is None or data_set not in ACTION_DATASETS:
            return None, None
        first = 2 * ACTION_DATASETS.index(data_set)
        return self.published.accuracies[first], self.published.accuracies[first + 1]


def arrange_methods(runs: Sequence[TestedRun]) -> tuple[list[Method], list[str]]:
    """Sort runs into the rows of Table 7; other networks are below them.

    Returns:
        The rows, and the datasets, those of the paper first.
    """
    names = dict.fromkeys([*(row.method for row in TABLE_7), *(run.method for run in runs)])
    published = {row.method: row for row in TABLE_7}
    methods = [
        Method(name, published.get(name), tuple(run for run in runs if run.method == name))
        for name in names
    ]
    return methods, list(dict.fromkeys([*ACTION_DATASETS, *(run.data_set for run in runs)]))


def table_7_figure(methods: Sequence[Method], data_sets: Sequence[str]) -> Figure:
    """Draw top-1 accuracy by dataset, one row per method.

    Dots are measured, with 95 % confidence intervals given the number of videos; diamonds are the
    paper's.
    """
    figure = Figure(
        figsize=(3.6 + 2.9 * len(data_sets), 1.8 + 0.32 * len(methods)), layout="constrained"
    )
    panels = figure.subplots(1, len(data_sets), sharey=True, squeeze=False)[0]
    for axes, data_set in zip(panels, data_sets, strict=True):
        known = [(i, method.published_on(data_set)[0]) for i, method in enumerate(methods)]
        drawn = [(place, top1) for place, top1 in known if top1 is not None]
        axes.scatter(
            [top1 for _, top1 in drawn],
            [place for place, _ in drawn],
            marker="D",
            s=26,
            facecolors="none",
            edgecolors=ORANGE,
            label="the paper's",
        )
        measured = [(i, run) for i, method in enumerate(methods) for run in method.on(data_set)]
        axes.errorbar(
            [run.top1 for _, run in measured],
            [place for place, _ in measured],
            xerr=[
                [run.top1 - run.interval[0] for _, run in measured],
                [run.interval[1] - run.top1 for _, run in measured],
            ],
            fmt="o",
            markersize=5,
            capsize=2,
            color=BLUE,
            label="measured",
        )
        axes.set(title=plain_text(data_set), xlabel="top-1, %")
        axes.grid(alpha=0.3)
    panels[0].set_yticks(range(len(methods)), [plain_text(method.name) for method in methods])
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    shown = [row.name for row in methods if row.runs]
    for text in panels[0].get_yticklabels():
        text.set_fontweight("bold" if text.get_text() in shown else "normal")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    figure.suptitle("Table 7")
    return figure
