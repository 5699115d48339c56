"""Reading checkpoints of many origins and loading their weights into a network.

:mod:`~vidpool.models.weights.formats` reads the files, :mod:`~vidpool.models.weights.key_maps`
translates their keys, :mod:`~vidpool.models.weights.loading` decides which weights to load.
"""

from vidpool.models.heads import heads_of
from vidpool.models.weights.formats import (
    DESCRIPTION,
    Weights,
    load_checkpoint,
    read_weights,
)
from vidpool.models.weights.loading import (
    MismatchError,
    Report,
    ShapeMismatch,
    count_classes,
    load_weights,
)

__all__ = [
    "DESCRIPTION",
    "MismatchError",
    "Report",
    "ShapeMismatch",
    "Weights",
    "count_classes",
    "heads_of",
    "load_checkpoint",
    "load_weights",
    "read_weights",
]
