"""Training and testing: the LightningModule, the trainer, metrics and reports."""

from typing import TYPE_CHECKING

from vidpool.lazy import import_on_use

if TYPE_CHECKING:
    from vidpool.train.classifier import VideoClassifier
    from vidpool.train.trainer import default_callbacks, make_trainer

__all__ = ["VideoClassifier", "default_callbacks", "make_trainer"]

__getattr__, __dir__ = import_on_use(
    __name__,
    {
        "vidpool.train.classifier": ("VideoClassifier",),
        "vidpool.train.trainer": ("default_callbacks", "make_trainer"),
    },
)
