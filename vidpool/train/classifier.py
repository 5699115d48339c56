"""The LightningModule that trains and tests a video network."""

import copy
import inspect
import os
import warnings
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from typing_extensions import Self

from vidpool.data.datamodule import VideoDataModule
from vidpool.data.schedule import ScheduledSampler, mix_seeds
from vidpool.errors import ConfigError
from vidpool.models.weights import load_checkpoint
from vidpool.train import checkpoints, checks, finetuning, metrics, network, optim
from vidpool.train.callbacks.bad_videos import BadVideos
from vidpool.train.callbacks.test_report import TestReport
from vidpool.train.lr_scheduler import LRSchedule, ScheduledLR, set_lr
from vidpool.train.steps import ClassifierSteps

LR_FINDER = "pytorch_lightning.tuner.lr_finder"
"""Module of the schedulers that try learning rates."""


class VideoClassifier(ClassifierSteps):
    """A network with its pooling, normalization, loss, optimizer and metrics.

    Clips are uint8 (N, C, T, H, W), which the classifier normalizes, or floats, which count as
    normalized. Image models take clips of one frame; see
    :class:`vidpool.data.datasets.image_folder.ImageFolderDataModule`.

    Args:
        backbone: Name of a network, see :func:`vidpool.models.list_models`, or any module from
            clips to logits (N, num_classes). A module whose first convolution is 2D takes images.
        num_classes: Number of classes; on the command line it follows from the data.
        width: Channels of the first stage; null is the network's own.
        backbone_options: Further options of the network, e.g. ``{gate: true}`` for SRTG.
        pooling: Method of all pooling layers, see :func:`vidpool.nn.swap_pooling`; null keeps the
            network's own.
        pooling_options: Options of ``swap_pooling`` and the new layers, e.g. ``{gradient: paper}``
            or ``{geometry: authors}``.
        dropout: Probability of dropping a feature before the classifier; null is the network's own.
        gradient_checkpointing: Recompute the activations inside the network's blocks in the
            backward pass instead of storing them, which saves memory.
        channels_last: Keep weights and clips in the channels-last memory format, which makes
            convolutions faster on CPUs and in half precision on GPUs; results are the same.
        compile: Compile the network with ``torch.compile``, once per clip size.
        init_from: A checkpoint to fine-tune, of any kind that ``vidpool import`` reads. The
            classifier is re-initialized if the classes differ. To resume a run use ``--ckpt_path``
            instead.
        backbone_lr: Factor of the learning rate of everything but the classifier.
        layer_decay: Further factor of the learning rate per stage of the network, from the
            classifier to the input (layer-wise decay).
        freeze: Modules that are not trained, by names such as ``[stem, layer1]`` or ``['layer*']``;
            ``[backbone]`` is all but the classifier. They stay in evaluation mode: batch norm keeps
            its statistics, and dropout is off.
        optimizer: ``sgd`` (with Nesterov momentum), ``adamw``, or a callable that takes parameter
            groups and returns an optimizer, whose own learning rate then takes the place of ``lr``.
        lr: Base learning rate.
        momentum: Momentum factor of ``sgd``.
        weight_decay: Weight decay: of all parameters for ``sgd``, of weights alone for ``adamw``.
        lr_schedule: ``step``, ``cosine`` (down to 0) or ``constant``. The rate changes from step to
            step; with a loader of unknown length, from epoch to epoch.
        milestones: Epochs at which ``step`` multiplies the rate by ``gamma``.
        gamma: Factor of ``step``.
        warmup_epochs: Length of the linear warm-up; may be a fraction.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).
        lr_scheduler: Callable that takes the optimizer and returns a scheduler of PyTorch, or
            Lightning's dict with one; it replaces ``lr_schedule`` and its options.
        lr_scheduler_interval: How often ``lr_scheduler`` is stepped: every ``epoch`` or ``step``.
        mean: Mean of each channel, in [0, 1], for uint8 clips. Defaults to that of the data, or to
            that of Kinetics-400 if the data do not say.
        std: Standard deviation of each channel, in [0, 1]; likewise.

    Raises:
        ConfigError: The network, or an option of it, is unknown, or a value cannot work.

    Examples:
        >>> import torch
        >>> classifier = VideoClassifier("r3d_18", num_classes=5, width=4).eval()
        >>> clips = torch.randint(0, 256, (2, 3, 4, 32, 32), dtype=torch.uint8)
        >>> classifier(clips).shape
        torch.Size([2, 5])
        >>> classifier.features(clips).shape
        torch.Size([2, 32])

        A network of your own:

        >>> net = torch.nn.Sequential(
        ...     torch.nn.Conv3d(3, 8, 3, padding=1), torch.nn.MaxPool3d(2),
        ...     torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5)
        ... )
        >>> VideoClassifier(net, num_classes=5)(clips).shape
        torch.Size([2, 5])
    """

    model: nn.Module

    def __init__(
        self,
        backbone: str | nn.Module = "r3d_50",
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
        optimizer: optim.OptimizerName | OptimizerCallable = "sgd",
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        lr_schedule: LRSchedule = "cosine",
        milestones: list[float] | None = None,
        gamma: float = 0.1,
        warmup_epochs: float = 0.0,
        label_smoothing: float = 0.0,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_scheduler_interval: optim.Interval = "epoch",
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(mean, std)
        if num_classes < 2:
            raise ConfigError(
                f"a classifier needs at least 2 classes, got {num_classes}", argument="num_classes"
            )
        optim.check_settings(
            lr, momentum, weight_decay, lr_schedule, milestones, warmup_epochs, label_smoothing
        )
        self.save_hyperparameters(ignore=["backbone", "optimizer", "lr_scheduler"])
        self.model = network.build(
            backbone, num_classes, width, dropout, gradient_checkpointing, backbone_options
        )
        self._set_plain_hyperparameters(backbone, optimizer, lr_scheduler)
        network.exchange_pooling(
            self.model,
            backbone,
            checks.channels_of(self.hparams),
            pooling,
            pooling_options or {},
        )
        self.frozen = finetuning.freeze_modules(self.model, freeze or [])
        # Lightning does not call train() before it trains
        finetuning.keep_frozen(self.model, self.frozen)
        self.lr_scales = finetuning.lr_scales(
            self.model, self.hparams["backbone_lr"], self.hparams["layer_decay"]
        )
        self.is_image_model = network.is_image_network(backbone)
        last = torch.channels_last if self.is_image_model else torch.channels_last_3d
        self.memory_format = last if channels_last else torch.contiguous_format
        self.model.to(memory_format=self.memory_format)
        self._make_metrics(num_classes)
        self._reported_left_out = False
        self._initialized = False
        self._verified_checkpoint = False
        # of the optimizer, as they are given now, and the learning rate it was made with
        self._settings: list[dict[str, Any]] | None = None
        self._made_lr: float | None = None

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | os.PathLike[str],
        map_location: str | torch.device = "cpu",
        strict: bool = True,
        *,
        network: nn.Module | None = None,
        **settings: Any,
    ) -> Self:
        """Return a classifier with the settings and weights of a checkpoint.

        No code that the checkpoint contains or names is run or imported.

        Args:
            checkpoint_path: A checkpoint of ``vidpool fit``, ``vidpool import`` or a Trainer.
            map_location: Device of the classifier. Defaults to the CPU.
            strict: Refuse weights that are missing, or too many.
            network: A module of the class that the checkpoint was trained with, if its network was
                not built by name.
            **settings: Arguments of the classifier that replace those of the checkpoint.

        Raises:
            CheckpointError: The file cannot be read, does not fit, or needs ``network``.
        """
        checkpoint = load_checkpoint(checkpoint_path)
        checkpoints.check_format(checkpoint, checkpoint_path)
        settings = checkpoints.restored_settings(checkpoint) | settings
        if network is not None:
            settings["backbone"] = network
        parameters = inspect.signature(cls).parameters.values()
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            known = [parameter.name for parameter in parameters]
            settings = {name: settings[name] for name in known if name in settings}
        classifier = cls(**settings)
        classifier.on_load_checkpoint(checkpoint)
        classifier.load_state_dict(checkpoint["state_dict"], strict=strict)
        return classifier.to(map_location)

    def configure_callbacks(self) -> list[pl.Callback]:
        """Return the callbacks that report bad videos and tests, unless the trainer has them."""
        present = self.trainer.callbacks  # type: ignore[attr-defined]
        own: tuple[type[pl.Callback], ...] = (BadVideos, TestReport)
        return [kind() for kind in own if not any(isinstance(each, kind) for each in present)]

    def forward(self, clip: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of clips (N, C, T, H, W).

        Args:
            clip: uint8, or normalized floats.

        Raises:
            ConfigError: The network takes images, and T is not 1.
        """
        clip = self._match_network(clip)
        return self.model(network.mark_dynamic_batch(clip) if self.hparams["compile"] else clip)

    def features(self, clip: Tensor) -> Tensor:
        """Return the features (N, F) before the classifier, of clips (N, C, T, H, W).

        Args:
            clip: uint8, or normalized floats.

        Raises:
            ConfigError: The network takes images, and T is not 1.
        """
        return network.features_of(self.model, self._match_network(clip))

    def train(self, mode: bool = True) -> Self:
        """Set training mode, but for frozen modules."""
        super().train(mode)
        finetuning.keep_frozen(self.model, self.frozen)
        return self

    def setup(self, stage: str) -> None:
        """Take the description of the data, report learning rates of fine-tuning, compile.

        In evaluation the classes are those that the network was trained on. If they are unknown
        here, they follow from the checkpoint when it is loaded.

        Raises:
            ConfigError: The data has other classes or another normalization, or the training is in
                bfloat16 on a CPU that computes it wrongly.
        """
        datamodule = self._datamodule()
        if stage == "fit":
            self._initialized = self._verified_checkpoint = False
            self._settings = self._made_lr = None
            checks.check_precision(self.trainer, self.is_image_model)
            checks.check_batch_size_finder(self.trainer)
            if datamodule is not None:
                datamodule.use_classes(None)
            self._describe_data()
            if datamodule is not None:
                checks.leave_out_small_batches(self.trainer, datamodule, self)
            finetuning.report(self.model, self.lr_scales, self.hparams)
        elif datamodule is not None and self.description is not None:
            datamodule.use_classes(self.description["class_names"])
            self._describe_data()
        if self.frozen:  # Lightning warns of them
            warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")
        if self.hparams["compile"]:
            network.compile_network(self.model)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer and its scheduler.

        Raises:
            ConfigError: A cosine schedule has no number of epochs.
        """
        # the trainer knows by now if it resumes, and tuners search before on_fit_start
        self._load_initial_weights()
        optimizer = self._new_optimizer()
        if self._trainer is None:  # a loop without Lightning
            return optimizer
        self._settings, self._made_lr = optim.settings_of(optimizer), self.hparams["lr"]
        if self._lr_scheduler is not None:
            interval = self.hparams["lr_scheduler_interval"]
            return optim.with_scheduler(optimizer, self._lr_scheduler, interval)
        if self.hparams["lr_schedule"] == "cosine" and (self.trainer.max_epochs or -1) < 1:
            raise ConfigError(
                "lr_schedule cosine needs the trainer's max_epochs", argument="lr_schedule"
            )
        scheduler = ScheduledLR(optimizer, self.hparams, self.trainer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_fit_start(self) -> None:
        """Load the weights of ``init_from``, unless resuming.

        Warns about callbacks that monitor a metric that is not in :attr:`logged_metrics`.
        """
        metrics.warn_of_unknown_monitors(self.trainer, self.logged_metrics)
        self._load_initial_weights()

    def on_train_start(self) -> None:
        """Use the current settings: a resumed optimizer brings those of the old run."""
        resumed = self.trainer.ckpt_path is not None
        if self._settings is not None:
            if resumed:
                optim.update_settings(self.trainer.optimizers[0], self._settings)
            lr, made_lr = self.hparams["lr"], self._made_lr
            configs = self.trainer.lr_scheduler_configs
            if self._lr_scheduler is not None and made_lr not in (None, lr) and configs:
                # a tuner found another rate
                scheduler = configs[0].scheduler
                optim.scale_rates(self.trainer.optimizers[0], scheduler, lr / made_lr)
                self._made_lr = lr
        if (scheduled := self._scheduled_lr()) is not None:
            scheduled.start(resumed)

    def on_train_epoch_start(self) -> None:
        """Correct the rate of the epoch's first step; report that a batch is left out."""
        if (scheduled := self._scheduled_lr()) is not None:
            scheduled.correct(self.current_epoch, 0)
        if not self._reported_left_out:
            self._reported_left_out = checks.report_left_out(self.trainer)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the step, and log its learning rate.

        Random numbers of the step, such as dropout's, depend on (seed, epoch, step, rank) alone, so
        that runs resumed in the middle of an epoch are exact.
        """
        # loaders that are not vidpool's have no schedule
        sampler: ScheduledSampler | None = getattr(self.trainer.train_dataloader, "scheduled", None)
        if sampler is not None:
            torch.manual_seed(mix_seeds(sampler.seed, self.current_epoch, batch_idx, sampler.rank))
        if (scheduled := self._scheduled_lr()) is not None:
            scheduled.correct(self.current_epoch, batch_idx)
        if not self.trainer.optimizers:
            return
        optimizer = self.trainer.optimizers[0]
        for config in self.trainer.lr_scheduler_configs:
            # Lightning's learning-rate finder tries the same rate for all groups
            if type(config.scheduler).__module__ == LR_FINDER:
                set_lr(optimizer, config.scheduler.lr[0])  # type: ignore[union-attr]
        group = optimizer.param_groups[0]
        lr = float(group["lr"]) / group.get("lr_scale", 1.0)
        self.log("lr", lr, batch_size=checks.batch_size_of(batch))

    def on_validation_epoch_start(self) -> None:
        """Make empty scores of all videos."""
        self._describe_data(known=self.description is not None)
        super().on_validation_epoch_start()

    def on_test_epoch_start(self) -> None:
        """Make empty scores of all videos; describe the data, unless a checkpoint did."""
        self._describe_data(known=self.description is not None)
        super().on_test_epoch_start()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add class names and preprocessing for prediction, and make all content plain values.

        Raises:
            CheckpointError: A value in the first checkpoint could not be read again.
        """
        checkpoint["vidpool"] = self.description
        settings = checkpoint.setdefault("hyper_parameters", {})
        settings.update(mean=list(self.mean), std=list(self.std))
        checkpoints.finish(checkpoint, verify=not self._verified_checkpoint)
        self._verified_checkpoint = True

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network, of other classes, or of an average of weights.

        In evaluation the labels of the data are matched to the checkpoint's classes by name.

        Raises:
            CheckpointError: The checkpoint does not fit; the message gives the difference and how
                to fine-tune.
            ConfigError: The checkpoint was trained with another normalization.
        """
        checkpoints.check_format(checkpoint)
        saved = checkpoints.restored_settings(checkpoint)
        resumes = self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING
        checks.check_network(saved, self.hparams, resumes)
        if resumes and checkpoint.get("optimizer_states"):  # without, Lightning refuses it
            groups = checkpoint["optimizer_states"][0]["param_groups"]
            new = self._new_optimizer().param_groups
            checks.check_parameter_groups(groups, new, saved, self.hparams)
        if resumes:
            checks.check_averaging(checkpoint, self.trainer)
        found = checkpoint.get("vidpool")
        source = found["preprocessing"] if found else saved
        if source.get("mean") and source.get("std"):
            self.use_normalization(source["mean"], source["std"], "the checkpoint")
        datamodule = None if self._trainer is None else self._datamodule()
        if found and datamodule is not None and not resumes:
            datamodule.use_classes(found["class_names"])
            self._describe_data()
        elif self.description and found:
            checks.check_class_names(found["class_names"], self.description["class_names"])
        self.description = self.description or found

    def _set_plain_hyperparameters(
        self, backbone: Any, optimizer: Any, lr_scheduler: Any
    ) -> None:
        """Keep plain values as hyper-parameters, and the callables as attributes."""
        values = {
            "backbone": network.name_of(backbone),
            "optimizer": optimizer,
            "lr_scheduler": lr_scheduler,
        }
        if not isinstance(optimizer, str):
            example = optim.example_optimizer(self.model, optimizer)
            values["optimizer"] = optim.class_name(type(example))
            self.hparams["lr"] = float(example.defaults["lr"])
        elif optimizer not in optim.OPTIMIZERS and not optimizer.startswith(optim.CLASS):
            raise optim.unknown_optimizer(optimizer)
        plain = checkpoints.plain({**self.hparams, **values}, name_objects=True)
        self.hparams.clear()
        self._set_hparams({name: v for name, v in plain.items() if not name.startswith("_")})
        self._hparams_initial = copy.deepcopy(self._hparams)
        self._optimizer, self._lr_scheduler = optimizer, lr_scheduler

    def _describe_data(self, known: bool = False) -> None:
        """Take class names and normalization from the data of the trainer."""
        data = getattr(self.trainer, "datamodule", None)
        classes = None if known else getattr(data, "num_classes", None)
        if isinstance(classes, int) and classes != self.hparams["num_classes"]:
            raise ConfigError(
                f"num_classes of the classifier is {self.hparams['num_classes']}, but "
                f"{type(data).__name__} has num_classes {classes}",
                argument="num_classes",
            )
        if isinstance(data, VideoDataModule) and not known:
            preprocessing = data.preprocessing
            self.use_normalization(preprocessing.mean, preprocessing.std, "the data")
            self.description = data.describe()

    def _load_initial_weights(self) -> None:
        """Load the weights of ``init_from`` once in a fit that does not resume."""
        if self._initialized or not self.hparams["init_from"] or self._trainer is None:
            return
        self._initialized = True
        if self.trainer.ckpt_path is None:
            names = self.description["class_names"] if self.description else None
            finetuning.load_initial_weights(self.model, self.hparams["init_from"], names)

    def _match_network(self, clip: Tensor) -> Tensor:
        """Return normalized clips in the shape, dtype and memory format that the network takes."""
        clip = self.normalize(clip)
        dtype = next(self.model.parameters()).dtype  # of Lightning's bf16-true and 64-true
        if self.is_image_model:
            if clip.shape[2] != 1:
                raise ConfigError(
                    f"backbone {self.hparams['backbone']} takes images, not clips of "
                    f"{clip.shape[2]} frames: train it on vidpool.data.datasets.image_folder."
                    "ImageFolderDataModule, or with frames=1",
                    argument="backbone",
                )
            clip = clip.squeeze(2)
        return clip.to(dtype=dtype, memory_format=self.memory_format)

    def _datamodule(self) -> VideoDataModule | None:
        datamodule = getattr(self.trainer, "datamodule", None)
        return datamodule if isinstance(datamodule, VideoDataModule) else None

    def _scheduled_lr(self) -> ScheduledLR | None:
        """Return the scheduler of ``lr_schedule``, unless another took its place."""
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ScheduledLR):
                return config.scheduler
        return None

    def _new_optimizer(self) -> torch.optim.Optimizer:
        h = self.hparams
        settings = h["lr"], h["momentum"], h["weight_decay"]
        return optim.make_optimizer(self.model, self._optimizer, *settings, self.lr_scales)
