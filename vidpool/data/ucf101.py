"""UCF-101 and data sets that lie on disk as it does, such as the demo data set."""

import os
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.utilities import rank_zero_warn

from vidpool.data.datamodule import OnMissing, Split, VideoDataModule
from vidpool.data.dataset import LabelledVideo
from vidpool.errors import ConfigError, DataError


class UCF101DataModule(VideoDataModule):
    """UCF-101 by its official lists: ``Class/v_Class_gXX_cYY.avi`` below ``root``.

    Letters' case is ignored where lists are matched with folders and files, because the published
    ones differ (``HandstandPushups``, ``v_HandStandPushups_g01_c01.avi``). UCF-101 has no
    validation set; as is the field's custom the test videos serve for validation (one view each),
    so compare models by their last checkpoint, not by the best one.

    Args:
        root: The folder with the class folders.
        lists: The folder with ``classInd.txt``, ``trainlist01.txt``, …; by default
            ``ucfTrainTestlist`` in ``root`` or beside it.
        split: Which of the three official splits.
        on_missing: What to do about listed videos that are not on disk: ``error``, or ``skip``
            with a warning that counts them.
        **options: See :class:`vidpool.data.datamodule.VideoDataModule`.

    Raises:
        ConfigError: ``split`` is not 1, 2 or 3, or an option cannot work.
        DataError: A folder or list is missing or cannot be understood.
    """

    def __init__(
        self,
        root: str,
        lists: str | None = None,
        split: int = 1,
        on_missing: OnMissing = "error",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if split not in (1, 2, 3):
            raise ConfigError(f"UCF-101 has the splits 1, 2 and 3, got split={split}")
        self.root = Path(root)
        self.split = split
        self.on_missing: OnMissing = on_missing
        if not self.root.is_dir():
            raise DataError(
                f"{self.root}: no such folder; data.init_args.root must name the folder that holds "
                "the class folders"
            )
        self.lists = Path(lists) if lists is not None else self._find_lists()
        self._class_names = read_class_index(self.lists / "classInd.txt")

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in the order of ``classInd.txt``."""
        return self._class_names

    def videos(self, split: Split) -> list[LabelledVideo]:
        """The videos of the official train or test list.

        Raises:
            DataError: A list is missing or names an unknown class; or a video is missing and
                ``on_missing`` is ``error``.
        """
        kind: Literal["train", "test"] = "train" if split == "train" else "test"
        listing = self.lists / f"{kind}list{self.split:02d}.txt"
        label_of = {name.casefold(): i for i, name in enumerate(self.class_names)}
        folders = _names_in(self.root)
        files: dict[str, dict[str, str]] = {}
        videos, missing = [], []
        for number, line in _lines(listing):
            path, _, listed_label = line.rpartition(" ") if kind == "train" else (line, "", "")
            folder, _, name = path.rpartition("/")
            label = label_of.get(folder.casefold())
            if label is None or (listed_label and listed_label != str(label + 1)):
                raise DataError(
                    f"{listing}, line {number}: {line!r} does not fit {self.lists / 'classInd.txt'}"
                )
            found = folders.get(folder.casefold(), folder)
            if found not in files:
                files[found] = _names_in(self.root / found)
            on_disk = files[found].get(name.casefold())
            if on_disk is None:
                missing.append(self.root / found / name)
            else:
                videos.append(LabelledVideo(str(self.root / found / on_disk), label))
        if missing:
            total = len(missing) + len(videos)
            if self.on_missing == "error":
                raise DataError(
                    f"{missing[0]}: no such video, though {listing} names it ({len(missing)} of "
                    f"{total} are missing); set data.init_args.on_missing to skip to do without"
                )
            rank_zero_warn(
                f"{len(missing)} of the {total} videos in {listing} are not on disk and are "
                f"skipped; the first is {missing[0]}"
            )
        return videos

    def _find_lists(self) -> Path:
        places = [self.root / "ucfTrainTestlist", self.root.parent / "ucfTrainTestlist"]
        for place in places:
            if place.is_dir():
                return place
        raise DataError(
            f"{places[0]}: no such folder, nor is {places[1]}; data.init_args.lists must name the "
            "folder with classInd.txt, trainlist01.txt, testlist01.txt, …"
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
        names.append(fields[1])
    if not names:
        raise DataError(f"{path}: the class index is empty")
    return names


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not blank, by number, without line ends (the official ones are CRLF)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such list") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list ({error})") from None
    lines = enumerate(text.splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def _names_in(folder: Path) -> dict[str, str]:
    """What a folder holds, by name in lower case; nothing if there is no such folder."""
    return {path.name.casefold(): path.name for path in folder.iterdir()} if folder.is_dir() else {}
