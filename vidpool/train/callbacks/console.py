"""Console output of a training: progress bar, size of the network, silenced messages."""

import logging
import sys
import warnings

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelSummary, RichProgressBar
from pytorch_lightning.utilities import rank_zero_info

# beginnings of messages that advertise packages, or report what the user did not choose
_NOISE = (
    "💡 Tip:",
    "TPU available: False",
    "Trainer already configured with model summary callbacks",
    "Restoring states from the checkpoint path",  # the line after it names the checkpoint again
)


class RunProgressBar(RichProgressBar):
    """Lightning's rich progress bar, without the number of the run.

    The bar has room for the last letters of the number only.
    """

    def __init__(self) -> None:
        # rich would wrap the bar at 80 columns in a pipe or file
        super().__init__(console_kwargs={} if sys.stdout.isatty() else {"width": 120})

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the metrics at the end of the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class NetworkSummary(ModelSummary):
    """Prints the size of the network in one line.

    Lightning's table has a row for each metric, and FLOPs that are 0 because it does not run the
    network.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Print the line."""
        sizes = [(p.numel(), p.requires_grad) for p in pl_module.parameters()]
        total = sum(size for size, _ in sizes)
        trained = sum(size for size, trains in sizes if trains)
        share = "all trained" if trained == total else f"{_millions(trained)} of them trained"
        name = pl_module.hparams.get("backbone", type(pl_module).__name__)
        rank_zero_info(f"network: {name}, {_millions(total)} parameters, {share}")


def silence_noise() -> None:
    """Hide messages of Lightning that do not concern the user's training."""
    # Lightning and PyTorch disagree here; there is nothing that a user could change
    warnings.filterwarnings(
        "ignore", r"`isinstance\(treespec, LeafSpec\)`", module="pytorch_lightning.utilities"
    )
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    if _is_informative not in logger.filters:
        logger.addFilter(_is_informative)


def silence_checkpoint_warnings(training: bool) -> None:
    """Hide Lightning's warnings about checkpoints that are used as intended.

    Args:
        training: The run trains; otherwise it evaluates a checkpoint.
    """
    if not training:
        # callbacks that only training needs
        warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`, callbacks")
        warnings.filterwarnings("ignore", "You're using the WeightAveraging callback, but load")
    # each run has its own folder, and its own best checkpoint
    warnings.filterwarnings("ignore", "The dirpath has changed from")


def _millions(count: int) -> str:
    return f"{count / 1e6:.3g} million" if count >= 1e5 else f"{count:,}"


def _is_informative(record: logging.LogRecord) -> bool:
    return not record.getMessage().removeprefix("[rank: 0] ").startswith(_NOISE)
