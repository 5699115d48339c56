"""Training and testing: the LightningModule, the trainer, metrics and reports."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidpool.train.classifier import VideoClassifier
    from vidpool.train.trainer import default_callbacks, make_trainer

__all__ = ["VideoClassifier", "default_callbacks", "make_trainer"]


def __getattr__(name: str) -> Any:
    """Import a name on first use: Lightning takes seconds to import."""
    if name == "VideoClassifier":
        from vidpool.train.classifier import VideoClassifier

        return VideoClassifier
    if name in __all__:
        from vidpool.train import trainer

        return getattr(trainer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
