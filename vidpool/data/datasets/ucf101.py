"""UCF-101 and datasets with the same layout on disk, such as the demo dataset."""

import os
from pathlib import Path
from typing import Any

from vidpool.data.catalogue.listing import Listing
from vidpool.data.catalogue.table import Status, TableBuilder
from vidpool.data.datasets.layouts import prepared_name
from vidpool.data.listed import ListedDataModule
from vidpool.data.registry import register_datamodule
from vidpool.errors import ConfigError, DataError
from vidpool.files import expand_path


@register_datamodule
class UCF101DataModule(ListedDataModule):
    """UCF-101 by its official lists: ``Class/v_Class_gXX_cYY.avi`` below ``root``.

    Letters' case is ignored where lists are matched with folders and files, because the published
    ones differ (``HandstandPushups``, ``v_HandStandPushups_g01_c01.avi``). UCF-101 has no
    validation set; as is the field's custom the test videos serve for validation (one view each),
    so compare models by their last checkpoint, not by the best one.

    Where a listed file is not there, the one that ``vidpool data prepare`` makes of it counts.

    Args:
        root: The folder with the class folders.
        lists: The folder with ``classInd.txt``, ``trainlist01.txt``, …; by default
            ``ucfTrainTestlist`` in ``root`` or beside it.
        split: Which of the three official splits.
        **options: See :class:`vidpool.data.listed.ListedDataModule`.

    Raises:
        ConfigError: ``split`` is not 1, 2 or 3, or an option cannot work.
        DataError: A folder or list is missing or cannot be understood.

    Examples:
        >>> from vidpool.data.datasets.example import example_dataset
        >>> root = str(example_dataset("ucf101"))
        >>> data = UCF101DataModule(root, frames=16, crop=32, short_side=36, num_workers=0)
        >>> data.class_names
        ['jump', 'run']
        >>> batch = next(iter(data.val_dataloader()))
        >>> batch["clip"].shape, batch["label"].tolist()
        (torch.Size([4, 3, 16, 32, 32]), [0, 0, 1, 1])
    """

    def __init__(
        self,
        root: str,
        lists: str | None = None,
        split: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(root=root, **options)
        if split not in (1, 2, 3):
            raise ConfigError(
                f"UCF-101 has the splits 1, 2 and 3, got split={split}", argument="split"
            )
        self.split = split
        self.lists = expand_path(lists) if lists is not None else self._find_lists()
        self._class_names = read_class_index(self.lists / "classInd.txt")

    @property
    def own_class_names(self) -> list[str]:
        """Names of the classes in the order of ``classInd.txt``."""
        return self._class_names

    def annotation_files(self) -> list[Path]:
        """Return the class index and the two lists of the split."""
        names = ("classInd.txt", *(f"{kind}list{self.split:02d}.txt" for kind in ("train", "test")))
        return [self.lists / name for name in names]

    def read_listing(self) -> Listing:
        """List the videos of the official train and test lists.

        Raises:
            DataError: A list is missing, or names an unknown class.
        """
        index, *lists = self.annotation_files()
        label_of = {name.casefold(): i for i, name in enumerate(self._class_names)}
        builder = TableBuilder(str(self.root))
        folders = _names_by_lower_case(self.root)
        files: dict[str, dict[str, str]] = {}
        splits = {}
        for kind, listing in zip(("train", "test"), lists, strict=True):
            first = len(builder)
            for number, line in _lines(listing):
                path, _, listed_label = line.rpartition(" ") if kind == "train" else (line, "", "")
                folder, _, name = path.rpartition("/")
                label = label_of.get(folder.casefold())
                if label is None or (listed_label and listed_label != str(label + 1)):
                    raise DataError(f"{listing}, line {number}: {line!r} does not fit {index}")
                found = folders.get(folder.casefold(), folder)
                if found not in files:
                    files[found] = _names_by_lower_case(self.root / found)
                on_disk = files[found].get(name.casefold()) or files[found].get(
                    prepared_name(name).casefold()
                )
                status = Status.MISSING if on_disk is None else Status.UNKNOWN
                builder.add_video(builder.add_file(found, on_disk or name, status), label)
            splits[kind] = (first, len(builder))
        return Listing(self._class_names, builder.build(), splits)

    def _find_lists(self) -> Path:
        places = [self.root / "ucfTrainTestlist", self.root.parent / "ucfTrainTestlist"]
        for place in places:
            if place.is_dir():
                return place
        raise DataError(
            f"{places[0]}: no such folder, nor is {places[1]}; lists must name the folder with "
            "classInd.txt, trainlist01.txt, testlist01.txt, …",
            argument="lists",
        )


def read_class_index(path: str | os.PathLike[str]) -> list[str]:
    """Read ``classInd.txt``, whose lines are ``1 ApplyEyeMakeup`` and so on.

    Raises:
        DataError: The file is missing, or its numbers are not 1, 2, 3, ….
    """
    names: list[str] = []
    for number, line in _lines(Path(path)):
        fields = line.split(maxsplit=1)
        wanted = str(len(names) + 1)
        if len(fields) != 2 or fields[0] != wanted:
            raise DataError(f"{path}, line {number}: expected '{wanted} ClassName', got {line!r}")
        if "/" in fields[1] or fields[1] in (".", ".."):
            raise DataError(f"{path}, line {number}: {fields[1]!r} cannot be the name of a folder")
        names.append(fields[1])
    if not names:
        raise DataError(f"{path}: the class index is empty")
    return names


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers (official lists have CRLF ends)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such list") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list ({error})") from None
    lines = enumerate(text.splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def _names_by_lower_case(folder: Path) -> dict[str, str]:
    """Map lower-case names to the names in a folder; empty if the folder does not exist."""
    return {path.name.casefold(): path.name for path in folder.iterdir()} if folder.is_dir() else {}
