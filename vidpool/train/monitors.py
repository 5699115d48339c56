"""Metrics that callbacks monitor, compared with those that are logged."""

from collections.abc import Iterable
from difflib import get_close_matches

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn


def warn_of_unknown_monitors(trainer: pl.Trainer, logged: Iterable[str]) -> list[str]:
    """Warn of callbacks and schedulers that monitor a metric which is not logged.

    Lightning finds out at the first check, which is after a whole epoch. A warning and no error,
    because a callback may log metrics of its own.

    Args:
        trainer: The trainer, set up for training.
        logged: Names of the metrics that the module logs.

    Returns:
        The unknown metrics.
    """
    logged = list(logged)
    watching = [
        (type(callback).__name__, getattr(callback, "monitor", None))
        for callback in trainer.callbacks  # type: ignore[attr-defined]
    ]
    watching += [
        (type(config.scheduler).__name__, config.monitor)
        for config in trainer.lr_scheduler_configs
        if config.reduce_on_plateau
    ]
    unknown = [
        (name, metric)
        for name, metric in watching
        if isinstance(metric, str) and metric not in logged
    ]
    for name, metric in unknown:
        near = get_close_matches(metric.replace("_", "/"), logged, n=1, cutoff=0.7)
        hint = f", did you mean {near[0]!r}?" if near else ";"
        rank_zero_warn(
            f"{name} monitors {metric!r}, which vidpool does not log{hint} The training fails at "
            f"the first check unless another callback logs it. Logged are: {', '.join(logged)}"
        )
    return [metric for _, metric in unknown]
