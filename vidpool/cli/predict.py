"""``vidpool predict``: the classes of videos, as a table and as a file."""

import argparse
import csv
import tempfile
from pathlib import Path

from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from vidpool.cli.output import new_file, wide_console
from vidpool.errors import ConfigError
from vidpool.files import atomic_write, open_text, printable, write_json
from vidpool.inference.predictor import Prediction, find_videos, predict
from vidpool.video import DECODERS


def main(verb: str, arguments: list[str]) -> int:
    """Run ``vidpool predict``; the exit status is 1 if a file could not be read."""
    parser = argparse.ArgumentParser(
        prog=f"vidpool {verb}",
        description="The classes of video files and pictures, by a checkpoint of `vidpool fit` or "
        "a file of `vidpool export`. Of a folder its videos, or its pictures if it has none.",
        epilog="example: vidpool predict --ckpt_path best.ckpt video.mp4 folder/ --output out.csv",
    )
    parser.add_argument("videos", nargs="+", metavar="VIDEO_OR_FOLDER")
    parser.add_argument("--ckpt_path", required=True, metavar="CKPT")
    parser.add_argument("--output", metavar="FILE", help="write the predictions to .json or .csv")
    parser.add_argument("--overwrite", action="store_true", help="replace the output file")
    parser.add_argument("--top", type=int, default=5, help="classes a video (default: %(default)s)")
    parser.add_argument("--clips", type=int, help="clips a video (default: as in testing)")
    parser.add_argument("--crops", type=int, help="crops a clip, 1 or 3 (default: as in testing)")
    parser.add_argument("--decoder", default="auto", help=", ".join(DECODERS))
    parser.add_argument("--device", default="auto", help="a PyTorch device (default: %(default)s)")
    args = parser.parse_args(arguments)

    output = None
    if args.output:
        output = new_file("--output", args.output, (".json", ".csv"), args.overwrite)
    videos = find_videos(args.videos)
    predictions: list[Prediction] = []
    try:
        with Progress(transient=True) as progress:
            task = progress.add_task("predicting", total=len(videos))
            for prediction in predict(
                args.ckpt_path, videos, args.top, args.clips, args.crops, args.decoder, args.device
            ):
                predictions.append(prediction)
                progress.advance(task)
    finally:  # those made before an error or Ctrl-C are not lost
        if predictions:
            _show(predictions, len(videos), output)
    return 1 if any(prediction.error for prediction in predictions) else 0


def _show(predictions: list[Prediction], count: int, output: Path | None) -> None:
    """Write predictions to the output file, if there is one, and print them.

    Raises:
        ConfigError: The output file cannot be written; the message tells where they are instead.
    """
    try:
        if output:
            _save(output, predictions)
    finally:
        wide_console().print(_table(predictions))
    if output:
        of = f" ({len(predictions)} of {count} files)" if len(predictions) < count else ""
        print(f"wrote {output}{of}")


def _save(output: Path, predictions: list[Prediction]) -> None:
    try:
        with atomic_write(output) as file:
            write_predictions(file, predictions)
    except OSError as error:
        problem = f"{output}: cannot be written ({error.strerror or error})"
        try:
            kept = Path(tempfile.mkdtemp(prefix="vidpool_predict_")) / output.name
            write_predictions(kept, predictions)
        except OSError:
            raise ConfigError(f"{problem}; the predictions are printed") from error
        raise ConfigError(f"{problem}; the predictions are in {kept}") from error


def write_predictions(path: Path, predictions: list[Prediction]) -> None:
    """Write predictions as JSON (a list of files) or CSV (a row for each class)."""
    if path.suffix == ".json":
        content = [
            {"file": str(p.path), "error": p.error}
            if p.error
            else {
                "file": str(p.path),
                "predictions": [{"class": name, "probability": q} for name, q in p.classes],
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
            for rank, (name, probability) in enumerate(p.classes, start=1):
                rows.writerow([p.path, rank, name, f"{probability:.6f}", ""])


def _table(predictions: list[Prediction]) -> Table:
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
        for i, (label, probability) in enumerate(prediction.classes):
            table.add_row("" if i else name, Text(printable(label)), f"{probability:.1%}")
    return table
