"""The demo dataset: eight classes of real video files that differ only in motion.

A textured object moves over a photograph: left, right, up, down, in circles clockwise or
anticlockwise, growing or shrinking. Position, size, angle and texture have the same distribution
in every class at a random moment of a clip, so that a single frame says nothing about the class.

The files lie as UCF-101's do, and are split into groups as UCF-101's are: a group has one
photograph and its own objects, and a whole group belongs to training or to testing.
"""

import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional as F

from vidpool.data.parallel import usable_cpus
from vidpool.errors import ConfigError, DataError
from vidpool.files import atomic_write

CLASSES = (
    "CircleAnticlockwise",
    "CircleClockwise",
    "Grow",
    "MoveDown",
    "MoveLeft",
    "MoveRight",
    "MoveUp",
    "Shrink",
)
# One photograph of scikit-image a group; those of groups 1-5 are the test set of split 1,
# those of 6-10 of split 2, those of 11-15 of split 3.
PHOTOGRAPHS = (
    "coffee",
    "grass",
    "rocket",
    "clock",
    "immunohistochemistry",
    "astronaut",
    "brick",
    "retina",
    "coins",
    "cell",
    "chelsea",
    "gravel",
    "stereo_motorcycle",
    "camera",
    "hubble_deep_field",
    "moon",
    "page",
    "text",
)
TEST_GROUPS = {1: range(1, 6), 2: range(6, 11), 3: range(11, 16)}

WIDTH, HEIGHT, FPS = 320, 240, 25
MIN_FRAMES, MAX_FRAMES = 50, 100  # 2-4 s
MIN_SIZE, MAX_SIZE = 60.0, 160.0  # the object's diameter, pixels
REACH = 80.0  # how far from the picture's centre a straight path leads, pixels
RADIUS = 35.0  # of the circular path, pixels
OBJECTS_PER_GROUP = 6
TEXTURE_SIZE = 160


@dataclass(frozen=True)
class DemoSettings:
    """Settings of a demo dataset, stored with it as ``demo.json``."""

    clips_per_group: int = 10
    seed: int = 0
    version: int = 1  # of the drawing code: raise it when the pixels change


@dataclass(frozen=True)
class DemoClip:
    """One clip to be made: class id, group from 1, clip number from 1 within class and group."""

    label: int
    group: int
    number: int

    @property
    def path(self) -> str:
        """Path below the data set's folder; formats alternate between mpeg4 AVI and h264 MP4."""
        name = CLASSES[self.label]
        suffix = "avi" if self.number % 2 else "mp4"
        return f"{name}/v_{name}_g{self.group:02d}_c{self.number:02d}.{suffix}"


def make_demo(
    out: str | os.PathLike[str],
    clips_per_group: int = 10,
    seed: int = 0,
    num_workers: int | None = None,
) -> Path:
    """Make the demo data set, with a progress bar, in parallel; files that are there are kept.

    Args:
        out: The folder to make. One that holds a demo set of the same settings is completed.
        clips_per_group: Clips of each class in each of the 18 groups; 144 clips for each unit.
        seed: The same seed gives the same frames, whatever the number of num_workers.
        num_workers: Processes; by default one for each CPU this process may use.

    Returns:
        The folder, which holds the class folders and ``ucfTrainTestlist``.

    Raises:
        ConfigError: ``clips_per_group`` or ``num_workers`` is below 1, or scikit-image is missing.
        DataError: ``out`` holds something else, or a demo set of other settings.
    """
    if not 1 <= clips_per_group <= 99:
        raise ConfigError(f"clips_per_group must be from 1 to 99, got {clips_per_group}")
    if num_workers is None:
        num_workers = usable_cpus()
    if num_workers < 1:
        raise ConfigError(f"num_workers must be at least 1, got {num_workers}")
    root = Path(out)
    settings = DemoSettings(clips_per_group, seed)
    _claim_folder(root, settings)

    clips = list(_all_clips(clips_per_group))
    missing = [clip for clip in clips if not (root / clip.path).is_file()]
    for name in CLASSES:
        (root / name).mkdir(exist_ok=True)
    # spawn: a forked child of a process that has run PyTorch's thread pools may hang
    with (
        ProcessPoolExecutor(num_workers, get_context("spawn"), _start_worker) as pool,
        Progress() as progress,
    ):
        task = progress.add_task(f"making {len(missing)} clips in {root}", total=len(missing))
        pending = [pool.submit(_make_clip, root, clip, seed) for clip in missing]
        try:
            for done in as_completed(pending):
                done.result()
                progress.advance(task)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    _write_lists(root, clips)
    return root


def draw_clip(clip: DemoClip, seed: int = 0) -> Tensor:
    """Draw the frames of one clip.

    Returns:
        uint8 frames (T, H, W, 3), 240 x 320, T from 50 to 100.
    """
    rng = np.random.default_rng([seed, clip.label, clip.group, clip.number])
    background = _background(clip.group, rng)
    texture = _object_texture(clip.group, int(rng.integers(OBJECTS_PER_GROUP)), seed)
    x, y, size, angle = _motion(CLASSES[clip.label], rng)
    picture = background.mul(255).round().byte().permute(1, 2, 0).contiguous()
    frames = picture.repeat(len(x), 1, 1, 1)
    # The object, which is round, is drawn in a square window around it and not in whole frames.
    window = math.ceil(float(size.max())) + 2
    left, top = x.floor().int() - window // 2, y.floor().int() - window // 2
    steps = torch.arange(window)
    across = (steps + left[:, None] - x[:, None])[:, None, :]  # offsets from the centre, pixels
    down = (steps + top[:, None] - y[:, None])[:, :, None]
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    u, v = cos * across + sin * down, cos * down - sin * across
    where = torch.stack([u, v], dim=-1) * (2 / size[:, None, None, None])
    drawn = F.grid_sample(texture.expand(len(x), -1, -1, -1), where, align_corners=False)
    for frame, patch, x0, y0 in zip(frames, drawn, left.tolist(), top.tolist(), strict=True):
        visible = frame[max(0, y0) : y0 + window, max(0, x0) : x0 + window]
        rows, columns = visible.shape[:2]
        skip_y, skip_x = max(0, -y0), max(0, -x0)
        patch = patch[:, skip_y : skip_y + rows, skip_x : skip_x + columns].permute(1, 2, 0)
        colour, alpha = patch[..., :3], patch[..., 3:]
        visible.copy_(visible.float().lerp(colour * 255, alpha).round())
    return frames


def write_video(path: str | os.PathLike[str], frames: Tensor, fps: int = FPS) -> None:
    """Encode frames as mpeg4 with B-frames (``.avi``, like UCF-101's files) or h264 (``.mp4``).

    Args:
        path: The file to write; it appears under its name only when it is complete.
        frames: uint8 RGB frames (T, H, W, 3); H and W even.
        fps: Frames a second.
    """
    path = Path(path)
    if path.suffix == ".avi":
        codec, options = "mpeg4", {"g": "250", "bf": "2", "qscale": "4", "flags": "+qscale"}
    else:
        codec, options = "libx264", {"preset": "veryfast", "crf": "23", "threads": "1"}
    with (
        atomic_write(path) as temporary,
        av.open(str(temporary), "w", format=path.suffix[1:]) as container,
    ):
        stream = container.add_stream(codec, rate=Fraction(fps), options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # several threads would change the bytes
        for image in frames.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def _claim_folder(root: Path, settings: DemoSettings) -> None:
    """Write the settings into a new folder, or check those of an old one."""
    marker = root / "demo.json"
    if marker.is_file():
        try:
            found = json.loads(marker.read_text())
        except json.JSONDecodeError as error:
            raise DataError(f"{marker}: is not valid JSON ({error}); remove the folder") from None
        if found != asdict(settings):
            raise DataError(
                f"{root} holds a demo data set of other settings, {found}, not {asdict(settings)}: "
                "choose another folder or remove this one"
            )
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} exists and is no demo data set: choose another folder")
    root.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps(asdict(settings)) + "\n")


def _all_clips(clips_per_group: int) -> Iterator[DemoClip]:
    for label in range(len(CLASSES)):
        for group in range(1, len(PHOTOGRAPHS) + 1):
            for number in range(1, clips_per_group + 1):
                yield DemoClip(label, group, number)


def _write_lists(root: Path, clips: list[DemoClip]) -> None:
    """Write class index and the three splits, in the form of UCF-101's own lists."""
    lists = root / "ucfTrainTestlist"
    lists.mkdir(exist_ok=True)
    index = "".join(f"{i} {name}\n" for i, name in enumerate(CLASSES, start=1))
    (lists / "classInd.txt").write_text(index)
    for split, groups in TEST_GROUPS.items():
        train = [f"{c.path} {c.label + 1}\n" for c in clips if c.group not in groups]
        test = [f"{c.path}\n" for c in clips if c.group in groups]
        (lists / f"trainlist{split:02d}.txt").write_text("".join(train))
        (lists / f"testlist{split:02d}.txt").write_text("".join(test))


def _start_worker() -> None:
    torch.set_num_threads(1)


def _make_clip(root: Path, clip: DemoClip, seed: int) -> None:
    write_video(root / clip.path, draw_clip(clip, seed))


@lru_cache(maxsize=len(PHOTOGRAPHS))
def _photograph(group: int) -> Tensor:
    """Return a group's photograph, float32 RGB (3, H, W) in [0, 1]; grey ones are given a tint."""
    try:
        from skimage import data
    except ImportError:
        raise ConfigError(
            "the demo data set is drawn from scikit-image's photographs, and scikit-image is not "
            "installed: pip install scikit-image"
        ) from None
    image = getattr(data, PHOTOGRAPHS[group - 1])()
    if isinstance(image, tuple):  # a stereo pair and its disparity
        image = image[0]
    pixels = torch.from_numpy(np.ascontiguousarray(image)).float() / 255
    if pixels.ndim == 3:
        return pixels.permute(2, 0, 1)
    dark, bright = torch.from_numpy(np.random.default_rng(group).random((2, 3, 1, 1))).float()
    return 0.5 * dark + pixels * (0.5 + 0.5 * bright - 0.5 * dark)


def _background(group: int, rng: np.random.Generator) -> Tensor:
    """Return a random crop of a group's photograph, float32 (3, 240, 320), perhaps mirrored."""
    photograph = _photograph(group)
    height, width = photograph.shape[1:]
    crop = rng.uniform(0.5, 1.0) * min(height / HEIGHT, width / WIDTH)
    h, w = int(crop * HEIGHT), int(crop * WIDTH)
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    part = photograph[None, :, top : top + h, left : left + w]
    picture = F.interpolate(part, (HEIGHT, WIDTH), mode="bilinear", antialias=True)[0]
    if rng.random() < 0.5:
        picture = picture.flip(-1)
    return (picture * rng.uniform(0.6, 1.1)).clamp(0, 1)


def _object_texture(group: int, number: int, seed: int) -> Tensor:
    """Return an object of a group: float32 RGBA (4, 160, 160), a blob with stripes and spots."""
    rng = np.random.default_rng([seed, group, number, 7])
    axis = torch.linspace(-1, 1, TEXTURE_SIZE)
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    pattern = torch.zeros_like(u)
    for _ in range(3):
        direction, frequency = rng.uniform(0, 2 * math.pi), rng.uniform(3, 9)
        along = u * math.cos(direction) + v * math.sin(direction)
        pattern += torch.sin(frequency * along + rng.uniform(0, 2 * math.pi))
    coarse = torch.from_numpy(rng.standard_normal((1, 1, 6, 6))).float()
    pattern += F.interpolate(coarse, (TEXTURE_SIZE, TEXTURE_SIZE), mode="bicubic")[0, 0]
    mix = torch.sigmoid(3 * pattern)
    first, second = torch.from_numpy(rng.random((2, 3, 1, 1))).float()
    second = torch.where((first - second).abs().mean() < 0.3, 1 - first, second)
    colour = first + mix * (second - first)
    # the outline is a circle with bumps
    theta, radius = torch.atan2(v, u), torch.hypot(u, v)
    bumps, phase = int(rng.integers(2, 6)), rng.uniform(0, 2 * math.pi)
    outline = 0.8 + 0.15 * torch.sin(bumps * theta + phase)
    alpha = ((outline - radius) * TEXTURE_SIZE / 4).clamp(0, 1)
    return torch.cat([colour, alpha[None]])


def _motion(name: str, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return centre x and y, size (pixels) and angle (radians, clockwise on the screen), each (T,).

    The centre is a point of a straight path plus a point of a circle. Along each quantity an object
    would travel a random distance from a random start; in the classes that do not move along it,
    the object stands at a random point of such a path. This gives every class the same distribution
    at a random moment.
    """
    frames = int(rng.integers(MIN_FRAMES, MAX_FRAMES + 1))
    time = torch.linspace(0, 1, frames)

    def path(low: float, high: float, direction: int) -> Tensor:
        distance = rng.uniform(0.6, 1.0) * (high - low)
        start = rng.uniform(low, high - distance)
        still = rng.uniform(0, distance)
        if direction == 0:
            return torch.full((frames,), start + still)
        return start + distance * (time if direction > 0 else 1 - time)

    x = WIDTH / 2 + path(-REACH, REACH, {"MoveRight": 1, "MoveLeft": -1}.get(name, 0))
    y = HEIGHT / 2 + path(-REACH, REACH, {"MoveDown": 1, "MoveUp": -1}.get(name, 0))
    size = path(math.log(MIN_SIZE), math.log(MAX_SIZE), {"Grow": 1, "Shrink": -1}.get(name, 0))
    turn = {"CircleClockwise": 1, "CircleAnticlockwise": -1}.get(name, 0)
    speed = math.radians(rng.uniform(90, 150)) / FPS  # a frame
    phase = rng.uniform(0, 2 * math.pi) + turn * speed * torch.arange(frames)
    angle = torch.full((frames,), rng.uniform(0, 2 * math.pi))
    return x + RADIUS * phase.cos(), y + RADIUS * phase.sin(), size.exp(), angle
