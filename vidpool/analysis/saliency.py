"""Class-specific saliency over space and time, as in Figure S4.

There are two methods. Class Feature Pyramids, used in the figure: A. Stergiou, G. Kapidis,
G. Kalliatakis, C. Chrysoulas, R. Poppe and R. Veltkamp, "Class Feature Pyramids for Video
Explanation", ICCV Workshops 2019 (arXiv 1909.08611). Grad-CAM, the common alternative:
R. R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017, extended by time as a third axis.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Literal

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from vidpool.analysis.images import draw_sheet, frames_to_show, magnify_video
from vidpool.analysis.layers import feature_maps
from vidpool.train.classifier import VideoClassifier

Method = Literal["pyramid", "gradcam"]
METHODS: dict[Method, str] = {"pyramid": "Class Feature Pyramid", "gradcam": "Grad-CAM"}
THRESHOLD = 0.6
"""The authors' value for most networks; they use 0.55 for ResNet-50 and 0.65 for I3D."""
MAX_FRAMES = 8  # of a sheet
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue
OPACITY = 0.75  # of the colour where saliency is 1


@dataclass(frozen=True)
class Saliency:
    """Contribution of each pixel of a clip to the score of a class.

    Attributes:
        method: Method of the computation.
        layer: Layer of the feature maps.
        places: Size of these maps, (T', H', W') or (H', W').
        heat: float32 (T, H, W) in [0, 1]; all 0 if nothing contributes to the class.
        kernels: Channels that a Class Feature Pyramid chose.
        channels: Number of channels of the layer.
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
    """Compute the saliency of a clip for a class.

    Args:
        classifier: Network in evaluation mode.
        clip: (1, C, T, H, W), normalized.
        label: Class id.
        layers: Names of layers from back to front, see :func:`vidpool.analysis.layers.find_layers`.
        methods: Keys of :data:`METHODS`. Defaults to both.
        threshold: θ of the pyramid, in [0, 1].
        advance: Function called with the number of kernels done and their total, while the pyramid
            goes from layer to layer.

    Returns:
        Saliency by method and then by layer. Layers that do not lead to the first one, such as
        those of another pathway, are left out.
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
                    _resize_to_clip(heat.detach().float(), clip.shape[2:], method),
                    tuple(pyramid[i].tolist()) if pyramid else (),
                    maps[i].shape[1],
                )
            )
    return found


def grad_cam(logit: Tensor, maps: Tensor) -> Tensor:
    """Return the positive part of the sum of a layer's maps, weighted by their mean gradients.

    Args:
        logit: Logit of a class, computed from ``maps``.
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
    """Choose the kernels that produce the score of a class, from the last layer to earlier ones.

    The contribution of a kernel of the last layer is its mean activation times its weight for the
    class. Contributions are scaled to [0, 1], and kernels with at least θ are chosen. The same
    procedure is then applied to the layer before, with each chosen kernel in place of the class,
    and so on.

    Differences from the authors' code: weights are the gradients of the score. For one convolution,
    or a mean and a linear classifier, these are the kernel's own weights, averaged as the authors
    average them. Gradients also exist for whole stages with shortcuts and branches. Kernels with a
    contribution of zero or less are never chosen.

    Args:
        logit: Logit of the class.
        maps: Feature maps of the layers from back to front, (1, channels, …) each.
        threshold: θ.
        advance: Function called with the number of kernels done and their total, which grows with
            each layer.

    Returns:
        Numbers of the chosen channels of each layer, sorted: int64. The list ends early at a layer
        that does not lead to the one behind it.
    """
    first = _contributions(logit, maps[0])
    assert first is not None, "logits depend on the maps of the last layer"
    chosen = [_select_kernels(first, threshold)]
    done = 0
    for behind, before in pairwise(maps):
        kernels = chosen[-1].tolist()
        union = torch.zeros(before.shape[1], dtype=torch.bool)
        for i, kernel in enumerate(kernels, start=1):
            contributions = _contributions(behind[:, kernel].sum(), before)
            if contributions is None:
                return chosen
            union[_select_kernels(contributions, threshold)] = True
            advance(done + i, done + len(kernels))
        done += len(kernels)
        chosen.append(union.nonzero().flatten())
    return chosen


def _contributions(target: Tensor, maps: Tensor) -> Tensor | None:
    """Return the contribution of each channel to a target: (channels,); None if unrelated."""
    (gradient,) = torch.autograd.grad(target, maps, retain_graph=True, allow_unused=True)
    return None if gradient is None else (gradient * maps)[0].flatten(1).sum(1).detach().cpu()


def _select_kernels(contributions: Tensor, threshold: float) -> Tensor:
    """Return the indices of contributions of at least θ, scaled from least to largest."""
    least, largest = contributions.min(), contributions.max()
    # the same differences on both sides round alike, so that the largest passes θ = 1
    enough = contributions - least >= threshold * (largest - least)
    return (enough & (contributions > 0)).nonzero().flatten()


def _resize_to_clip(heat: Tensor, size: Sequence[int], method: Method) -> Tensor:
    """Resize (1, T', H', W') or (1, H', W') to a clip (T, H, W), and scale it to [0, 1]."""
    if heat.ndim == 3:  # of an image
        heat = heat[:, None]
    heat = F.interpolate(heat[:, None], tuple(size), mode="trilinear")[0, 0].cpu()
    # a zero of Grad-CAM already means no contribution to the class
    heat = heat - (heat.min() if method == "pyramid" else 0)
    return heat / heat.max().clamp_min(torch.finfo(heat.dtype).tiny)


def overlay(frames: Tensor, heat: Tensor) -> Tensor:
    """Colour grey versions of frames by heat, so that no colour is that of the video.

    Args:
        frames: uint8 (T, H, W, 3).
        heat: float32 (T, H, W) in [0, 1].

    Returns:
        uint8 (T, H, W, 3).
    """
    colours = torch.from_numpy(matplotlib.colormaps["turbo"](heat.numpy())[..., :3]).float() * 255
    share = OPACITY * heat[..., None] ** 0.75  # emphasizes weak saliency
    grey = frames.float() @ torch.tensor(LUMA)
    return grey[..., None].expand_as(colours).lerp(colours, share).round().byte()


def saliency_sheet(
    frames: Tensor, positions: Sequence[int], found: Sequence[Saliency], title: str
) -> Figure:
    """Draw frames of a clip, and below them the same frames with each saliency overlaid.

    For an image, each method is a row and each layer a column.

    Args:
        frames: uint8 (T, H, W, 3).
        positions: Numbers of the frames in the video.
        found: Saliency sorted by method; each is a row for clips.
        title: Title of the figure.
    """
    if len(frames) == 1:
        rows = [
            [frames[0], *(overlay(frames, each.heat)[0] for each in own)]
            for own in _by_method(found)
        ]
        names = [["picture", *map(_label, own)] for own in _by_method(found)]
        return draw_sheet(rows, title, names, side=2.5)
    shown = frames_to_show(frames, MAX_FRAMES)
    clips = [frames, *(overlay(frames, each.heat) for each in found)]
    return draw_sheet(
        [list(clip[shown]) for clip in clips],
        title,
        [[f"frame {positions[frame]}" for frame in shown], *([] for _ in found)],
        ["frames", *map(_label, found)],
    )


def saliency_video(frames: Tensor, found: Sequence[Saliency]) -> Tensor:
    """Show a clip and all overlaid saliency side by side, one row per method.

    Args:
        frames: uint8 (T, H, W, 3).
        found: Saliency sorted by method.

    Returns:
        uint8 (T, H', W', 3), magnified by :func:`vidpool.analysis.images.magnify_video`.
    """
    longest = max(map(len, _by_method(found)))
    rows = []
    for own in _by_method(found):
        row = [frames, *(overlay(frames, each.heat) for each in own)]
        row += [torch.zeros_like(frames)] * (longest - len(own))
        rows.append(torch.cat(row, dim=2))
    return magnify_video(torch.cat(rows, dim=1), min(frames.shape[1:3]))


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
