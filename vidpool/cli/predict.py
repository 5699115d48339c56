"""``vidpool predict``: classify videos, as a table and as a file."""

import csv
import tempfile
from pathlib import Path

from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from vidpool.cli.arguments import Parser, add_checkpoint, add_device, new_file
from vidpool.errors import ConfigError
from vidpool.files import atomic_write, open_text, printable, write_json
from vidpool.inference.predictor import Prediction, Predictor, find_videos
from vidpool.results import wide_console
from vidpool.video import DECODERS


def main(verb: str, arguments: list[str]) -> int:
    """Run ``vidpool predict``; the exit status is 1 if a file could not be read."""
    parser = Parser(
        prog=f"vidpool {verb}",
        description="Classify video files and pictures with a checkpoint of `vidpool fit` or a "
        "file of `vidpool export`. A folder stands for its videos, or its pictures if it has none.",
        epilog="example: vidpool predict best.ckpt video.mp4 folder/ --output out.csv",
    )
    add = parser.add_argument
    add_checkpoint(add, "a checkpoint of `vidpool fit` or a file of `vidpool export`")
    add("videos", nargs="+", metavar="VIDEO", help="a video, a picture, or a folder of them")
    add("--output", metavar="FILE", help="write the predictions to .json or .csv")
    add("--overwrite", action="store_true", help="replace the output file")
    add("--top", type=int, default=5, help="classes per video (default: %(default)s)")
    add("--clips", type=int, help="clips per video (default: as in testing)")
    add("--crops", type=int, help="crops per clip, 1 or 3 (default: as in testing)")
    add("--decoder", default="auto", help=", ".join(DECODERS))
    add_device(add)
    args = parser.parse_args(arguments)

    if args.top < 1:
        raise ConfigError(f"--top must be at least 1, got {args.top}")
    output = None
    if args.output:
        output = new_file("--output", args.output, (".json", ".csv"), args.overwrite)
    videos = find_videos(args.videos)
    predictor = Predictor(
        args.ckpt_path, args.device, clips=args.clips, crops=args.crops, decoder=args.decoder
    )
    predictions: list[Prediction] = []
    try:
        with Progress(transient=True) as progress:
            task = progress.add_task("predicting", total=len(videos))
            for video in videos:
                predictions.append(predictor(video))
                progress.advance(task)
    finally:  # those made before an error or Ctrl-C are not lost
        if predictions:
            _show(predictions, args.top, len(videos), output)
    return 1 if any(prediction.error for prediction in predictions) else 0


def _show(predictions: list[Prediction], top: int, count: int, output: Path | None) -> None:
    """Write predictions to the output file, if there is one, and print them.

    Raises:
        ConfigError: The output file cannot be written; the message says where they are instead.
    """
    try:
        if output:
            _save(output, predictions, top)
    finally:
        wide_console().print(_table(predictions, top))
    if output:
        of = f" ({len(predictions)} of {count} files)" if len(predictions) < count else ""
        print(f"wrote {output}{of}")


def _save(output: Path, predictions: list[Prediction], top: int) -> None:
    try:
        with atomic_write(output) as file:
            write_predictions(file, predictions, top)
    except OSError as error:
        problem = f"{output}: cannot be written ({error.strerror or error})"
        try:
            kept = Path(tempfile.mkdtemp(prefix="vidpool_predict_")) / output.name
            write_predictions(kept, predictions, top)
        except OSError:
            raise ConfigError(f"{problem}; the predictions are printed") from error
        raise ConfigError(f"{problem}; the predictions are in {kept}") from error


def write_predictions(path: Path, predictions: list[Prediction], top: int = 5) -> None:
    """Write predictions as JSON (a list of files) or CSV (one row per class).

    Args:
        path: The file; its suffix is `.json` or `.csv`.
        predictions: Predictions of files.
        top: Number of classes per file.
    """
    if path.suffix == ".json":
        content = [
            {"file": str(p.path), "error": p.error}
            if p.error
            else {
                "file": str(p.path),
                "predictions": [{"class": name, "probability": q} for name, q in p.top(top)],
            }
            for p in predictions
        ]
        write_json(path, content)
        return
    with open_text(path, "w") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "rank", "class", "probability", "error"])
        for p in predictions:
            if p.error:
                rows.writerow([p.path, "", "", "", p.error])
            for rank, (name, probability) in enumerate(p.top(top), start=1):
                rows.writerow([p.path, rank, name, f"{probability:.6f}", ""])


def _table(predictions: list[Prediction], top: int) -> Table:
    table = Table()
    table.add_column("file", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right")
    for prediction in predictions:
        table.add_section()
        name = Text(printable(str(prediction.path)))
        if prediction.error:
            reason = prediction.error.removeprefix(f"{prediction.path}: ")
            table.add_row(name, Text(printable(reason), "red"), "")
        for i, (label, probability) in enumerate(prediction.top(top)):
            table.add_row("" if i else name, Text(printable(label)), f"{probability:.1%}")
    return table
