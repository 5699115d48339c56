"""A picture of Tables 1 and 3: similarity by method and window, measured and published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vidpool.analysis.published import SIMILARITY_KERNELS
from vidpool.analysis.similarity import MEASURES, Mean, Setting
from vidpool.results import BLUE, GREEN, GREY, ORANGE

COLOURS = (BLUE, ORANGE, GREEN, GREY)
LARGEST = {"SSIM": 1.01, "PSNR": 70}
"""To where axes reach at most."""


def similarity_chart(
    summary: Mapping[Setting, tuple[Mean, Mean]],
    names: Mapping[str, str],
    published: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
) -> Figure:
    """Draw the means of SSIM on the left and of PSNR on the right, a row for each method.

    Bars through the dots are 95 % confidence intervals; hollow diamonds are the paper's.

    Args:
        summary: See :func:`vidpool.analysis.similarity.summarise`.
        names: What to call each method; one row each, in this order.
        published: SSIM and PSNR of each method, one pair for each of ``SIMILARITY_KERNELS``.
        title: Stands on top.
    """
    kernel_sizes = list(dict.fromkeys(setting.kernel_size for setting in summary))
    figure = Figure(figsize=(12, 1.8 + 0.42 * len(names)), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, 2, sharey=True)
    for which, (axes, measure) in enumerate(zip(panels, MEASURES, strict=True)):
        for number, kernel_size in enumerate(kernel_sizes):
            colour = COLOURS[number % len(COLOURS)]
            shift = 0.2 * (number - (len(kernel_sizes) - 1) / 2)
            rows = [
                (place + shift, summary[Setting(method, kernel_size)][which])
                for place, method in enumerate(names)
                if Setting(method, kernel_size) in summary
            ]
            drawn = [(place, mean) for place, mean in rows if mean.mean is not None]
            axes.errorbar(
                [mean.mean or 0.0 for _, mean in drawn],
                [place for place, _ in drawn],
                xerr=[mean.half_width or 0.0 for _, mean in drawn],
                fmt="o",
                markersize=4,
                capsize=2,
                color=colour,
                label=f"k = {kernel_size}, measured",
            )
            if kernel_size not in SIMILARITY_KERNELS:
                continue
            column = SIMILARITY_KERNELS.index(kernel_size)
            places = [i for i, method in enumerate(names) if method in published]
            axes.scatter(
                [published[method][column][which] for method in names if method in published],
                [place + shift for place in places],
                marker="D",
                s=22,
                facecolors="none",
                edgecolors=colour,
                label=f"k = {kernel_size}, the paper's",
            )
        for place in range(1, len(names)):
            axes.axhline(place - 0.5, color="black", alpha=0.15, linewidth=0.6)
        axes.set_xlabel(measure + (", dB" if measure == "PSNR" else ""))
        # intervals of few images reach beyond what there is, and would squeeze the rest
        left, right = axes.get_xlim()
        axes.set_xlim(max(left, 0), min(right, LARGEST[measure]))
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(names)), list(names.values()))
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    figure.suptitle(title.replace("$", r"\$"))
    handles, labels = panels[0].get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i])  # by k
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside lower center",
        ncols=max(1, len(kernel_sizes)),
    )
    return figure
