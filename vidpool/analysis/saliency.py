"""Where a network looks: class-driven saliency over space and time, as in Figure S4.

Two methods. Class Feature Pyramids, the figure's: A. Stergiou, G. Kapidis, G. Kalliatakis,
C. Chrysoulas, R. Poppe and R. Veltkamp, "Class Feature Pyramids for Video Explanation", ICCV
Workshops 2019 (arXiv 1909.08611). Grad-CAM, the common alternative: R. R. Selvaraju et al.,
"Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017, here
with time as a third axis.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Literal

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from vidpool.analysis.layers import feature_maps
from vidpool.analysis.sheet import draw_sheet, spread
from vidpool.train.classifier import VideoClassifier

Method = Literal["pyramid", "gradcam"]
METHODS: dict[Method, str] = {"pyramid": "Class Feature Pyramid", "gradcam": "Grad-CAM"}
THRESHOLD = 0.6
"""The authors' own for most networks; they have 0.55 for ResNet-50 and 0.65 for I3D."""
SHOWN = 8  # frames of a sheet, at most
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue
STRENGTH = 0.75  # of the heat's colour where saliency is 1


@dataclass(frozen=True)
class Saliency:
    """How much each place of a clip speaks for a class.

    Attributes:
        method: How it was found.
        layer: Whose feature maps it was found in.
        places: The size of these maps, (T', H', W') or (H', W').
        heat: float32 (T, H, W) within [0, 1]; all 0 where nothing speaks for the class.
        kernels: The channels that a Class Feature Pyramid chose.
        channels: How many there are.
    """

    method: Method
    layer: str
    places: tuple[int, ...]
    heat: Tensor
    kernels: tuple[int, ...]
    channels: int


def find_saliency(
    classifier: VideoClassifier,
    clip: Tensor,
    label: int,
    layers: Sequence[str],
    methods: Sequence[Method] = tuple(METHODS),
    threshold: float = THRESHOLD,
    advance: Callable[[int, int], None] = lambda *_: None,
) -> list[Saliency]:
    """Find what in a clip speaks for a class.

    Args:
        classifier: The network, in evaluation mode.
        clip: (1, C, T, H, W), normalised.
        label: The class.
        layers: Names from back to front, see :func:`vidpool.analysis.layers.find_layers`.
        methods: Keys of :data:`METHODS`.
        threshold: θ of the pyramid, within [0, 1].
        advance: Is told how many kernels are done, of how many, while the pyramid steps back.

    Returns:
        Saliency by method and then by layer. Layers that do not lead to the first one, as those of
        another pathway, are left out.
    """
    logits, maps = feature_maps(classifier, clip, layers)
    logit = logits[0, label].float()
    found: list[Saliency] = []
    for method in methods:
        if method == "pyramid":
            pyramid = class_feature_pyramid(logit, maps, threshold, advance)
            heats = [each[:, chosen].sum(1) for each, chosen in zip(maps, pyramid, strict=False)]
        else:
            pyramid = []
            heats = [grad_cam(logit, each) for each in maps]
        for i, heat in enumerate(heats):
            found.append(
                Saliency(
                    method,
                    layers[i],
                    tuple(heat.shape[1:]),
                    _over_clip(heat.detach().float(), clip.shape[2:], method),
                    tuple(pyramid[i].tolist()) if pyramid else (),
                    maps[i].shape[1],
                )
            )
    return found


def grad_cam(logit: Tensor, maps: Tensor) -> Tensor:
    """The sum of a layer's maps, each weighed by its mean gradient, where it is positive.

    Args:
        logit: A class's, made of ``maps``.
        maps: (1, channels, T', H', W') or (1, channels, H', W').

    Returns:
        (1, T', H', W') or (1, H', W').
    """
    (gradient,) = torch.autograd.grad(logit, maps, retain_graph=True)
    weights = gradient.mean(tuple(range(2, maps.ndim)), keepdim=True)
    return (weights * maps).sum(1).relu()


def class_feature_pyramid(
    logit: Tensor,
    maps: Sequence[Tensor],
    threshold: float = THRESHOLD,
    advance: Callable[[int, int], None] = lambda *_: None,
) -> list[Tensor]:
    """Choose, from the last layer to earlier ones, the kernels that make a class's score.

    What a kernel of the last layer contributes is its mean activation times its weight for the
    class; contributions are scaled from the least, 0, to the largest, 1, and those of at least θ
    are chosen. Then the same is asked of each chosen kernel in place of the class, about the layer
    before, and so on.

    Differences from the authors' code: weights are the gradients of the score. For one convolution,
    or a mean and a linear classifier, these are the kernel's own weights, averaged as the authors
    average them, but they exist for whole stages, with shortcuts and branches, too. Kernels that
    contribute nothing, or work against it, are not chosen, whatever θ.

    Args:
        logit: The class's.
        maps: Of the layers from back to front, (1, channels, …) each.
        threshold: θ.
        advance: Is told how many kernels are done, of how many; the total grows as layers come.

    Returns:
        For each layer the numbers of the chosen channels, in order: int64. It ends early at a layer
        that does not lead to the one behind it.
    """
    first = _contributions(logit, maps[0])
    assert first is not None, "logits are made of the last layer's maps"
    chosen = [_informative(first, threshold)]
    done = 0
    for behind, before in pairwise(maps):
        kernels = chosen[-1].tolist()
        union = torch.zeros(before.shape[1], dtype=torch.bool)
        for i, kernel in enumerate(kernels, start=1):
            contributions = _contributions(behind[:, kernel].sum(), before)
            if contributions is None:
                return chosen
            union[_informative(contributions, threshold)] = True
            advance(done + i, done + len(kernels))
        done += len(kernels)
        chosen.append(union.nonzero().flatten())
    return chosen


def _contributions(target: Tensor, maps: Tensor) -> Tensor | None:
    """What each channel contributes to a number: (channels,); None where they do not lead to it."""
    (gradient,) = torch.autograd.grad(target, maps, retain_graph=True, allow_unused=True)
    return None if gradient is None else (gradient * maps)[0].flatten(1).sum(1).detach().cpu()


def _informative(contributions: Tensor, threshold: float) -> Tensor:
    """The numbers of contributions of at least θ, on a scale from the least to the largest."""
    least, largest = contributions.min(), contributions.max()
    # differences on both sides: their rounding is the same, so that the largest passes θ = 1
    enough = contributions - least >= threshold * (largest - least)
    return (enough & (contributions > 0)).nonzero().flatten()


def _over_clip(heat: Tensor, size: Sequence[int], method: Method) -> Tensor:
    """Spread (1, T', H', W') or (1, H', W') over a clip (T, H, W), and scale it to [0, 1]."""
    if heat.ndim == 3:  # of a picture
        heat = heat[:, None]
    heat = F.interpolate(heat[:, None], tuple(size), mode="trilinear")[0, 0].cpu()
    # Grad-CAM has a zero of its own: nothing that speaks for the class
    heat = heat - (heat.min() if method == "pyramid" else 0)
    return heat / heat.max().clamp_min(torch.finfo(heat.dtype).tiny)


def overlay(frames: Tensor, heat: Tensor) -> Tensor:
    """Colour frames by heat; where it is 0 they are grey, so that no colour is the video's own.

    Args:
        frames: uint8 (T, H, W, 3).
        heat: float32 (T, H, W) within [0, 1].

    Returns:
        uint8 (T, H, W, 3).
    """
    colours = torch.from_numpy(matplotlib.colormaps["turbo"](heat.numpy())[..., :3]).float() * 255
    share = STRENGTH * heat[..., None] ** 0.75  # a little more of what is weak
    grey = frames.float() @ torch.tensor(LUMA)
    return grey[..., None].expand_as(colours).lerp(colours, share).round().byte()


def saliency_sheet(
    frames: Tensor, positions: Sequence[int], found: Sequence[Saliency], title: str
) -> Figure:
    """Draw frames of a clip, and below them the same with each saliency over them.

    Of a picture, each method has a row, and each layer a column.

    Args:
        frames: uint8 (T, H, W, 3).
        positions: The frames' numbers in the video.
        found: Sorted by method; of clips, one row each.
        title: Goes on top.
    """
    if len(frames) == 1:
        rows = [
            [frames[0], *(overlay(frames, each.heat)[0] for each in own)]
            for own in _by_method(found)
        ]
        above = [["picture", *map(_label, own)] for own in _by_method(found)]
        return draw_sheet(rows, title, above, side=2.5)
    shown = spread(frames, SHOWN)
    clips = [frames, *(overlay(frames, each.heat) for each in found)]
    return draw_sheet(
        [list(clip[shown]) for clip in clips],
        title,
        [[f"frame {positions[frame]}" for frame in shown], *([] for _ in found)],
        ["frames", *map(_label, found)],
    )


def saliency_video(frames: Tensor, found: Sequence[Saliency], least: int = 192) -> Tensor:
    """Put a clip and all saliency over it side by side: a row for each method.

    Args:
        frames: uint8 (T, H, W, 3).
        found: What is shown.
        least: Pixels that the shorter side of a frame is magnified to, by a whole factor.

    Returns:
        uint8 (T, H', W', 3), H' and W' even, as most codecs want them.
    """
    longest = max(map(len, _by_method(found)))
    rows = []
    for own in _by_method(found):
        row = [frames, *(overlay(frames, each.heat) for each in own)]
        row += [torch.zeros_like(frames)] * (longest - len(own))
        rows.append(torch.cat(row, dim=2))
    video = torch.cat(rows, dim=1)
    factor = math.ceil(least / min(frames.shape[1:3]))
    video = video.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)
    return F.pad(video, (0, 0, 0, video.shape[2] % 2, 0, video.shape[1] % 2))


def _by_method(found: Sequence[Saliency]) -> list[list[Saliency]]:
    return [list(own) for _, own in groupby(found, key=lambda each: each.method)]


def _label(saliency: Saliency) -> str:
    lines = [
        METHODS[saliency.method],
        saliency.layer,
        "x".join(map(str, saliency.places)) + " places",
    ]
    if saliency.method == "pyramid":
        lines.append(f"{len(saliency.kernels)} of {saliency.channels} kernels")
    return "\n".join(lines)
