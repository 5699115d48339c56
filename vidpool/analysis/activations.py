"""Activation maximization: clips and images that excite the kernels of a class, as in Figure S2.

The method is that of section S2 of the SoftPool paper. Ten kernels of the last stage are chosen for
a class, and SGD changes a noise input so that their mean activation grows. A mask that falls off
from the centre weakens the gradient, following D. Wei et al., "Understanding Intra-Class Knowledge
Inside CNN" (arXiv 1507.02379).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from vidpool.analysis.examples import central_clips
from vidpool.analysis.images import draw_sheet, frames_to_show, magnify_video
from vidpool.analysis.layers import feature_maps
from vidpool.data.catalogue.table import VideoTable
from vidpool.data.datamodule import VideoDataModule
from vidpool.data.views import Preprocessing, normalize
from vidpool.errors import ConfigError, DataError
from vidpool.train.classifier import VideoClassifier

KERNELS = 10
NOISE = 0.3  # of the initial input around the mean colour, in standard deviations of the data
MASK_SIGMA = 0.5  # of the Gaussian mask, in halves of the side
MAX_FRAMES = 8  # of a clip on a sheet


@dataclass(frozen=True)
class Settings:
    """Settings of activation maximization; defaults are those of section S2 where it states them.

    Attributes:
        iterations: Number of SGD steps.
        side: Side of the square input in pixels.
        lr: Initial learning rate. Gradients are scaled to a root mean square of 1 per clip, so that
            the rate means the same for each network: how far a typical pixel moves per step, in
            standard deviations of the data's pixels.
        last_lr: Final learning rate, which is reached linearly.
        weight_decay: Weight decay of SGD.
        blur: Standard deviation in pixels of the Gaussian that smooths the gradient of each frame,
            which turns noise into shapes; 0 disables it. Not part of section S2.
        shift: Largest random shift of the input in pixels in each step, which prevents effects of
            single pixels; 0 disables it. Not part of section S2.
        seed: Seed of the initial noise and the shifts.

    Raises:
        ConfigError: A value is out of range.
    """

    iterations: int = 2000
    side: int = 512
    lr: float = 0.1
    last_lr: float = 0.01
    weight_decay: float = 1e-6
    blur: float = 0.0
    shift: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        # the comparisons are written so that NaN is refused too
        if not (self.iterations >= 1 and self.side >= 1):
            raise ConfigError(
                f"iterations and side must be at least 1, got {self.iterations} and {self.side}"
            )
        if not 0 < self.last_lr <= self.lr < math.inf:
            raise ConfigError(
                "rates must be above 0 and the last rate not above the first one, got "
                f"{self.last_lr} and {self.lr}"
            )
        if not (self.blur >= 0 and self.shift >= 0 and 0 <= self.weight_decay < math.inf):
            raise ConfigError(
                "blur, shift and weight decay must be finite and not negative, got "
                f"{self.blur}, {self.shift} and {self.weight_decay}"
            )
        if 2 * self.blur >= self.side or self.shift >= self.side:
            raise ConfigError(
                f"an input of {self.side} pixels is too small for a blur of {self.blur} and a "
                f"shift of {self.shift}"
            )


@dataclass(frozen=True)
class Target:
    """Kernels to excite for a class.

    Attributes:
        label: Class id.
        kernels: Channels of the layer, those with the largest activation or weight first.
        example: Clip of the class that excites the kernels most, uint8 (T, H, W, 3); None if the
            kernels were chosen without examples.
    """

    label: int
    kernels: tuple[int, ...]
    example: Tensor | None = None


@dataclass(frozen=True)
class Excitation:
    """An input that excites the kernels of a target.

    Attributes:
        frames: uint8 (T, side, side, 3).
        before: Mean activation of the kernels for the initial noise.
        after: Mean activation of the kernels for these frames.
        probability: Probability of the class for these frames.
    """

    frames: Tensor
    before: float
    after: float
    probability: float


def noise(count: int, frames: int, side: int, seed: int) -> Tensor:
    """Return normalized initial inputs: float32 (count, 3, frames, side, side)."""
    generator = torch.Generator().manual_seed(seed)
    return NOISE * torch.randn(count, 3, frames, side, side, generator=generator)


def targets_by_weight(
    classifier: VideoClassifier, layer: str, labels: Sequence[int], clip: Tensor
) -> list[Target]:
    """Choose the kernels that raise the score of a class most, without examples.

    Kernels are ranked by the gradient of the score with respect to their mean activation. If the
    classifier follows the layer, these gradients are its weights.

    Args:
        classifier: Network in evaluation mode.
        layer: Name of the kernels' layer.
        labels: Class ids.
        clip: Input at which gradients are computed, (1, 3, T, H, W), normalized.
    """
    logits, (maps,) = feature_maps(classifier, clip, [layer])
    targets = []
    for label in labels:
        (gradient,) = torch.autograd.grad(logits[0, label], maps, retain_graph=True)
        best = gradient[0].flatten(1).sum(1).topk(min(KERNELS, maps.shape[1]))
        targets.append(Target(label, tuple(best.indices.tolist())))
    return targets


def target_by_examples(
    classifier: VideoClassifier,
    layer: str,
    label: int,
    preprocessing: Preprocessing,
    datamodule: VideoDataModule,
    videos: VideoTable,
    advance: Callable[[int], None] = lambda _: None,
) -> Target:
    """Choose the kernels with the highest mean activation over examples of a class, as in S2.

    Args:
        classifier: Network in evaluation mode.
        layer: Name of the kernels' layer.
        label: Class id.
        preprocessing: Preprocessing of the checkpoint.
        datamodule: Datamodule whose settings are used to read videos.
        videos: Examples of the class.
        advance: Function called with the number of videos of each batch.

    Raises:
        DataError: No example can be read.
        VideoError: See :func:`vidpool.analysis.examples.central_clips`.
    """
    activations: list[Tensor] = []
    clips: list[Tensor] = []
    for batch in central_clips(datamodule, videos, preprocessing):
        clip = batch["clip"][batch["counted"]]
        advance(len(batch["counted"]))
        if not len(clip):
            continue
        normal = normalize(clip.to(classifier.device), preprocessing.mean, preprocessing.std)
        with torch.no_grad():
            _, (maps,) = feature_maps(classifier, normal, [layer])
        activations.append(maps.flatten(2).mean(2).float().cpu())
        clips.append(clip)
    if not clips:
        raise DataError(f"none of the {len(videos)} examples could be read")
    active = torch.cat(activations)
    kernels = active.mean(0).topk(min(KERNELS, active.shape[1])).indices
    best = int(active[:, kernels].mean(1).argmax())
    example = torch.cat(clips)[best].permute(1, 2, 3, 0)
    return Target(label, tuple(kernels.tolist()), example)


def excite(
    classifier: VideoClassifier,
    preprocessing: Preprocessing,
    layer: str,
    targets: Sequence[Target],
    settings: Settings = Settings(),
    advance: Callable[[int], None] = lambda _: None,
) -> list[Excitation]:
    """Change noise so that it excites the kernels of each target; all targets at once.

    Pixels stay within the range of videos.

    Args:
        classifier: Network in evaluation mode; its parameters need no gradients.
        preprocessing: Preprocessing of the checkpoint: frames per clip, mean and std.
        layer: Name of the kernels' layer.
        targets: Kernels to excite; each target gets an input of its own.
        settings: Settings of the optimization.
        advance: Function called with 1 after each iteration.
    """
    s, p = settings, preprocessing
    device = classifier.device
    x = noise(len(targets), p.frames, s.side, s.seed).to(device).requires_grad_()
    kernels = torch.tensor([target.kernels for target in targets], device=device)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1, 1) for v in (p.mean, p.std))
    black, white = -mean / std, (1 - mean) / std
    mask = _mask(s.side).to(device)
    optimizer = torch.optim.SGD([x], lr=s.lr, weight_decay=s.weight_decay)
    generator = torch.Generator().manual_seed(s.seed)

    def activation(clips: Tensor) -> tuple[Tensor, Tensor]:
        logits, (maps,) = feature_maps(classifier, clips, [layer])
        return logits, maps.flatten(2).mean(2).gather(1, kernels).mean(1)

    before = activation(x)[1].tolist()
    for i in range(s.iterations):
        share = i / max(1, s.iterations - 1)
        optimizer.param_groups[0]["lr"] = s.lr + share * (s.last_lr - s.lr)
        shift = torch.randint(-s.shift, s.shift + 1, (2,), generator=generator).tolist()
        active = activation(x.roll(shift, (3, 4)))[1]
        (gradient,) = torch.autograd.grad(active.sum(), x)
        gradient = _smooth(gradient * mask, s.blur)
        size = gradient.square().mean((1, 2, 3, 4), keepdim=True).sqrt()
        x.grad = -gradient / size.clamp_min(torch.finfo(size.dtype).tiny)
        optimizer.step()
        with torch.no_grad():
            x.copy_(x.clamp(black, white))
        advance(1)
    logits, active = activation(x)
    labels = torch.tensor([target.label for target in targets], device=device)
    probability = logits.float().softmax(1).gather(1, labels[:, None]).flatten().tolist()
    pixels = ((x.detach() * std + mean) * 255).round().clamp(0, 255).byte().cpu()
    clips = pixels.permute(0, 2, 3, 4, 1)
    return [
        Excitation(*each) for each in zip(clips, before, active.tolist(), probability, strict=True)
    ]


def activation_sheet(
    targets: Sequence[Target], excited: Sequence[Excitation], class_names: Sequence[str], title: str
) -> Figure:
    """Draw the inputs, each below its target's example if there is one.

    Clips are rows of frames; images are side by side.

    Args:
        targets: Kernels that were excited.
        excited: Input of each target.
        class_names: Names of the classes by class id.
        title: Title of the figure.
    """
    names: list[str] = []
    clips: list[Tensor] = []
    for target, made in zip(targets, excited, strict=True):
        if target.example is not None:
            names.append(f"{class_names[target.label]}\nexample")
            clips.append(target.example)
        names.append(
            f"{class_names[target.label]}\nactivation {made.before:.3g} → {made.after:.3g}"
        )
        clips.append(made.frames)
    if len(clips[0]) == 1:  # one column per class
        height = len(clips) // len(targets)
        images = [clip[0] for clip in clips]
        rows = [images[i::height] for i in range(height)]
        return draw_sheet(rows, title, [names[i::height] for i in range(height)], side=2.2)
    shown = frames_to_show(clips[0], MAX_FRAMES)
    return draw_sheet([list(clip[shown]) for clip in clips], title, [[] for _ in clips], names)


def activation_video(targets: Sequence[Target], excited: Sequence[Excitation]) -> Tensor:
    """Show the inputs of all targets next to each other, examples above them.

    Args:
        targets: Kernels that were excited.
        excited: Input of each target.

    Returns:
        uint8 (T, H, W, 3), magnified by :func:`vidpool.analysis.images.magnify_video`.
    """
    columns = []
    for target, made in zip(targets, excited, strict=True):
        column = [made.frames]
        if target.example is not None:
            frames = target.example.permute(0, 3, 1, 2).float()
            frames = F.interpolate(frames, made.frames.shape[1:3], mode="bilinear")
            column.insert(0, frames.round().byte().permute(0, 2, 3, 1))
        columns.append(torch.cat(column, dim=1))
    return magnify_video(torch.cat(columns, dim=2), excited[0].frames.shape[1])


def _mask(side: int) -> Tensor:
    """Return the factors of the gradient, (side, side): 1 at the centre, falling off around it."""
    position = torch.linspace(-1, 1, side)
    return torch.exp(-(position[:, None].square() + position.square()) / (2 * MASK_SIGMA**2))


def _smooth(gradient: Tensor, sigma: float) -> Tensor:
    """Blur each frame of (N, C, T, H, W)."""
    if not sigma:
        return gradient
    frames = gradient.transpose(1, 2).flatten(0, 1)
    size = 2 * max(1, round(2 * sigma)) + 1
    return gaussian_blur(frames, size, sigma).view_as(gradient.transpose(1, 2)).transpose(1, 2)
