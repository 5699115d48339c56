"""The LightningModule that trains and tests a video network."""

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from vidpool.data.datamodule import VideoDataModule
from vidpool.data.dataset import Batch
from vidpool.data.schedule import ScheduledSampler, mix_seeds
from vidpool.data.views import ClipShape
from vidpool.errors import CheckpointError, ConfigError, DataError
from vidpool.models import model_info
from vidpool.models.cost import values_per_channel
from vidpool.results import provenance
from vidpool.train.bfloat16 import check_bfloat16_convolutions
from vidpool.train.checkpoint import init_from as load_init
from vidpool.train.compiling import compile_network, mark
from vidpool.train.finetuning import freeze_modules, keep_frozen, lr_scales, summary
from vidpool.train.metrics import TOP_K, VideoScores, accuracies, confusion_matrix
from vidpool.train.monitors import warn_of_unknown_monitors
from vidpool.train.network import build, exchange_pooling
from vidpool.train.optim import (
    LRSchedule,
    OptimizerName,
    lr_factor,
    make_optimizer,
    same_groups,
    set_lr,
)
from vidpool.train.report import (
    list_bad_videos,
    write_predictions,
    write_run,
    write_test_report,
)

ARCHITECTURE = (
    "backbone",
    "num_classes",
    "width",
    "backbone_options",
    "pooling",
    "pooling_options",
)
FINETUNING = ("freeze", "backbone_lr", "layer_decay")
STAGES = ("train", "val", "test")


class VideoClassifier(pl.LightningModule):
    """A network from the registry, its pooling swapped, with loss, optimiser and metrics.

    Networks for pictures are given clips of one frame; see
    :class:`vidpool.data.datasets.image_folder.ImageFolderDataModule`.

    Args:
        backbone: Name of a network, see :func:`vidpool.models.list_models`.
        num_classes: Classes; on the command line it follows from the data.
        width: Channels of the first stage; null is the network's own.
        backbone_options: Further options of the network, e.g. ``{gate: true}`` for SRTG; an
            unknown one is an error that lists those it has.
        pooling: What every pooling layer becomes, see :func:`vidpool.nn.swap_pooling`; null keeps
            the network's own.
        pooling_options: Passed to ``swap_pooling`` and the new layers, e.g. ``{gradient: paper}``
            or ``{geometry: authors}``.
        dropout: Probability of dropping a feature before the classifier; null is the network's own.
        gradient_checkpointing: Recompute the activations inside the network's blocks in the
            backward pass instead of storing them, which saves memory.
        channels_last: Keep weights and clips in the channels-last memory format, which makes
            convolutions faster on CPUs and in half precision on GPUs; results are the same.
        compile: Compile the network with ``torch.compile``, once for each clip size.
        init_from: A checkpoint whose weights training starts from (fine-tuning), of any kind that
            ``vidpool import`` reads; where it has other classes, the classifier starts fresh. To
            resume a run use ``--ckpt_path`` instead.
        backbone_lr: The learning rate of everything but the classifier, as a factor of ``lr``.
        layer_decay: A further factor of the learning rate for each stage of the network, from the
            classifier to the input (layer-wise decay).
        freeze: Modules that are not trained, by names such as ``[stem, layer1]`` or ``['layer*']``;
            ``[backbone]`` is all but the classifier. They stay in evaluation mode: batch norm keeps
            its statistics, and nothing is dropped.
        optimizer: ``sgd`` (with Nesterov momentum) or ``adamw``.
        lr: Base learning rate.
        momentum: Of SGD.
        weight_decay: Of SGD on every parameter; of AdamW on weights alone.
        lr_schedule: ``step``, ``cosine`` (down to 0) or ``constant``.
        milestones: For ``step``: the epochs at which the rate is multiplied with ``gamma``.
        gamma: For ``step``: the factor.
        warmup_epochs: Linear warm-up at the start; may be a fraction.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).

    Raises:
        ConfigError: An unknown network, or a value that cannot work.
    """

    model: nn.Module

    def __init__(
        self,
        backbone: str = "r3d_50",
        num_classes: int = 400,
        width: int | None = None,
        backbone_options: dict[str, Any] | None = None,
        pooling: str | None = "soft",
        pooling_options: dict[str, Any] | None = None,
        dropout: float | None = None,
        gradient_checkpointing: bool = False,
        channels_last: bool = False,
        compile: bool = False,
        init_from: str | None = None,
        backbone_lr: float = 1.0,
        layer_decay: float = 1.0,
        freeze: list[str] | None = None,
        optimizer: OptimizerName = "sgd",
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        lr_schedule: LRSchedule = "cosine",
        milestones: list[float] | None = None,
        gamma: float = 0.1,
        warmup_epochs: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if lr <= 0:
            raise ConfigError(f"model.lr must be positive, got {lr}")
        if weight_decay < 0 or not 0 <= momentum < 1:
            raise ConfigError(
                "model.weight_decay must not be negative and model.momentum must lie within "
                f"[0, 1), got {weight_decay} and {momentum}"
            )
        if warmup_epochs < 0:
            raise ConfigError(f"model.warmup_epochs must not be negative, got {warmup_epochs}")
        if num_classes < 2:
            raise ConfigError(f"a classifier needs at least 2 classes, got {num_classes}")
        if lr_schedule == "step" and not milestones:
            raise ConfigError("model.lr_schedule step needs model.milestones, epochs like [40, 80]")
        if not 0 <= label_smoothing < 1:
            raise ConfigError(
                f"model.label_smoothing must lie within [0, 1), got {label_smoothing}"
            )
        self.save_hyperparameters()
        self.model = build(
            backbone, num_classes, width, dropout, gradient_checkpointing, backbone_options
        )
        if pooling is not None:
            channels = (backbone_options or {}).get("in_channels", 3)
            exchange_pooling(self.model, backbone, channels, pooling, pooling_options or {})
        elif pooling_options:
            raise ConfigError(f"model.pooling_options {pooling_options} need a model.pooling")
        self.frozen = freeze_modules(self.model, freeze or [])
        keep_frozen(self.model, self.frozen)  # Lightning does not call train() before it trains
        self.lr_scales = lr_scales(self.model, backbone_lr, layer_decay)
        self.takes_pictures = model_info(backbone).modality == "image"
        last = torch.channels_last if self.takes_pictures else torch.channels_last_3d
        self.memory_format = last if channels_last else torch.contiguous_format
        self.model.to(memory_format=self.memory_format)
        self.train_loss = MeanMetric()
        self.train_accuracies = MetricCollection(
            {
                f"top{k}": MulticlassAccuracy(num_classes, top_k=k, average="micro")
                for k in TOP_K
                if k == 1 or k < num_classes
            },
            prefix="train/",
        )
        # class names and preprocessing, which travel in the checkpoint
        self.description: dict[str, Any] | None = None
        # of each stage's epoch: clips that were to be read, and what was wrong with bad ones
        self.requested = dict.fromkeys(STAGES, 0)
        self.bad: dict[str, list[str]] = {stage: [] for stage in STAGES}
        self._told_of_batch = False

    def forward(self, clip: Tensor) -> Tensor:
        """Logits (N, num_classes) of normalised clips (N, C, T, H, W).

        Raises:
            ConfigError: The network takes pictures, and T is not 1.
        """
        clip = self._as_taken(clip)
        return self.model(mark(clip) if self.hparams["compile"] else clip)

    def features(self, clip: Tensor) -> Tensor:
        """What the classifier sees of normalised clips (N, C, T, H, W): (N, features).

        Raises:
            ConfigError: The network takes pictures, and T is not 1.
        """
        return self.model.forward_features(self._as_taken(clip))  # type: ignore[operator]

    def train(self, mode: bool = True) -> "VideoClassifier":
        """Set training mode, but for what is frozen."""
        super().train(mode)
        keep_frozen(self.model, self.frozen)
        return self

    def smallest_batches(self, shapes: Iterable[ClipShape]) -> dict[ClipShape, int]:
        """Return the fewest clips that batch norm can be trained on, by clip shape.

        A batch of one clip is too small where a batch norm gets a single value per channel of it.

        Args:
            shapes: The shapes of training clips.

        Returns:
            2 for each shape whose batches need two clips; other shapes are not in it.
        """
        channels = (self.hparams["backbone_options"] or {}).get("in_channels", 3)
        enough: list[ClipShape] = []
        smallest = {}
        for shape in sorted(shapes, key=lambda shape: shape.frames * shape.crop**2):
            # maps do not shrink as clips grow, so that mostly one shape is tried
            if any(one.frames <= shape.frames and one.crop <= shape.crop for one in enough):
                continue
            size = (
                (shape.crop, shape.crop)
                if self.takes_pictures
                else (shape.frames,) + 2 * (shape.crop,)
            )
            try:
                values = values_per_channel(self.model, size, channels)
            except ConfigError:  # the first step fails for the same reason, and says it
                continue
            if values == 1:
                smallest[shape] = 2
            else:
                enough.append(shape)
        return smallest

    def setup(self, stage: str) -> None:
        """Take the data's description; say what trains at which rate; compile.

        In evaluation the classes are those that the network was trained on: here where they are
        known already, else when a checkpoint is loaded.

        Raises:
            ConfigError: The training is in bfloat16 on a CPU that computes it wrongly.
        """
        if stage == "fit":
            self._check_precision()
        datamodule = self._datamodule()
        if datamodule is not None and stage == "fit":
            datamodule.use_classes(None)
            self.description = datamodule.describe()
            synchronized = getattr(self.trainer.strategy, "_layer_sync", None) is not None
            over_ranks = synchronized and self.trainer.world_size > 1
            shapes = [] if over_ranks else datamodule.schedule.shapes()
            datamodule.smallest_batches = self.smallest_batches(shapes)
        elif datamodule is not None and self.description is not None:
            datamodule.use_classes(self.description["class_names"])
            self.description = datamodule.describe()
        scaled = any(scale != 1 for scale in self.lr_scales.values())
        if stage == "fit" and (self.hparams["init_from"] or self.frozen or scaled):
            freeze = self.hparams["freeze"] or []
            rank_zero_info(summary(self.model, self.lr_scales, self.hparams["lr"], freeze))
        if self.frozen:  # of which Lightning would warn
            warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")
        if self.hparams["compile"]:
            compile_network(self.model)

    def on_fit_start(self) -> None:
        """Start from ``init_from``, unless resuming: before this Lightning does not say which.

        Warns of callbacks that monitor a metric which is not among :attr:`logged_metrics`.
        """
        warn_of_unknown_monitors(self.trainer, self.logged_metrics)
        if self.hparams["init_from"] and self.trainer.ckpt_path is None:
            names = self.description["class_names"] if self.description else None
            load_init(self.model, self.hparams["init_from"], names)

    @property
    def logged_metrics(self) -> list[str]:
        """Names of the metrics that training and validation log, for callbacks that monitor one."""
        train = ["loss", *(str(name).removeprefix("train/") for name in self.train_accuracies)]
        both = [f"{stage}/{name}" for stage in ("val", "train") for name in [*train, "bad_clips"]]
        return [*both, "train/loss_step", "lr"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser; :meth:`on_train_batch_start` sets its learning rate.

        Raises:
            ConfigError: A cosine schedule without a number of epochs to fall over.
        """
        if self.hparams["lr_schedule"] == "cosine" and (self.trainer.max_epochs or -1) < 1:
            raise ConfigError("model.lr_schedule cosine needs trainer.max_epochs")
        return self._new_optimizer()

    def on_train_epoch_start(self) -> None:
        """Start the count of bad videos anew; say once if an incomplete batch is left out."""
        self._count_anew("train")
        sampler: ScheduledSampler | None = getattr(self.trainer.train_dataloader, "scheduled", None)
        if sampler is None or self._told_of_batch or sampler.left_out < sampler.num_replicas:
            return
        self._told_of_batch = True
        clips = "1 clip" if sampler.num_replicas == 1 else "1 clip on each process"
        rank_zero_info(
            f"the last batch of epoch {self.current_epoch} would be {clips}, which ends as a "
            "single value per channel, of which batch norm has no statistics: such batches are "
            f"left out. Of {sampler.total} clips, {sampler.total - sampler.left_out} are trained on"
        )

    def on_train_start(self) -> None:
        """Let the present settings count: a resumed optimiser brings those of the old run."""
        resumed = self.trainer.optimizers[0].param_groups
        for group, new in zip(resumed, self._new_optimizer().param_groups, strict=True):
            settings = ("momentum", "nesterov", "weight_decay", "lr_scale")
            group.update({name: new[name] for name in settings if name in new})

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rate by the share of the training that is done; seed the step.

        Steps are not counted: an epoch's length may vary (see :mod:`vidpool.data.schedule`).
        What the step draws, as for dropout, depends on (seed, epoch, step, rank) alone, so that a
        run that was resumed in the middle of an epoch is the same as one that was not.
        """
        h = self.hparams
        trainer = self.trainer
        batches = int(trainer.num_training_batches)
        done, last = self.current_epoch + batch_idx / batches, float(trainer.max_epochs or 1)
        factor = 1.0
        # loaders that are not vidpool's have no schedule, and each batch counts the same
        sampler: ScheduledSampler | None = getattr(trainer.train_dataloader, "scheduled", None)
        if sampler is not None:
            schedule = sampler.schedule
            done = schedule.recipe_epoch(self.current_epoch + sampler.progress(batch_idx, batches))
            last = schedule.recipe_epoch(last)
            factor = sampler.plan[batch_idx].lr_factor
            torch.manual_seed(mix_seeds(sampler.seed, self.current_epoch, batch_idx, sampler.rank))
        lr = h["lr"] * factor
        lr *= lr_factor(
            done, h["lr_schedule"], last, h["warmup_epochs"], h["milestones"] or (), h["gamma"]
        )
        set_lr(trainer.optimizers[0], lr)
        self.log("lr", lr, batch_size=len(batch["label"]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy of augmented clips; accuracy is of the main class where they are mixed.

        Raises:
            ConfigError: The batch is too small for batch norm; the message says why.
        """
        logits = self._logits_in_training(batch, batch_idx)
        label = batch["label"]
        target = batch.get("target", label)
        loss = F.cross_entropy(logits, target, label_smoothing=self.hparams["label_smoothing"])
        size = len(label)
        self.log("train/loss_step", loss, prog_bar=True, batch_size=size)
        self.train_loss.update(loss.detach(), size)
        epoch: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": size}
        self.log("train/loss", self.train_loss, **epoch)
        self.train_accuracies.update(logits, label)
        self.log_dict(self.train_accuracies, **epoch)
        self._log_bad("train", batch)
        return loss

    def on_train_epoch_end(self) -> None:
        """Say which videos could not be read."""
        self._report_bad("train")

    def on_validation_epoch_start(self) -> None:
        """Make room for the scores of every video."""
        self._count_anew("val")
        self.scores = self._empty_scores(self.trainer.val_dataloaders)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch of views to their videos' scores."""
        self._add_scores("val", batch)

    def on_validation_epoch_end(self) -> None:
        """Log loss and accuracy over videos."""
        self._log_scores("val")
        self._report_bad("val")

    def on_test_start(self) -> None:
        """Take the data's description where no checkpoint has brought one."""
        datamodule = self._datamodule()
        if self.description is None and datamodule is not None:
            self.description = datamodule.describe()

    def on_test_epoch_start(self) -> None:
        """Make room for the scores of every video."""
        self._count_anew("test")
        self.scores = self._empty_scores(self.trainer.test_dataloaders)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch of views to their videos' scores."""
        self._add_scores("test", batch)

    def on_test_epoch_end(self) -> None:
        """Log loss and accuracy over videos; write what :mod:`vidpool.train.report` has."""
        scores, labels, metrics = self._log_scores("test")
        self._report_bad("test")
        folder = self.trainer.log_dir  # asked on every rank, since it is broadcast
        if self.trainer.is_global_zero and folder is not None:
            names = self.description["class_names"] if self.description else None
            names = names or [str(i) for i in range(self.hparams["num_classes"])]
            matrix = confusion_matrix(scores, labels).cpu()
            write_test_report(Path(folder), matrix, names, {**metrics, "videos": len(labels)})
            loader: Any = self.trainer.test_dataloaders
            write_predictions(
                Path(folder), loader.dataset.videos, self.scores.seen(), scores, labels, names
            )
            write_run(Path(folder), self._describe_run())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what prediction needs."""
        checkpoint["vidpool"] = self.description

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network, of other classes, or of an average of weights.

        In evaluation the data's labels are matched with the checkpoint's classes by name.

        Raises:
            CheckpointError: It does not fit; the message says in what, and how to fine-tune.
        """
        saved = checkpoint.get("hyper_parameters", {})
        resuming = self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING
        has_to_fit = (*ARCHITECTURE, "optimizer") if resuming else ARCHITECTURE
        differing = [
            f"{name} is {saved[name]!r} in the checkpoint and {self.hparams[name]!r} here"
            for name in has_to_fit
            if name in saved and saved[name] != self.hparams[name]
        ]
        if differing:
            raise CheckpointError(
                f"the checkpoint is of another network: {'; '.join(differing)}. To fine-tune its "
                "weights on other classes give it as --model.init_from instead of --ckpt_path"
            )
        if resuming and checkpoint.get("optimizer_states"):  # without, Lightning refuses it
            self._check_groups(checkpoint["optimizer_states"][0]["param_groups"], saved)
        if resuming and "averaging_state" in checkpoint and not self._averages():
            raise CheckpointError(
                "the checkpoint's weights are an average (EMA), beside which those in training are "
                "kept. Resume with the callback that made it, --config schedule/ema, "
                "or give the checkpoint as --model.init_from to start from the average"
            )
        found = checkpoint.get("vidpool")
        datamodule = None if self._trainer is None else self._datamodule()
        if found and datamodule is not None and not resuming:
            datamodule.use_classes(found["class_names"])
            self.description = datamodule.describe()
        elif self.description and found and found["class_names"] != self.description["class_names"]:
            here, there = self.description["class_names"], found["class_names"]
            place = next(i for i in range(len(here)) if here[i] != there[i])
            unnamed = there == [str(number) for number in range(len(there))]
            hint = "It was imported without their names: see vidpool import --classes. " * unnamed
            raise CheckpointError(
                f"the checkpoint's classes are not the data's: class {place} is {there[place]!r} "
                f"in the checkpoint and {here[place]!r} in the data. {hint}To fine-tune on other "
                "classes give the checkpoint as --model.init_from instead of --ckpt_path"
            )
        self.description = self.description or found

    def _check_precision(self) -> None:
        precision = str(self.trainer.precision)
        on_cpu = self.trainer.strategy.root_device.type == "cpu"
        if on_cpu and precision.startswith("bf16") and not self.takes_pictures:
            check_bfloat16_convolutions(precision)

    def _describe_run(self) -> dict[str, Any]:
        """What is tested, for ``run.json``."""
        seed = os.environ.get("PL_GLOBAL_SEED")
        data = getattr(self.trainer, "datamodule", None)
        root = getattr(data, "root", getattr(data, "folder", None))
        return {
            **provenance(seed=None if seed is None else int(seed)),
            "checkpoint": None if self.trainer.ckpt_path is None else str(self.trainer.ckpt_path),
            "network": {name: self.hparams[name] for name in ARCHITECTURE},
            "data": {
                "datamodule": type(data).__name__,
                "root": None if root is None else str(root),
                "preprocessing": (self.description or {}).get("preprocessing"),
                "static": getattr(data, "static", False),
            },
        }

    def _as_taken(self, clip: Tensor) -> Tensor:
        """Clips in the shape, type and memory format that the network takes."""
        dtype = next(self.model.parameters()).dtype  # of Lightning's bf16-true and 64-true
        if self.takes_pictures:
            if clip.shape[2] != 1:
                raise ConfigError(
                    f"model.backbone {self.hparams['backbone']} takes pictures, not clips of "
                    f"{clip.shape[2]} frames: train it on vidpool.data.datasets.image_folder."
                    "ImageFolderDataModule, or with data.frames 1"
                )
            clip = clip.squeeze(2)
        return clip.to(dtype=dtype, memory_format=self.memory_format)

    def _logits_in_training(self, batch: Batch, batch_idx: int) -> Tensor:
        clip = batch["clip"]
        try:
            return self(clip)
        except ValueError as error:
            if "Expected more than 1 value per channel" not in str(error):
                raise
            shape = " x ".join(map(str, clip.shape[2:]))
            what, way_out = self._why_single(batch, batch_idx)
            raise ConfigError(
                f"{what} of {shape} ends as a single value per channel, of which batch norm has "
                f"no statistics: {way_out}, or set data.crop higher"
            ) from error

    def _why_single(self, batch: Batch, batch_idx: int) -> tuple[str, str]:
        """What batch norm gets a single value of, and what can be done about it."""
        count = len(batch["clip"])
        if count > 1:  # of which sub-batch norm takes each by itself
            return f"each of {count} clips", "set multigrid's sub_batch_norm to 2 or more"
        what = "a batch of 1 clip"
        requested = batch.get("requested", 1)
        if requested > 1:
            return (
                f"{what} (the others of {requested} cannot be read)",
                "set data.on_bad_video to substitute",
            )
        sampler = getattr(self.trainer.train_dataloader, "scheduled", None)
        batches = [] if sampler is None else [step.batch_size for step in sampler.plan]
        if sampler is not None and len(batches) == 1 and sampler.total < 2 * sampler.num_replicas:
            return what, "train on more videos"
        if batches and batches[max(0, batch_idx - 1)] == 1:
            return what, "set data.batch_size to 2 or more"
        # of a loader that was given by itself, to which nobody said what the network needs
        return what, "leave incomplete batches out, as trainer.fit(model, datamodule=...) does"

    def _datamodule(self) -> VideoDataModule | None:
        datamodule = getattr(self.trainer, "datamodule", None)
        return datamodule if isinstance(datamodule, VideoDataModule) else None

    def _averages(self) -> bool:
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        return any(isinstance(each, WeightAveraging) for each in callbacks)

    def _empty_scores(self, loader: Any) -> VideoScores:
        videos, classes = len(loader.dataset.videos), self.hparams["num_classes"]
        # float32, but for Lightning's 64-true
        precision = torch.promote_types(next(self.model.parameters()).dtype, torch.float32)
        return VideoScores(videos, classes, precision).to(self.device)

    def _new_optimizer(self) -> torch.optim.Optimizer:
        h = self.hparams
        settings = h["optimizer"], h["lr"], h["momentum"], h["weight_decay"]
        return make_optimizer(self.model, *settings, self.lr_scales)

    def _check_groups(self, groups: list[dict[str, Any]], saved: dict[str, Any]) -> None:
        """Refuse an optimiser that has other parameters, or has them in other groups.

        Raises:
            CheckpointError: It has; the message says by which options.
        """
        if same_groups(groups, self._new_optimizer().param_groups):
            return
        differing = [
            f"model.{name} is {saved[name]} in the checkpoint and {self.hparams[name]} here"
            for name in FINETUNING
            if name in saved and saved[name] != self.hparams[name]
        ]
        raise CheckpointError(
            "the checkpoint's optimiser trains other parameters, or groups them otherwise: "
            f"{'; '.join(differing) or 'they are not named'}. To change this give the checkpoint "
            "as --model.init_from instead of --ckpt_path"
        )

    def _add_scores(self, stage: str, batch: Batch) -> None:
        self.scores.update(self(batch["clip"]), batch["label"], batch["video"], batch["counted"])
        self._log_bad(stage, batch)

    def _count_anew(self, stage: str) -> None:
        self.requested[stage] = 0
        self.bad[stage] = []

    def _log_bad(self, stage: str, batch: Batch) -> None:
        """Count the clips that could not be read, on all ranks."""
        if "requested" not in batch:  # not of vidpool's loaders
            return
        self.requested[stage] += batch["requested"]
        self.bad[stage] += batch["bad"]
        self.log(
            f"{stage}/bad_clips",
            float(len(batch["bad"])),
            on_step=False,
            on_epoch=True,
            reduce_fx="sum",
            sync_dist=True,
            batch_size=len(batch["label"]),
        )

    def _report_bad(self, stage: str) -> None:
        """Say how many clips of the epoch could not be read, and list them in a file.

        Raises:
            DataError: There are more than ``data.max_bad_share``.
        """
        count = int(self.trainer.callback_metrics.get(f"{stage}/bad_clips", 0))
        if not count:
            return
        folder = self.trainer.log_dir  # asked on every rank, since it is broadcast
        listed = ""
        if folder is not None:
            file = list_bad_videos(Path(folder), self.current_epoch, stage, self.bad[stage])
            listed = f"; {file} lists them"
        first = f", such as {self.bad[stage][0]}" if self.bad[stage] else ""
        total = self.requested[stage] * self.trainer.world_size  # ranks are given the same number
        what = (
            f"epoch {self.current_epoch}, {stage}: {count} of {total} clips could not be "
            f"read{first}{listed}"
        )
        datamodule = getattr(self.trainer, "datamodule", None)
        if isinstance(datamodule, VideoDataModule) and count > datamodule.max_bad_share * total:
            raise DataError(
                f"{what}. That is more than data.init_args.max_bad_share "
                f"({datamodule.max_bad_share:g}) allows: look at the data (`vidpool data check`) "
                "or set it higher"
            )
        rank_zero_warn(what)

    def _log_scores(self, stage: str) -> tuple[Tensor, Tensor, dict[str, float]]:
        """Mean scores, labels and metrics of the videos seen; the metrics are logged."""
        scores, labels = self.scores.mean_scores()
        likelihood = scores.gather(1, labels[:, None]).clamp_min(torch.finfo(scores.dtype).tiny)
        metrics = {"loss": -likelihood.log().mean(), **accuracies(scores, labels)}
        for name, value in metrics.items():
            # every rank has the same value, computed from the scores of all
            self.log(f"{stage}/{name}", value, prog_bar=name == "top1", sync_dist=True)
        return scores, labels, {name: float(value) for name, value in metrics.items()}
