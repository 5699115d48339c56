"""Kinetics-700, of 2019 and of 2020."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from vidpool.data.catalogue.listing import SPLITS
from vidpool.data.datasets.annotated import AnnotatedDataModule
from vidpool.data.datasets.annotations import SPLIT_NAMES, Annotation, read_annotations
from vidpool.errors import DataError


class Kinetics700DataModule(AnnotatedDataModule):
    """Kinetics-700 by its annotation files, in any of the layouts that it is found in.

    The releases of 2019 and 2020 differ in their annotation files alone: clips that the files do
    not list are not read, though they may lie in the same folders. The test videos have no labels;
    testing is on the validation videos then.

    Args:
        root: The folder below which the videos lie, in whatever folders.
        annotations: The folder with ``train.csv``, ``val.csv`` (or ``validate.csv``) and perhaps
            ``test.csv``, whose names may have anything before that word
            (``kinetics700_2020_train.csv``); or one CSV file whose column ``split`` tells.
        **options: See :class:`vidpool.data.datasets.annotated.AnnotatedDataModule`.
    """

    def __init__(self, root: str, annotations: str, **options: Any) -> None:
        super().__init__(root=root, annotations=annotations, **options)

    def annotation_files(self) -> list[Path]:
        """Return the file of each split that has one, or the one file of all splits."""
        return list(dict.fromkeys(self._files.values()))

    def read_annotations(self) -> Iterator[Annotation]:
        """Yield the clips of all splits, training clips first.

        Raises:
            DataError: A file cannot be understood, or a label is not among those for training
                (unless a network is tested, whose classes are known).
        """
        if None in self._files:
            yield from read_annotations(self._files[None])
            return
        if "train" not in self._files and self.trained_classes is None:
            raise DataError(
                f"{self.annotations}: holds no train.csv, whose labels say the class ids (a CSV "
                "file of another name may be given itself, if its column split tells the splits)"
            )
        labels: set[str | None] = set()
        for split, path in self._files.items():
            for clip in read_annotations(path, split):
                if split == "train":
                    labels.add(clip.label)
                elif (
                    self.trained_classes is None
                    and clip.label is not None
                    and clip.label not in labels
                ):
                    raise DataError(
                        f"{path}: the label {clip.label!r} is not among those of "
                        f"{self._files['train']}"
                    )
                yield clip

    @cached_property
    def _files(self) -> dict[str | None, Path]:
        """Return the annotation file by split; the split is ``None`` if one file has all."""
        folder = self.annotations
        if not folder.is_dir():
            return {None: folder}
        found: dict[str | None, Path] = {}
        for split in SPLITS:
            endings = tuple(name for name, meant in SPLIT_NAMES.items() if meant == split)
            paths = sorted(
                path
                for path in folder.iterdir()
                if path.suffix.lower() == ".csv"
                and path.stem.lower().endswith(endings)
                and not path.name.startswith(".")
            )
            if len(paths) > 1:
                raise DataError(
                    f"{folder}: both {paths[0].name} and {paths[1].name} could be the list of the "
                    f"{split} split; data.init_args.annotations must name a folder with one of them"
                )
            if paths:
                found[split] = paths[0]
        if not found:
            raise DataError(
                f"{folder}: holds no train.csv, val.csv or test.csv (a CSV file of another name "
                "may be given itself, if its column split tells the splits)"
            )
        return found
