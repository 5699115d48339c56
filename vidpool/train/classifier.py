"""The LightningModule that trains and tests a video network."""

import copy
import os
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from typing_extensions import Self

from vidpool.errors import ConfigError
from vidpool.models import features_of
from vidpool.models.weights import load_checkpoint
from vidpool.train import bfloat16, checkpoints, checks, finetuning, metrics, network, optim
from vidpool.train.callbacks.bad_videos import BadVideos
from vidpool.train.callbacks.test_report import TestReport
from vidpool.train.lr_scheduler import LRSchedule
from vidpool.train.optimization import OptimizedModule


class VideoClassifier(OptimizedModule):
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
            classifier is re-initialized if the classes differ. To resume a run, use
            ``ckpt_path`` of the trainer instead.
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
        num_classes = int(num_classes)
        milestones = None if milestones is None else [float(epoch) for epoch in milestones]
        if num_classes < 2:
            raise ConfigError(
                f"a classifier needs at least 2 classes, got {num_classes}", argument="num_classes"
            )
        optim.check_settings(
            lr, momentum, weight_decay, lr_schedule, milestones, warmup_epochs, label_smoothing
        )
        # settings of a command line that nobody instantiated
        optimizer, lr_scheduler = map(checkpoints.without_import, (optimizer, lr_scheduler))
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
        self._keep_optimizer(optimizer, lr_scheduler)
        self._verified_checkpoint = False

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
        saved = checkpoints.accepted_settings(cls, checkpoint)
        if network is not None:
            settings["backbone"] = network
        classifier = cls(**{**saved, **settings})
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
        return features_of(self.model, self._match_network(clip))

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
            self._verified_checkpoint = False
            self._forget_optimizer()
            bfloat16.check_precision(self.trainer, self.is_image_model)
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
        # Lightning warns that the datamodule does not normalize
        warnings.filterwarnings("ignore", "You have overridden `on_after_batch_transfer` in `Light")
        if self.frozen:  # Lightning warns of them
            warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")
        if self.hparams["compile"]:
            network.compile_network(self.model)

    def on_fit_start(self) -> None:
        """Load the weights of ``init_from``, unless resuming.

        Warns about callbacks that monitor a metric that is not in :attr:`logged_metrics`.
        """
        metrics.warn_of_unknown_monitors(self.trainer, self.logged_metrics)
        self._load_initial_weights()

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
        checks.check_same_network(saved, self.hparams, resumes)
        if resumes:
            self._check_parameter_groups(checkpoint.get("optimizer_states"), saved)
            checks.check_averaging(checkpoint, self.trainer)
        found = checkpoint.get("vidpool")
        source = found.get("preprocessing", {}) if found else saved
        if source.get("mean") and source.get("std"):
            self.use_normalization(source["mean"], source["std"], "the checkpoint")
        datamodule = None if self._trainer is None else self._datamodule()
        if found and datamodule is not None and not resumes:
            datamodule.use_classes(found["class_names"])
            self._describe_data()
        elif self.description and found:
            checks.check_class_names(found["class_names"], self.description["class_names"])
        self.description = self.description or found

    def _set_plain_hyperparameters(self, backbone: Any, optimizer: Any, lr_scheduler: Any) -> None:
        """Keep plain values as hyper-parameters, and the callables as attributes."""
        values = {
            "backbone": network.name_of(backbone),
            "optimizer": optimizer,
            "lr_scheduler": optim.scheduler_name(self.model, lr_scheduler),
        }
        if not isinstance(optimizer, str):
            example = optim.example_optimizer(self.model, optimizer)
            values["optimizer"] = checkpoints.class_name(type(example))
            self.hparams["lr"] = float(example.defaults["lr"])
        elif optimizer not in optim.OPTIMIZERS and not optimizer.startswith(checkpoints.CLASS):
            raise optim.unknown_optimizer(optimizer)
        plain = checkpoints.plain({**self.hparams, **values}, name_objects=True)
        self.hparams.clear()
        self._set_hparams({name: v for name, v in plain.items() if not name.startswith("_")})
        self._hparams_initial = copy.deepcopy(self._hparams)

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
