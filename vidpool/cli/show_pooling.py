"""``vidpool show pooling``: images and videos, pooled. Figures 3, 5, 6, S1 and S3."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich import box
from rich.table import Table
from torch import Tensor

from vidpool.analysis.image_pooling import LEARNED, Setting, make_layers, pool_and_enlarge
from vidpool.analysis.images import SUFFIXES, photographs, read_image
from vidpool.analysis.pooling_sheet import (
    ANIMATIONS,
    Region,
    clip_sheet,
    image_sheet,
    most_detailed,
    shown_frames,
    side_by_side,
    write_animation,
)
from vidpool.analysis.similarity import WINDOW, similarity
from vidpool.cli.arguments import add_seed, check_at_least
from vidpool.data.parallel import counting_bar
from vidpool.data.views import even_clips
from vidpool.errors import ConfigError, DataError, VideoError
from vidpool.files import make_folder
from vidpool.nn import POOLING_METHODS
from vidpool.results import provenance, wide_console, write_results
from vidpool.video import open_video

PHOTOGRAPH = "coffee.png"  # where nothing is given


class _Shown(NamedTuple):
    """A picture (3, H, W), or a clip (3, T, H, W) with its frames per second; uint8."""

    pixels: Tensor
    fps: float | None


def add_parser(what: Any) -> None:
    """Add ``pooling`` to the subcommands of ``vidpool show``."""
    parser = what.add_parser(
        "pooling",
        help="draw images and videos before and after pooling (Figures 3, 5, 6, S1, S3)",
        description="Draw each image or video before and after pooling, enlarged to its original "
        "size, as a whole and with a zoomed region. Videos are pooled in space and time, and also "
        "become an animation. Without a file, a photograph that scikit-image ships is used.",
        epilog="example: vidpool show pooling photo.jpg video.mp4 --output pooling --kernels 2 4",
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("files", nargs="*", metavar="IMAGE_OR_VIDEO", help="image and video files")
    add(
        "--methods",
        nargs="+",
        choices=POOLING_METHODS,
        default=["avg", "max", "soft"],
        metavar="NAME",
        help=f"of {', '.join(POOLING_METHODS)} (default: avg max soft)",
    )
    add(
        "--kernels",
        nargs="+",
        type=int,
        default=[2, 3, 4, 5],
        metavar="K",
        help="window sizes (default: 2 3 4 5)",
    )
    add(
        "--zoom",
        metavar="X,Y,SIDE",
        help="the region to enlarge, in pixels from the upper left corner of what is shown "
        "(default: the most detailed one)",
    )
    add(
        "--output",
        default="pooling",
        metavar="FOLDER",
        help="folder of NAME.png, NAME.json and, for videos, NAME.mp4 (default: %(default)s)",
    )
    add("--overwrite", action="store_true", help="replace these files")
    add("--animation", choices=ANIMATIONS, default="mp4", help="(default: %(default)s)")
    for name, default, help in (
        ("frames", 60, "of a video, from its middle"),
        ("stride", 1, "between these frames"),
        ("short_side", 180, "of a video's frames, in pixels"),
    ):
        add(f"--{name}", type=int, default=default, metavar="N", help=f"{help} (%(default)s)")
    add_seed(add, "of stochastic pooling")


def run(args: argparse.Namespace) -> int:
    """Draw and write; unreadable files are listed and make the exit status 1.

    Raises:
        ConfigError: An option cannot work, or a file is there already.
        DataError: A file is a folder, or none can be read and is large enough.
    """
    check_at_least(args, 1, "frames", "stride", "short_side")
    zoom = _region(args.zoom)
    methods, kernel_sizes = (list(dict.fromkeys(n)) for n in (args.methods, args.kernels))
    make_layers(methods, kernel_sizes)  # says now what cannot be made
    files = [Path(file) for file in args.files]
    for file in files:
        if file.is_dir():
            raise DataError(f"{file}: is a folder; name files in it, such as {file}/*.png")
    if not files:
        files = [file for file in photographs() if file.name == PHOTOGRAPH]
    folder = Path(args.output)
    names = _names(files)
    for file, name in names.items():
        for suffix in (".json", ".png", *([] if _is_image(file) else [f".{args.animation}"])):
            if (folder / f"{name}{suffix}").exists() and not args.overwrite:
                raise ConfigError(
                    f"{folder / name}{suffix} exists; give --overwrite to replace it, or another "
                    "--output"
                )
    make_folder(folder)
    failures: list[str] = []
    for file, name in names.items():
        try:
            _draw(file, folder / f"{name}.json", methods, kernel_sizes, zoom, args)
        except (DataError, VideoError) as error:
            failures.append(str(error))
    if len(failures) == len(names):
        none = f"none of {len(names)} files can be drawn: " if len(names) > 1 else ""
        raise DataError(none + failures[0])
    for message in failures:
        print(f"left out: {message}")
    return 1 if failures else 0


def _draw(
    file: Path,
    out: Path,
    methods: list[str],
    kernel_sizes: list[int],
    zoom: Region | None,
    args: argparse.Namespace,
) -> None:
    shown = _read(file, args, max(kernel_sizes))
    original = shown.pixels.float() / 255
    height, width = original.shape[-2:]
    if zoom and (zoom.left + zoom.side > width or zoom.top + zoom.side > height):
        raise ConfigError(f"--zoom {args.zoom} lies outside {file}, shown as {width} x {height}")
    layers = make_layers(methods, kernel_sizes, args.seed, original.ndim - 1)
    frames = shown_frames(original.shape[1]) if original.ndim == 4 else None
    pooled: dict[Setting, Tensor] = {}
    values: dict[Setting, list[float]] = {}
    with counting_bar() as bar, torch.no_grad():
        task = bar.add_task(file.name, total=len(layers))
        for setting, layer in layers.items():
            version = pool_and_enlarge(original, layer, args.seed)
            pairs = (
                [(original, version)]
                if frames is None
                else [(original[:, i].contiguous(), version[:, i].contiguous()) for i in frames]
            )
            compared = [similarity(*pair) for pair in pairs]
            values[setting] = [sum(c.ssim for c in compared) / len(compared)]
            values[setting] += [sum(c.psnr for c in compared) / len(compared)]
            pooled[setting] = (version * 255).round().byte()
            bar.advance(task)
    middle = shown.pixels if frames is None else shown.pixels[:, frames[len(frames) // 2]]
    region = zoom or most_detailed(middle)
    ssim = {setting: value[0] for setting, value in values.items()}
    sheet = image_sheet if frames is None else clip_sheet
    of = f"{width} x {height}" if frames is None else f"{original.shape[1]} frames"
    figure = sheet(shown.pixels, pooled, ssim, region, f"{file.name}, {of}")
    content = {
        "file": str(file),
        "shape": list(shown.pixels.shape),
        "region": region._asdict(),
        "ssim_of_frames": frames,
        "similarity": [
            {**setting._asdict(), "ssim": value[0], "psnr": _finite(value[1])}
            for setting, value in values.items()
        ],
    }
    wide_console().print(_table(file, values))
    for path in write_results(out, provenance(args.command, args.seed), content, figure):
        print(f"wrote {path}")
    if shown.fps is not None:
        animation = out.with_suffix(f".{args.animation}")
        write_animation(animation, side_by_side(shown.pixels, pooled), shown.fps)
        print(f"wrote {animation}")


def _read(file: Path, args: argparse.Namespace, largest: int) -> _Shown:
    """Read an image, or frames from the middle of a video.

    Raises:
        DataError: It cannot be read, or is smaller than a window.
        VideoError: The same of a video.
    """
    least = max(WINDOW, largest)
    if _is_image(file):
        picture = (read_image(file) * 255).round().byte()
        if min(picture.shape[1:]) < least:
            raise DataError(f"{file}: is smaller than {least} x {least} pixels")
        return _Shown(picture, None)
    with open_video(file) as video:
        if len(video) < largest:
            raise VideoError(f"{file}: has {len(video)} frames, and a window {largest}")
        count = min(args.frames, max(largest, len(video) // args.stride))
        (where,) = even_clips(len(video), 1, count, args.stride).tolist()
        clip = video.frames(where, args.short_side).transpose(0, 1).contiguous()
        fps = video.fps / args.stride
    if min(clip.shape[1:]) < largest or min(clip.shape[2:]) < least:
        raise ConfigError(
            f"{file}: {clip.shape[1]} frames of {clip.shape[3]} x {clip.shape[2]} pixels are too "
            f"small for windows of {largest} and for SSIM's of {WINDOW}: give larger --frames and "
            "--short_side"
        )
    return _Shown(clip, fps)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES


def _names(files: list[Path]) -> dict[Path, str]:
    """Return the name of each file's results: its own without suffix, numbered if not unique."""
    names: dict[Path, str] = {}
    for file in files:
        name, number = file.stem, 1
        while name in names.values():
            number += 1
            name = f"{file.stem}_{number}"
        names.setdefault(file, name)
    return names


def _region(text: str | None) -> Region | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(f"--zoom {text} must be X,Y,SIDE in pixels, like 120,80,64")
    region = Region(*map(int, parts))
    if region.side < 1:
        raise ConfigError(f"--zoom {text}: SIDE must be at least 1")
    return region


def _finite(number: float) -> float | None:
    return None if number == float("inf") else number


def _table(file: Path, values: Mapping[Setting, list[float]]) -> Table:
    methods = list(dict.fromkeys(setting.method for setting in values))
    kernel_sizes = list(dict.fromkeys(setting.kernel_size for setting in values))
    table = Table(box=box.SIMPLE_HEAD, title=f"{file.name}: SSIM, PSNR in dB")
    table.add_column("method", no_wrap=True)
    for kernel_size in kernel_sizes:
        table.add_column(f"k = {kernel_size}", justify="right", no_wrap=True)
    for method in methods:
        cells = []
        for kernel_size in kernel_sizes:
            value = values.get(Setting(method, kernel_size))
            cells.append("none" if value is None else f"{value[0]:.3f}, {value[1]:.1f}")
        table.add_row(method + " (untrained)" * (method in LEARNED), *cells)
    return table
