"""Small data sets that lie on disk exactly as HACS, Kinetics-700 and videos of one's own do."""

import csv
import shutil
import sqlite3
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np

HACS_HEADER = ("classname", "youtube_id", "subset", "start", "end", "label")
KINETICS_HEADER = ("label", "youtube_id", "time_start", "time_end", "split")
HACS_CLASSES = ("Playing drums", "Archery", "BMX")
KINETICS_CLASSES = ("tasting beer", "massaging person's head", "petting animal (not cat)")


def write_csv(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows] if header else rows)
    return path


def video_id(number):
    """An id of YouTube's kind, with `_` and `-`, and one that begins as untrimmed files do."""
    return f"{('v_', '-x', 'a-')[number % 3]}{number:04d}_Q-{number % 7}_"[:11]


def write_clip(path, count, shade=0, size=(48, 36), codec="libx264", rate=25):
    """A video of `count` frames whose brightness is `shade` and grows by the frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in range(count):
            picture = np.full((size[1], size[0], 3), (shade + number) % 256, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture)
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


class Videos:
    """Writes copies of a few short videos: encoding each anew would take its time."""

    def __init__(self, folder):
        self.folder = folder
        self.made = {}

    def write(self, path, count=20, shade=0):
        key = (count, shade, path.suffix)
        if key not in self.made:
            name = f"{count}_{shade}{path.suffix}"
            self.made[key] = write_clip(self.folder / name, count, shade)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.made[key], path)
        return path


def hacs_rows(each=2):
    """Rows of a HACS annotation file: of each class and subset `each` videos of two clips."""
    rows, number = [], 0
    for label in HACS_CLASSES:
        for subset in ("training", "validation", "testing"):
            for _ in range(each):
                video = video_id(number)
                rows.append((label, video, subset, "0.5", "1.5", "1"))
                rows.append((label, video, subset, "2.0", "3.0", "1"))
                rows.append((label, video, subset, "1.0", "2.0", "-1"))
                number += 1
    return rows


HACS_FORMS = {
    "untrimmed": "{label}/v_{video}.mp4",
    "trimmed": "{label}/{video}_{start}_{end}.mp4",
    "trimmed_seconds": "{label}/{video}_{first:06d}_{last:06d}.mp4",
    "frames_db": "jpg/{label}/{video}_{first:06d}_{last:06d}",
}


def make_hacs(root, videos, layout="untrimmed", underscores=True, each=2):
    """HACS in one of its layouts; returns the annotation file."""
    rows = hacs_rows(each)
    for label, video, _, start, end, sign in rows:
        folder = label.replace(" ", "_") if underscores else label
        path = root / HACS_FORMS[layout].format(
            label=folder,
            video=video,
            start=start,
            end=end,
            first=int(float(start)),
            last=int(float(end)),
        )
        shade = 40 * HACS_CLASSES.index(label)
        if sign == "1" and not path.exists():
            if layout == "frames_db":
                write_frames_db(path, 20, shade)
            else:
                videos.write(path, 80 if layout == "untrimmed" else 25, shade)
    return write_csv(root.parent / "HACS_clips_v1.1.1.csv", HACS_HEADER, rows)


def make_kinetics(root, videos, flat=False, underscores=False, each=2):
    """Kinetics-700 by class folders or flat; returns the folder of the annotation files."""
    annotations = root.parent / "annotations"
    number = 100
    for split, column in (("train", "train"), ("val", "validate"), ("test", "test")):
        rows = []
        for label in KINETICS_CLASSES:
            for _ in range(each):
                video, start = video_id(number), 3 * number
                number += 1
                rows.append((label, video, start, start + 10, column))
                folder = label.replace(" ", "_") if underscores else label
                name = f"{video}_{start:06d}_{start + 10:06d}.mp4"
                path = (
                    root / split / name if flat or split == "test" else root / split / folder / name
                )
                videos.write(path, 25, 40 * KINETICS_CLASSES.index(label))
        header = KINETICS_HEADER
        if split == "test":
            header, rows = header[1:], [row[1:] for row in rows]
        write_csv(annotations / f"{split}.csv", header, rows)
    (root / "train" / "._not_a_video.mp4").write_bytes(b"\0\5\x16\7")
    return annotations


def make_video_folder(root, videos, splits=("train", "val", "test"), each=2):
    """Class folders below a folder for each split."""
    for split in splits:
        for shade, label in enumerate(("jump", "run fast")):
            for number in range(each):
                videos.write(root / split / label / f"{split} {number}.mp4", 25, 60 * shade)
    return root


def write_frames_db(folder, count, shade=0):
    """A folder of the SRTG authors' kind."""
    folder.mkdir(parents=True)
    with sqlite3.connect(folder / "frames.db") as database:
        database.execute("CREATE TABLE Images (ObjId TEXT PRIMARY KEY, frames BLOB)")
        for number in range(1, count + 1):
            jpeg = _jpeg(np.full((36, 48, 3), (shade + number) % 256, np.uint8))
            name = f"{folder.name}/frame_{number:05d}"
            database.execute("INSERT INTO Images VALUES (?, ?)", (name, jpeg))
    database.close()
    (folder / "n_frames").write_text(f"{count}\n")


def _jpeg(picture):
    buffer = BytesIO()
    with av.open(buffer, "w", format="image2pipe") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuvj420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    return buffer.getvalue()


def below(root, videos):
    """Paths relative to the root, and labels, in order."""
    return [(Path(video.path).relative_to(root).as_posix(), video.label) for video in videos]
