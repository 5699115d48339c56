"""Folders to be made where the user says."""

from pathlib import Path

from vidpool.errors import DataError


def make_folder(folder: Path) -> None:
    """Make a folder, with those that it lies in, unless it is there.

    Raises:
        DataError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise DataError(f"{folder} is a file: choose a new or empty folder") from None
    except OSError as error:
        raise DataError(
            f"{folder}: the folder cannot be made ({error.strerror}): choose another"
        ) from None
