"""The report of a check: lists of problems and of classes, and a figure."""

import csv
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from vidpool.data.prepare.check import PROBLEMS, USED, CheckedData
from vidpool.data.prepare.journal import REPORT
from vidpool.data.prepare.repeats import Repeat
from vidpool.errors import DataError
from vidpool.figures import BLUE, GREEN, ORANGE, plain_text, save_figure
from vidpool.files import open_text

COLOURS = {"train": BLUE, "val": ORANGE, "test": GREEN}
MAX_NAMED_CLASSES = 40  # more class names do not fit next to their bars


def write_report(data: CheckedData, folder: Path) -> list[Path]:
    """Write ``problems.csv``, ``classes.csv`` and ``clips.png``, each atomically.

    Args:
        data: The checked dataset.
        folder: Output folder; it is made.

    Returns:
        The files written.

    Raises:
        DataError: They cannot be written.
    """
    files = [folder / name for name in REPORT]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".report.") as made:
            _write([Path(made) / name for name in REPORT], data)
            for file in files:
                (Path(made) / file.name).replace(file)
    except OSError as error:
        raise DataError(f"{folder}: the report cannot be written ({error})") from None
    return files


def _write(files: list[Path], data: CheckedData) -> None:
    names = [*data.listing.class_names, ""]
    with open_text(files[0], "w") as problems, open_text(files[1], "w") as classes:
        by_video, by_class = csv.writer(problems), csv.writer(classes)
        by_video.writerow(["split", "class", "path", "start", "end", "problem", "message"])
        by_class.writerow(["split", "class", "listed", *PROBLEMS])
        for split in data.listing.splits:
            for name, row in zip(names, data.counts(split).tolist(), strict=True):
                if row[0] or name:
                    by_class.writerow([split, name, *row])
            table = data.listing.split(split)
            found = data.problems(table)
            for number in np.flatnonzero(found >= 0).tolist():
                video = table[number]
                problem = PROBLEMS[found[number]]
                by_video.writerow(
                    [
                        split,
                        names[video.label],  # the last name is that of no label, -1
                        video.path,
                        "" if video.start is None else video.start,
                        "" if video.end is None else video.end,
                        problem,
                        _describe_problem(
                            problem, int(table.file[number]), int(table.span[number]), data
                        ),
                    ]
                )
        for repeat in data.repeats:
            video = data.listing.table[repeat.row]
            by_video.writerow(
                [
                    _split_of(repeat.row, data),
                    names[video.label],
                    video.path,
                    "" if video.start is None else video.start,
                    "" if video.end is None else video.end,
                    "two labels" if repeat.split is None else "two splits",
                    _describe_repeat(repeat, data),
                ]
            )
    save_figure(clips_figure(data), files[2], dpi=110)


def repeat_warnings(data: CheckedData) -> list[str]:
    """Return warnings that count the videos in two splits or under two labels."""
    kinds: dict[tuple[str, str | None], list[Repeat]] = {}
    splits = list(data.listing.splits)
    for repeat in data.repeats:
        split = _split_of(repeat.row, data)
        # each pair of splits is reported once, from the later one
        if repeat.split is None:
            kinds.setdefault(("", None), []).append(repeat)
        elif splits.index(repeat.split) < splits.index(split):
            kinds.setdefault((split, repeat.split), []).append(repeat)
    warnings = []
    for (split, other), repeats in sorted(kinds.items(), key=lambda kind: kind[0][0] == ""):
        what = "videos are listed under two labels" if other is None else f"are in {other} too"
        paths = sum(repeat.by_path for repeat in repeats)
        video = data.listing.table[repeats[0].row]
        warnings.append(
            f"{len(repeats):,} {f'{split} videos ' if split else ''}{what} ({paths:,} by path, "
            f"{len(repeats) - paths:,} by content), such as {video.path}: "
            f"{_describe_repeat(repeats[0], data)}"
        )
    return warnings


def _describe_repeat(repeat: Repeat, data: CheckedData) -> str:
    other = data.listing.table[repeat.other]
    name = "no label" if other.label < 0 else f"the label {data.listing.class_names[other.label]}"
    what = "the same file" if repeat.by_path else f"{other.path} has the same content and"
    return f"{what} is in {_split_of(repeat.other, data)} with {name}"


def _split_of(row: int, data: CheckedData) -> str:
    splits = data.listing.splits.items()
    return next(name for name, (begin, end) in splits if begin <= row < end)


def _describe_problem(problem: str, file: int, frames: int, data: CheckedData) -> str:
    if problem == "unreadable":
        return data.errors[file]
    if problem == "cut short":
        return f"the file had {data.cut[file]} frames once; this video has {frames}"
    if problem == "too short":
        return f"{frames} frames, and a clip reaches over {data.needed}: the last is repeated"
    if problem == "beyond the end":
        why = f"; it was cut short and had {data.cut[file]} frames once" if file in data.cut else ""
        return f"the file ends before it begins{why}"
    return "no such file"


def clips_figure(data: CheckedData) -> Figure:
    """Draw videos per class, found ones solid and the rest hollow, and a histogram of durations."""
    splits = list(data.listing.splits)
    names = data.listing.class_names
    height = min(14.0, 3 + 0.28 * len(names)) if len(names) <= MAX_NAMED_CLASSES else 6.0
    figure = Figure(figsize=(13, height), layout="constrained")
    left, right = figure.subplots(1, 2)
    width = 0.8 / len(splits)
    for number, split in enumerate(splits):
        counts = data.counts(split)[:-1]
        listed = counts[:, 0]
        usable = listed - counts[:, 1 : -len(USED)].sum(axis=1)
        colour = COLOURS[split]
        if len(names) <= MAX_NAMED_CLASSES:
            places = np.arange(len(names)) + (number - (len(splits) - 1) / 2) * width
            left.barh(places, usable, width, color=colour, label=split)
            left.barh(
                places, listed - usable, width, left=usable, color="none", edgecolor=colour, lw=0.8
            )
        else:
            order = np.argsort(-listed, kind="stable")
            left.plot(usable[order], color=colour, lw=1, label=split)
            left.plot(listed[order], color=colour, lw=0.8, ls=":")
        seconds = data.durations(split)
        seconds = seconds[np.isfinite(seconds)]
        if len(seconds):
            # a few very long ones would leave the others a single bar
            shown = np.minimum(seconds, 1.05 * np.percentile(seconds, 99) + 0.1)
            right.hist(
                shown,
                bins=60,
                histtype="stepfilled",
                alpha=0.5,
                color=colour,
                label=f"{split} ({len(shown):,})",
            )
    if len(names) <= MAX_NAMED_CLASSES:
        left.set_yticks(range(len(names)), [plain_text(name) for name in names])
        left.invert_yaxis()
        left.set_xlim(right=1.03 * left.get_xlim()[1])  # or its frame hides the hollow ends
        left.xaxis.get_major_locator().set_params(integer=True)
        left.set(xlabel="videos; hollow: missing or unreadable")
    else:
        left.set(xlabel="classes, the largest first", ylabel="videos; dotted: as listed")
        left.set_ylim(bottom=0)
    left.set(title=f"videos of the {len(names)} classes")
    right.set(title="how long they are", xlabel="seconds (the longest 1 % at the edge)")
    right.set_ylabel("videos")
    right.yaxis.get_major_locator().set_params(integer=True)
    for axes in (left, right):
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return figure
