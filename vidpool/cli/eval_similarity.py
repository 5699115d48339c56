"""``vidpool eval similarity``: SSIM and PSNR of images after pooling. Tables 1 and 3."""

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table
from torch import nn

from vidpool.analysis.image_pooling import (
    LEARNED,
    Setting,
    make_layers,
    read_training_images,
    train_layer,
)
from vidpool.analysis.images import find_images
from vidpool.analysis.published import SIMILARITY_KERNELS, TABLES_1_3
from vidpool.analysis.similarity import (
    MEASURES,
    Mean,
    Similarity,
    compare_with,
    measure_images,
    similarity_chart,
    summarize,
)
from vidpool.cli.arguments import (
    add_num_workers,
    add_output,
    add_seed,
    check_at_least,
    results_file,
)
from vidpool.data.parallel import counting_bar, usable_cpus
from vidpool.errors import DataError
from vidpool.nn import POOLING_METHODS
from vidpool.results import provenance, wide_console, write_results

# "Flicker2K" in the paper
SPELLINGS = {name.lower(): name for name in TABLES_1_3} | {"flicker2k": "Flickr2K"}
SUBJECT = "soft"  # what the others are compared with
Summary = Mapping[Setting, tuple[Mean, Mean]]


def add_parser(what: Any) -> None:
    """Add ``similarity`` to the subcommands of ``vidpool eval``."""
    parser = what.add_parser(
        "similarity",
        help="measure SSIM and PSNR of images after pooling (Tables 1 and 3)",
        description="Pool images by every method, enlarge them to their size by area interpolation "
        "(each value is repeated over its window) and compare them with the originals by SSIM "
        "(Gaussian window of 11 x 11) and PSNR. Pixels are in [0, 1]; means have 95 % confidence "
        "intervals. Without FOLDER, photographs that scikit-image ships are used.",
        epilog="example: vidpool eval similarity data/DIV2K_valid_HR --train_folder "
        "data/DIV2K_train_HR --output div2k.json",
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("images", nargs="*", metavar="FOLDER", help="folders of images, or image files")
    add(
        "--dataset",
        choices=TABLES_1_3,
        help="published values to compare with (default: by the folder's name, or DIV2K)",
    )
    add(
        "--methods",
        nargs="+",
        choices=POOLING_METHODS,
        default=list(POOLING_METHODS),
        metavar="NAME",
        help=f"(default: all, {', '.join(POOLING_METHODS)})",
    )
    add(
        "--kernels",
        nargs="+",
        type=int,
        default=list(SIMILARITY_KERNELS),
        metavar="K",
        help="window sizes (default: 2 3 5)",
    )
    add("--limit", type=int, metavar="N", help="take N of the images, evenly chosen")
    add(
        "--train_folder",
        metavar="FOLDER",
        help=f"train the learned methods ({', '.join(LEARNED)}) to reconstruct its images first",
    )
    add("--train_steps", type=int, default=200, metavar="N", help="(default: %(default)s)")
    add_seed(add)
    add_num_workers(add)
    add_output(add, "all values, of each image too,")


def run(args: argparse.Namespace) -> int:
    """Measure and print; the exit status is 1 if an image could not be read.

    Raises:
        ConfigError: An option cannot work.
        DataError: There are no images, or none that can be measured.
    """
    output = results_file(args)
    check_at_least(args, 1, "limit", "train_steps", "num_workers")
    images = find_images(args.images)
    if args.limit is not None and args.limit < len(images):
        images = [images[i * len(images) // args.limit] for i in range(args.limit)]
    training = find_images([args.train_folder]) if args.train_folder else []
    methods = list(dict.fromkeys(args.methods))
    layers = make_layers(methods, list(dict.fromkeys(args.kernels)), args.seed)
    learns = not set(LEARNED).isdisjoint(methods)
    losses, unread = _train(layers, training, args) if training and learns else ({}, [])
    results, failures = _measure_all(images, layers, args)
    if not results:
        raise DataError(f"none of {len(images)} images can be measured: {failures[0]}")

    dataset, is_same = _published_dataset(args)
    names = {
        name: f"{name} (untrained)" if name in LEARNED and not training else name
        for name in methods
    }
    summary, differences = summarize(results), compare_with(results, SUBJECT)
    pixels = "1 image" if len(results) == 1 else f"{len(results)} images"
    pixels += "" if args.images else " of scikit-image"
    whose = dataset if is_same else f"{dataset}, that is of other images"
    console = wide_console()
    title = f"{pixels}; the paper's values below: {whose}"
    console.print(_table(title, summary, names, TABLES_1_3[dataset]))
    if differences:
        others = {method: name for method, name in names.items() if method != SUBJECT}
        title = f"how much more {SUBJECT} has, paired by image"
        console.print(_table(title, differences, others, _published_differences(dataset)))
    failures = list(dict.fromkeys(failures + unread))  # a folder may be of both kinds
    for message in failures:
        console.print(f"left out: {escape(message)}", highlight=False)
    if output:
        content = _content(args, dataset, summary, differences, results)
        content["published_is_of_these_images"] = is_same
        content["training_losses"] = losses
        content["left_out"] = failures
        figure = similarity_chart(summary, names, TABLES_1_3[dataset], f"{pixels}; paper: {whose}")
        about = provenance(args.command, args.seed)
        for path in write_results(output, about, content, figure):
            print(f"wrote {path}")
    return 1 if failures else 0


def _train(
    layers: Mapping[Setting, nn.Module], images: Sequence[Path], args: argparse.Namespace
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Train the learned methods.

    Returns:
        The mean losses of the first and last tenth of the steps, and the errors of unreadable
        images.

    Raises:
        DataError: No image can be read, or none is large enough.
    """
    learned = {setting: layer for setting, layer in layers.items() if setting.method in LEARNED}
    pictures, unread = read_training_images(images, args.seed)
    if not pictures:
        raise DataError(f"none of {len(images)} images to train with can be read: {unread[0]}")
    losses = {}
    with counting_bar() as bar:
        task = bar.add_task("", total=len(learned) * args.train_steps)
        for (method, kernel_size), layer in learned.items():
            bar.update(task, description=f"training {method}, k = {kernel_size}")
            history = train_layer(
                layer, pictures, args.train_steps, args.seed, lambda: bar.advance(task)
            )
            tenth = max(1, len(history) // 10)
            losses[f"{method} {kernel_size}"] = {
                "first": sum(history[:tenth]) / tenth,
                "last": sum(history[-tenth:]) / tenth,
            }
    return losses, unread


def _measure_all(
    images: Sequence[Path], layers: Mapping[Setting, nn.Module], args: argparse.Namespace
) -> tuple[dict[Path, dict[Setting, Similarity]], list[str]]:
    """Return the similarities by image, in the images' order, and the errors of other images."""
    measured: dict[Path, dict[Setting, Similarity] | DataError] = {}
    workers = min(args.num_workers or usable_cpus(), len(images))
    with counting_bar() as bar:
        task = bar.add_task("pooling and comparing", total=len(images))
        for image, result in measure_images(images, layers, args.seed, workers):
            measured[image] = result
            bar.advance(task)
    results: dict[Path, dict[Setting, Similarity]] = {}
    failures: list[str] = []
    for image in images:
        result = measured[image]
        if isinstance(result, DataError):
            failures.append(str(result))
        else:
            results[image] = result
    return results, failures


def _published_dataset(args: argparse.Namespace) -> tuple[str, bool]:
    """Return the image set of the published values, and whether the images are of that set."""
    if args.dataset:
        return args.dataset, True
    found = {_dataset_of(Path(path)) for path in args.images}
    if len(found) == 1 and (name := found.pop()):
        return name, True
    return next(iter(TABLES_1_3)), False


def _dataset_of(path: Path) -> str | None:
    """Return the image set whose name is in the innermost such folder of a path; None without."""
    absolute = path.absolute()
    for part in (absolute, *absolute.parents):
        for spelling, name in SPELLINGS.items():
            if spelling in part.name.lower():
                return name
    return None


def _published_differences(dataset: str) -> dict[str, tuple[tuple[float, float], ...]]:
    ours = TABLES_1_3[dataset][SUBJECT]
    return {
        method: tuple(
            (own[0] - other[0], own[1] - other[1]) for own, other in zip(ours, values, strict=True)
        )
        for method, values in TABLES_1_3[dataset].items()
    }


def _table(
    title: str,
    summary: Summary,
    names: Mapping[str, str],
    published: Mapping[str, Sequence[tuple[float, float]]],
) -> Table:
    """Return a table with one row per method, and the paper's values below the means."""
    kernel_sizes = list(dict.fromkeys(setting.kernel_size for setting in summary))
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0))
    table.add_column("method", no_wrap=True)
    for kernel_size in kernel_sizes:
        for measure in MEASURES:
            unit = " dB" if measure == "PSNR" else ""
            table.add_column(f"{measure}{unit}\nk = {kernel_size}", justify="right", no_wrap=True)
    for method, name in names.items():
        cells = []
        for kernel_size in kernel_sizes:
            means = summary.get(Setting(method, kernel_size))
            for which, digits in enumerate((4, 2)):
                mean = means[which] if means else Mean(None, None, 0)
                text = "none" if mean.mean is None else f"{mean.mean:.{digits}f}"
                if mean.half_width is not None:
                    text += f" ± {mean.half_width:.{digits}f}"
                paper = ""
                if method in published and kernel_size in SIMILARITY_KERNELS:
                    column = SIMILARITY_KERNELS.index(kernel_size)
                    paper = f"{published[method][column][which]:.3f}"
                cells.append(f"{text}\n[dim]{paper}[/dim]")
        table.add_row(name, *cells)
    return table


def _content(
    args: argparse.Namespace,
    dataset: str,
    summary: Summary,
    differences: Summary,
    results: Mapping[Path, Mapping[Setting, Similarity]],
) -> dict[str, Any]:
    """Return all results for JSON."""

    def rows(
        means: Summary, published: Mapping[str, Sequence[tuple[float, float]]]
    ) -> list[dict[str, Any]]:
        found = []
        for (method, kernel_size), pair in means.items():
            row: dict[str, Any] = {"method": method, "k": kernel_size}
            for name, mean in zip(MEASURES, pair, strict=True):
                row[name.lower()] = {
                    "mean": mean.mean,
                    "half_width_95": mean.half_width,
                    "images": mean.images,
                }
            if method in published and kernel_size in SIMILARITY_KERNELS:
                values = published[method][SIMILARITY_KERNELS.index(kernel_size)]
                row["published_ssim"], row["published_psnr"] = values
            found.append(row)
        return found

    means = rows(summary, TABLES_1_3[dataset])
    for row in means:
        row["trained"] = bool(args.train_folder) if row["method"] in LEARNED else None
    return {
        "published_dataset": dataset,
        "means": means,
        f"{SUBJECT}_minus_others": rows(differences, _published_differences(dataset)),
        "images": {
            str(image): [
                {
                    **setting._asdict(),
                    "ssim": value.ssim,
                    # infinite where nothing was lost
                    "psnr": value.psnr if math.isfinite(value.psnr) else None,
                }
                for setting, value in result.items()
            ]
            for image, result in results.items()
        },
    }
