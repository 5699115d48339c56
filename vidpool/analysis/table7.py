"""Table 7 of runs: accuracy of tested networks by data set, with parameters and multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from vidpool.analysis.published import ACTION_SETS, TABLE_7, Published
from vidpool.colours import BLUE, ORANGE
from vidpool.errors import ConfigError, DataError
from vidpool.figures import plain_text
from vidpool.files import read_json
from vidpool.models.cost import Cost, measure_cost
from vidpool.train.callbacks.test_report import RUN
from vidpool.train.classifier import VideoClassifier

METRICS = "metrics.json"
CLASSES = {
    "HACSDataModule": ("HACS", 200),
    "Kinetics700DataModule": ("Kinetics-700", 700),
    "UCF101DataModule": ("UCF-101", 101),
}
"""The data sets of Table 7 and how many classes they have, by their datamodules."""


@dataclass(frozen=True)
class TestedRun:
    """What ``vidpool test`` measured of a network."""

    folder: Path
    method: str
    """The paper's name of the network where Table 7 has it, or else what it is here."""
    data_set: str
    """Of ``ACTION_SETS``, or else the name of the data's folder."""
    top1: float
    """Percent."""
    top5: float | None
    """Percent; None where there are at most five classes."""
    videos: int
    clip: tuple[int, int, int]
    """(T, H, W)."""
    views: int
    """Clips times crops of a video."""
    cost: Cost
    """Of one clip."""
    static: bool = False
    """Whether each clip was one frame, repeated."""

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of top-1 (Wilson, 1927), percent: it is of so many videos.

        It is right for few videos too, and for accuracies near 100 %.
        """
        share, spread = self.top1 / 100, 1.96**2 / self.videos
        centre = (share + spread / 2) / (1 + spread)
        half = (spread * share * (1 - share) + spread**2 / 4) ** 0.5 / (1 + spread)
        return 100 * (centre - half), 100 * (centre + half)

    def as_dict(self) -> dict[str, Any]:
        """The run for JSON."""
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
    """List the folders of tests.

    Args:
        folders: Each the folder of a test, or one in which they are searched for.

    Raises:
        DataError: A folder is missing, or holds none.
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
    """Read what a test left in its folder, and count the network's cost.

    Raises:
        DataError: A file is missing, or is not as ``vidpool test`` writes it.
        ConfigError: The network cannot be made here; the message names the run.
    """
    metrics, run = (_read_json(folder / name) for name in (METRICS, RUN))
    try:
        network, data = dict(run["network"]), run["data"]
        shape, root = data["preprocessing"], data["root"]
        clip = (int(shape["frames"]), int(shape["crop"]), int(shape["crop"]))
        views = int(shape["clips"]) * int(shape["crops"])
        top1, top5 = 100 * float(metrics["top1"]), metrics.get("top5")
        videos, classes = int(metrics["videos"]), int(network["num_classes"])
        name, expected = CLASSES.get(data["datamodule"], ("", -1))
        method = method_of(network)
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


def method_of(network: dict[str, Any]) -> str:
    """What Table 7 calls a network, or else what it is: its name, width, options and pooling.

    Args:
        network: `backbone`, `width`, `backbone_options`, `pooling` and `pooling_options`.
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
    """A row of the table: a network, in the paper, here, or both."""

    name: str
    published: Published | None
    runs: tuple[TestedRun, ...]

    def on(self, data_set: str) -> list[TestedRun]:
        """The runs on a data set."""
        return [run for run in self.runs if run.data_set == data_set]

    def as_dict(self) -> dict[str, Any]:
        """What the paper has in this row, for JSON."""
        assert self.published is not None
        accuracies = {name: self.published_on(name) for name in ACTION_SETS}
        return {
            "method": self.name,
            "gflops": self.published.gflops,
            "accuracies": {
                name: {"top1": top1, "top5": top5} for name, (top1, top5) in accuracies.items()
            },
        }

    def published_on(self, data_set: str) -> tuple[float | None, float | None]:
        """The paper's top-1 and top-5 on a data set, in percent."""
        if self.published is None or data_set not in ACTION_SETS:
            return None, None
        place = 2 * ACTION_SETS.index(data_set)
        return self.published.accuracies[place], self.published.accuracies[place + 1]


def arrange(runs: Sequence[TestedRun]) -> tuple[list[Method], list[str]]:
    """Put runs into the rows of Table 7, those of other networks below.

    Returns:
        The rows, and the data sets, the paper's first.
    """
    names = dict.fromkeys([*(row.method for row in TABLE_7), *(run.method for run in runs)])
    published = {row.method: row for row in TABLE_7}
    methods = [
        Method(name, published.get(name), tuple(run for run in runs if run.method == name))
        for name in names
    ]
    return methods, list(dict.fromkeys([*ACTION_SETS, *(run.data_set for run in runs)]))


def table_7_figure(methods: Sequence[Method], data_sets: Sequence[str]) -> Figure:
    """Draw top-1 accuracy by data set, a row for each method.

    Dots are measured, with the 95 % confidence interval that follows from the number of videos;
    diamonds are the paper's.
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
    panels[0].set_yticks(range(len(methods)), [plain_text(m.name) for m in methods])
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    shown = [row.name for row in methods if row.runs]
    for text in panels[0].get_yticklabels():
        text.set_fontweight("bold" if text.get_text() in shown else "normal")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    figure.suptitle("Table 7")
    return figure
