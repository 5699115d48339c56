"""Clips and pictures that excite what a network has learnt: activation maximisation, Figure S2.

As section S2 of the SoftPool paper has it: ten kernels of the last stage are chosen for a class,
and a noise input is changed by SGD so that their mean activation grows; a mask that falls off from
the centre weakens the gradient, after D. Wei et al., "Understanding Intra-Class Knowledge Inside
CNN" (arXiv 1507.02379).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from vidpool.analysis.examples import central_clips
from vidpool.analysis.layers import feature_maps
from vidpool.analysis.sheet import draw_sheet, spread
from vidpool.data.catalogue.table import VideoTable
from vidpool.data.datamodule import VideoDataModule
from vidpool.data.views import Preprocessing, normalize
from vidpool.errors import ConfigError, DataError
from vidpool.train.classifier import VideoClassifier

KERNELS = 10
NOISE = 0.3  # of the start around the mean colour, in standard deviations of the data's pixels
SPREAD = 0.5  # of the mask, a Gaussian, in halves of the side
SHOWN = 8  # frames of a clip, at most


@dataclass(frozen=True)
class Settings:
    """How an input is changed; the defaults are section S2's where it says them.

    Attributes:
        iterations: Steps of SGD.
        side: Of the square input, pixels.
        lr: The first learning rate.
        last_lr: The last; in between it falls linearly. Gradients are scaled to a root mean square
            of 1 for each clip, so that rates mean the same for every network: standard deviations
            of the data's pixels that a typical pixel moves in a step.
        weight_decay: Of SGD.
        blur: Standard deviation of the Gaussian that smooths the gradient over each frame, pixels;
            0 does not. It is not of S2, and makes shapes of noise.
        shift: The input is shifted at random by up to so many pixels at each step, so that no
            single pixel counts; 0 does not. It is not of S2.
        seed: Of the start and the shifts.

    Raises:
        ConfigError: A value cannot work.
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
        # put such that NaN is refused too
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
    """What is to be excited.

    Attributes:
        label: A class.
        kernels: Channels of the layer, the most active or heaviest first.
        example: uint8 (T, H, W, 3), the clip of the class that excites them most; None where there
            is none.
    """

    label: int
    kernels: tuple[int, ...]
    example: Tensor | None = None


@dataclass(frozen=True)
class Excited:
    """What came of it.

    Attributes:
        frames: uint8 (T, side, side, 3).
        before: Mean activation of the kernels at the start.
        after: At the end.
        probability: Of the class, at the end.
    """

    frames: Tensor
    before: float
    after: float
    probability: float


def noise(count: int, frames: int, side: int, seed: int) -> Tensor:
    """Starts, normalised: float32 (count, 3, frames, side, side)."""
    generator = torch.Generator().manual_seed(seed)
    return NOISE * torch.randn(count, 3, frames, side, side, generator=generator)


def targets_by_weight(
    classifier: VideoClassifier, layer: str, labels: Sequence[int], clip: Tensor
) -> list[Target]:
    """Choose the kernels that raise a class's score most, without any example.

    That is by the gradient of the score with regard to a kernel's mean activation; where the
    classifier follows the layer, by its weights.

    Args:
        classifier: The network, in evaluation mode.
        layer: Whose kernels.
        labels: The classes.
        clip: (1, 3, T, H, W), normalised, where gradients are taken.
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
    """Choose the kernels with the highest mean activation over examples of a class, as S2 does.

    Args:
        classifier: The network, in evaluation mode.
        layer: Whose kernels.
        label: The class.
        preprocessing: The checkpoint's.
        datamodule: Says how videos are read.
        videos: The examples.
        advance: Is told how many more are done.

    Raises:
        DataError: No example could be read.
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
) -> list[Excited]:
    """Change noise so that chosen kernels become active, for all targets at once.

    Pixels stay within what a video can have.

    Args:
        classifier: The network, in evaluation mode; its parameters need no gradients.
        preprocessing: The checkpoint's: frames of a clip, and what black and white are.
        layer: Whose kernels.
        targets: One input is made for each.
        settings: How.
        advance: Is told how many more iterations are done.
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
        Excited(*each) for each in zip(clips, before, active.tolist(), probability, strict=True)
    ]


def activation_sheet(
    targets: Sequence[Target], excited: Sequence[Excited], class_names: Sequence[str], title: str
) -> Figure:
    """Draw what was made, and above it the example where there is one.

    Clips are rows of frames; pictures stand side by side.

    Args:
        targets: What was to be excited.
        excited: What came of it, one for each.
        class_names: By class id.
        title: Goes on top.
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
    if len(clips[0]) == 1:  # a column for each class
        down = len(clips) // len(targets)
        pictures = [clip[0] for clip in clips]
        rows = [pictures[i::down] for i in range(down)]
        return draw_sheet(rows, title, [names[i::down] for i in range(down)], side=2.2)
    shown = spread(clips[0], SHOWN)
    return draw_sheet([list(clip[shown]) for clip in clips], title, [[] for _ in clips], names)


def _mask(side: int) -> Tensor:
    """How much of the gradient is kept, (side, side): 1 in the centre, less away from it."""
    place = torch.linspace(-1, 1, side)
    return torch.exp(-(place[:, None].square() + place.square()) / (2 * SPREAD**2))


def _smooth(gradient: Tensor, sigma: float) -> Tensor:
    """Blur each frame of (N, C, T, H, W)."""
    if not sigma:
        return gradient
    frames = gradient.transpose(1, 2).flatten(0, 1)
    size = 2 * max(1, round(2 * sigma)) + 1
    return gaussian_blur(frames, size, sigma).view_as(gradient.transpose(1, 2)).transpose(1, 2)
