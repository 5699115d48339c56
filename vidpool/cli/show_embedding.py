"""``vidpool show embedding``: t-SNE of the features of videos. Figures S5 to S7."""

import argparse
from typing import Any

from vidpool.analysis.examples import choose_videos
from vidpool.cli.arguments import (
    DATA_HELP,
    add_checkpoint,
    add_device,
    add_seed,
    check_at_least,
    class_index,
    new_file,
)
from vidpool.cli.configs import add_config, data_arguments, make_datamodule
from vidpool.data.parallel import counting_bar
from vidpool.errors import ConfigError
from vidpool.inference.loading import load_classifier
from vidpool.results import provenance, write_results

LIMIT = 2000  # videos, of which t-SNE takes some ten seconds


def add_parser(what: Any) -> None:
    """Add ``embedding`` to the subcommands of ``vidpool show``."""
    parser = what.add_parser(
        "embedding",
        help="draw t-SNE of the features of videos (Figures S5 to S7)",
        description="Reduce the features of a data set's videos to two dimensions, by PCA to 50 "
        "dimensions and t-SNE, as in Figures S5 to S7 of the SoftPool paper, and show the videos "
        "closest to the centres of k-means clusters. Features are the classifier's input for the "
        "central clip of a video. Writes FILE.png, FILE.csv (coordinates of all videos) and "
        f"FILE.json. Takes {DATA_HELP}.",
        epilog="example: vidpool show embedding runs/demo/fit_0/checkpoints/last.ckpt "
        "--config data/demo --output embedding.png --class Grow --class Shrink",
    )
    parser.set_defaults(run=run, takes_data=True)
    add = parser.add_argument
    add_checkpoint(add)
    add_device(add)
    add_config(add)
    add("--output", default="embedding.png", metavar="FILE.png", help="(default: %(default)s)")
    add("--overwrite", action="store_true", help="replace these files")
    add("--split", choices=["train", "val", "test"], default="val", help="(default: %(default)s)")
    add(
        "--class",
        dest="names",
        action="append",
        metavar="NAME",
        help="videos of this class; may be repeated (default: all classes)",
    )
    add(
        "--limit",
        type=int,
        default=LIMIT,
        metavar="N",
        help="maximum number of videos, drawn at random (default: %(default)s)",
    )
    add("--clusters", type=int, default=10, metavar="K", help="of k-means (default: %(default)s)")
    add("--perplexity", type=float, default=30, help="of t-SNE (default: %(default)s)")
    add_seed(add)


def run(args: argparse.Namespace) -> int:
    """Embed and draw.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        ConfigError: An option cannot work; scikit-learn is not installed.
        DataError: The data are not where the config says, or too few.
    """
    try:
        from vidpool.analysis.embedding import embed, embedding_figure, video_features, write_points
    except ImportError as error:
        raise ConfigError(
            f"this picture needs scikit-learn ({error}): pip install 'vidpool[analysis]'"
        ) from error
    out = new_file("--output", args.output, [".png"], args.overwrite, [".json", ".csv"])
    check_at_least(args, 1, "limit", "clusters")
    if not args.perplexity > 0:
        raise ConfigError(f"--perplexity must be above 0, got {args.perplexity}")
    datamodule = make_datamodule("show embedding", data_arguments(args))
    class_names = datamodule.class_names
    classes = None
    if args.names:
        classes = [class_index(name, class_names, "the data set") for name in args.names]
    videos = choose_videos(datamodule, args.split, classes, args.limit, args.seed)
    classifier, _, preprocessing = load_classifier(args.ckpt_path, args.device)
    with counting_bar() as progress:
        reading = progress.add_task("features of videos", total=len(videos))
        found = video_features(
            classifier,
            preprocessing,
            datamodule,
            videos,
            lambda done: progress.advance(reading, done),
        )
        progress.update(reading, visible=False)
        progress.add_task(f"t-SNE of {len(found.paths):,} videos", total=None)
        embedding = embed(found.features, found.label, args.clusters, args.perplexity, args.seed)
    if found.bad:
        print(f"{len(found.bad)} videos could not be read, such as {found.bad[0]}")
    summary = f"PCA kept {embedding.explained:.1%} of the variance"
    if embedding.silhouette is not None:
        summary += f"; silhouette of the classes {embedding.silhouette:.3f}"
    what = "videos" if preprocessing.frames > 1 else "pictures"
    print(f"{len(found.paths)} {what}: {summary}")
    content = {
        "checkpoint": args.ckpt_path,
        "split": args.split,
        "videos": len(found.paths),
        "bad videos": found.bad,
        "features": found.features.shape[1],
        "variance that PCA kept": embedding.explained,
        "silhouette": embedding.silhouette,
        "perplexity": embedding.perplexity,
        "clusters": [
            {
                "centre": [float(value) for value in centre],
                "videos": int((embedding.cluster == number).sum()),
                "closest": found.paths[closest],
                "class": class_names[int(found.label[closest])],
            }
            for number, (centre, closest) in enumerate(
                zip(embedding.centres, embedding.closest.tolist(), strict=True)
            )
        ],
    }
    title = f"{args.ckpt_path}\n{args.split}, {len(found.paths)} {what}; {summary}"
    figure = embedding_figure(embedding, found, class_names, title)
    about = provenance(args.command, args.seed)
    written = write_results(out.with_suffix(".json"), about, content, figure)
    written.append(write_points(out.with_suffix(".csv"), embedding, found, class_names))
    for path in written:
        print(f"wrote {path}")
    return 0
