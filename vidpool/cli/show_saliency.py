"""``vidpool show saliency``: the regions of a video that a network uses. Figure S4."""

import argparse
from dataclasses import replace
from typing import Any

import torch

from vidpool.analysis.layers import find_layers
from vidpool.analysis.saliency import (
    METHODS,
    THRESHOLD,
    Saliency,
    find_saliency,
    saliency_sheet,
    saliency_video,
)
from vidpool.cli.arguments import add_checkpoint, add_device, check_at_least, class_index, new_file
from vidpool.data.datasets.demo import write_video
from vidpool.data.parallel import counting_bar
from vidpool.data.views import clip_positions, normalize, read_views
from vidpool.errors import ConfigError
from vidpool.inference.loading import load_classifier
from vidpool.results import provenance, write_results
from vidpool.video import DECODERS, open_video


def add_parser(what: Any) -> None:
    """Add ``saliency`` to the subcommands of ``vidpool show``."""
    parser = what.add_parser(
        "saliency",
        help="draw which regions of a video a network uses (Figure S4)",
        description="Draw a heat map of the regions and times that speak for a class, by Class "
        "Feature Pyramids (Stergiou et al. 2019), as in Figure S4 of the SoftPool paper, and by "
        "Grad-CAM. The clip is in the middle of the video, and its crop is central. Writes "
        "FILE.png, FILE.mp4 and, with settings and chosen kernels, FILE.json.",
        epilog="example: vidpool show saliency runs/demo/fit_0/checkpoints/last.ckpt video.mp4 "
        "--output saliency.png --layer layer3 --depth 2",
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add_checkpoint(add)
    add("video", metavar="VIDEO", help="a video file; a picture if the network takes pictures")
    add_device(add)
    add("--output", default="saliency.png", metavar="FILE.png", help="(default: %(default)s)")
    add("--overwrite", action="store_true", help="replace these files")
    add("--class", dest="name", metavar="NAME", help="the class (default: the predicted one)")
    add("--method", choices=[*METHODS, "both"], default="both", help="(default: %(default)s)")
    add("--layer", metavar="NAME", help="the last layer shown (default: the network's last stage)")
    add(
        "--depth",
        type=int,
        default=3,
        metavar="N",
        help="show N layers: that one and those before it (default: %(default)s, as the authors "
        "of the method; the paper's figure has 1)",
    )
    add(
        "--threshold",
        type=float,
        default=THRESHOLD,
        metavar="THETA",
        help="θ of the pyramid: kernels that contribute at least this share of the largest "
        "contribution are chosen (default: %(default)s)",
    )
    add("--fps", type=int, default=8, metavar="N", help="of the video (default: %(default)s)")
    add("--decoder", default="auto", help=", ".join(DECODERS))


def run(args: argparse.Namespace) -> int:
    """Compute and draw saliency.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        ConfigError: An option cannot work; a file would be overwritten.
        VideoError: The video cannot be read.
    """
    out = new_file("--output", args.output, [".png"], args.overwrite, [".json", ".mp4"])
    check_at_least(args, 1, "depth", "fps")
    if not 0 <= args.threshold <= 1:
        raise ConfigError(f"--threshold must lie within [0, 1], got {args.threshold}")
    classifier, class_names, preprocessing = load_classifier(args.ckpt_path, args.device)
    classifier.requires_grad_(False)  # only maps need gradients
    label = None
    if args.name is not None:
        label = class_index(args.name, class_names, args.ckpt_path)
    central = replace(preprocessing, clips=1, crops=1)
    views = read_views(args.video, central, args.decoder)
    with open_video(args.video, args.decoder) as video:
        positions = clip_positions(len(video), central)[0].tolist()
    clip = normalize(views.to(classifier.device), central.mean, central.std)
    with torch.inference_mode():
        scores = classifier(clip).float().softmax(1)[0]
    predicted = int(scores.argmax())
    label = predicted if label is None else label

    layers = find_layers(classifier, clip, args.layer, args.depth)
    methods = list(METHODS) if args.method == "both" else [args.method]
    with counting_bar() as progress:
        task = progress.add_task("stepping back, kernel by kernel", total=None)
        found = find_saliency(
            classifier,
            clip,
            label,
            layers,
            methods,
            args.threshold,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    frames = views[0].permute(1, 2, 3, 0)
    summary = f"{class_names[label]}: {float(scores[label]):.1%}"
    if label != predicted:
        summary += f" (predicted: {class_names[predicted]}, {float(scores[predicted]):.1%})"
    print(summary)
    sheet = saliency_sheet(frames, positions, found, f"{args.video}\n{summary}")
    content = {
        "checkpoint": args.ckpt_path,
        "video": args.video,
        "frames": positions,
        "class": class_names[label],
        "probability": float(scores[label]),
        "predicted": class_names[predicted],
        "threshold": args.threshold,
        "saliency": [_as_json(each) for each in found],
    }
    written = write_results(out.with_suffix(".json"), provenance(args.command), content, sheet)
    if len(frames) > 1:
        write_video(out.with_suffix(".mp4"), saliency_video(frames, found), args.fps)
        written.append(out.with_suffix(".mp4"))
    for path in written:
        print(f"wrote {path}")
    return 0


def _as_json(saliency: Saliency) -> dict[str, Any]:
    kernels = {"kernels": saliency.kernels} if saliency.method == "pyramid" else {}
    return {
        "method": saliency.method,
        "layer": saliency.layer,
        "places": saliency.places,
        "channels": saliency.channels,
        **kernels,
        "mean over each frame": [round(float(heat.mean()), 4) for heat in saliency.heat],
    }
