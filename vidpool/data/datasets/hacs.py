"""HACS Clips and HACS Segments."""

from collections.abc import Iterator
from pathlib import Path

from vidpool.data.datasets.annotated import AnnotatedDataModule
from vidpool.data.datasets.annotations import Annotation, read_annotations


class HACSDataModule(AnnotatedDataModule):
    """HACS by its annotation file, in any of the layouts that it is found in.

    ``annotations`` names ``HACS_clips_v1.1.1.csv``, ``HACS_segments_v1.1.1.json``, or the SRTG
    authors' CSV. Negative clips, which show that the class is not to be seen, are left out. In the
    layout ``untrimmed`` a clip is read out of the whole video by its times.

    The arguments are those of :class:`vidpool.data.datasets.annotated.AnnotatedDataModule`.
    """

    def annotation_files(self) -> list[Path]:
        """Return the one annotation file."""
        return [self.annotations]

    def read_annotations(self) -> Iterator[Annotation]:
        """Yield the positive clips of all splits.

        Raises:
            DataError: The annotation file is missing or cannot be understood.
        """
        return read_annotations(self.annotations)
