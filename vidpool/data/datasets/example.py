"""Tiny datasets of generated videos, for examples and for trying things out."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Literal

import av
import torch
from torch import Tensor

from vidpool.data.datasets.demo import write_video

ExampleLayout = Literal["folders", "ucf101", "images", "hacs", "kinetics"]
CLASSES = ("jump", "run")

_folders: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends


@cache
def example_dataset(layout: ExampleLayout = "folders") -> Path:
    """Write a tiny dataset into a temporary folder, which is removed when the process ends.

    It has two classes, with three training and two validation videos of 64 x 48 pixels each.

    Args:
        layout: ``folders`` for :class:`~vidpool.data.datasets.video_folder.VideoFolderDataModule`,
            ``images`` for
            :class:`~vidpool.data.datasets.image_folder.ImageFolderDataModule`; ``ucf101``, ``hacs``
            and ``kinetics`` for the datamodules of these datasets. The annotations of HACS are
            ``HACS.csv`` in the folder, those of Kinetics ``train.csv`` and ``val.csv``.

    Returns:
        The folder.

    Examples:
        >>> root = example_dataset()
        >>> sorted(path.relative_to(root).as_posix() for path in root.glob("val/*/*"))
        ['val/jump/0.mp4', 'val/jump/1.mp4', 'val/run/0.mp4', 'val/run/1.mp4']
    """
    _folders.append(tempfile.TemporaryDirectory(prefix="vidpool_example_"))
    root = Path(_folders[-1].name)
    lines: dict[str, list[str]] = {"train": [], "val": []}
    for split, count in (("train", 3), ("val", 2)):
        for label, name in enumerate(CLASSES):
            for number in range(count):
                key = f"{split}{name}{number}".ljust(11, "_")  # as YouTube's ids
                path, line = {
                    "folders": (f"{split}/{name}/{number}.mp4", ""),
                    "images": (f"{split}/{name}/{number}.png", ""),
                    "ucf101": (f"{name}/v_{name}_{key}.avi", f"{name}/v_{name}_{key}.avi"),
                    "hacs": (
                        f"{name}/{key}_0.0_1.0.mp4",
                        f"{name},{key},{split}ing,0.0,1.0,1".replace("valing", "validation"),
                    ),
                    "kinetics": (f"{name}/{key}_000000_000001.mp4", f"{name},{key},0,1,{split}"),
                }[layout]
                lines[split].append(f"{line} {label + 1}" * (layout == "ucf101") or line)
                _write(root / path, _frames(label, number))
    _write_lists(root, layout, lines)
    return root


def _frames(label: int, number: int, size: tuple[int, int] = (48, 64)) -> Tensor:
    """Return uint8 frames (T, H, W, 3) of a bright square that moves over noise."""
    generator = torch.Generator().manual_seed(number)
    picture = torch.randint(0, 120, (*size, 3), generator=generator, dtype=torch.uint8)
    frames = picture.repeat(20 + number, 1, 1, 1)
    for t, frame in enumerate(frames):
        top, left = (t, 20) if CLASSES[label] == "jump" else (20, t)
        frame[top : top + 10, left : left + 10] = 240
    return frames


def _write(path: Path, frames: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".png":
        write_video(path, frames)
        return
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("png")
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frames[0].numpy(), format="rgb24")))
        container.mux(stream.encode(None))


def _write_lists(root: Path, layout: ExampleLayout, lines: dict[str, list[str]]) -> None:
    if layout == "ucf101":
        folder = root / "ucfTrainTestlist"
        folder.mkdir()
        index = "".join(f"{number} {name}\n" for number, name in enumerate(CLASSES, start=1))
        (folder / "classInd.txt").write_text(index)
        (folder / "trainlist01.txt").write_text("\n".join(lines["train"]))
        (folder / "testlist01.txt").write_text("\n".join(line[:-2] for line in lines["val"]))
    elif layout == "hacs":
        header = "classname,youtube_id,subset,start,end,label"
        (root / "HACS.csv").write_text("\n".join([header, *lines["train"], *lines["val"]]))
    elif layout == "kinetics":
        for split, own in lines.items():
            header = "label,youtube_id,time_start,time_end,split"
            (root / f"{split}.csv").write_text("\n".join([header, *own]))
