"""The LightningModule that trains and tests a video network."""

import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from vidpool.data.datamodule import VideoDataModule
from vidpool.data.dataset import Batch
from vidpool.data.schedule import ScheduledSampler, mix_seeds
from vidpool.errors import ConfigError
from vidpool.models import model_info
from vidpool.train import checks, finetuning, metrics, network, optim
from vidpool.train.callbacks.bad_videos import BadVideos
from vidpool.train.callbacks.test_report import TestReport


class VideoClassifier(pl.LightningModule):
    """A network with its pooling, loss, optimiser and metrics.

    Image models take clips of one frame; see
    :class:`vidpool.data.datasets.image_folder.ImageFolderDataModule`.

    Args:
        backbone: Name of a network, see :func:`vidpool.models.list_models`.
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
        optimizer: ``sgd`` (with Nesterov momentum) or ``adamw``.
        lr: Base learning rate.
        momentum: Momentum factor of SGD.
        weight_decay: Weight decay: of all parameters for SGD, of weights alone for AdamW.
        lr_schedule: ``step``, ``cosine`` (down to 0) or ``constant``.
        milestones: Epochs at which ``step`` multiplies the rate by ``gamma``.
        gamma: Factor of ``step``.
        warmup_epochs: Length of the linear warm-up; may be a fraction.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).

    Raises:
        ConfigError: The network, or an option of it, is unknown, or a value cannot work.
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
        optimizer: optim.OptimizerName = "sgd",
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        lr_schedule: optim.LRSchedule = "cosine",
        milestones: list[float] | None = None,
        gamma: float = 0.1,
        warmup_epochs: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ConfigError(f"a classifier needs at least 2 classes, got {num_classes}")
        optim.check_settings(
            lr, momentum, weight_decay, lr_schedule, milestones, warmup_epochs, label_smoothing
        )
        self.save_hyperparameters()
        self.model = network.build(
            backbone, num_classes, width, dropout, gradient_checkpointing, backbone_options
        )
        channels = (backbone_options or {}).get("in_channels", 3)
        network.exchange_pooling(self.model, backbone, channels, pooling, pooling_options or {})
        self.frozen = finetuning.freeze_modules(self.model, freeze or [])
        # Lightning does not call train() before it trains
        finetuning.keep_frozen(self.model, self.frozen)
        self.lr_scales = finetuning.lr_scales(self.model, backbone_lr, layer_decay)
        self.is_image_model = model_info(backbone).modality == "image"
        last = torch.channels_last if self.is_image_model else torch.channels_last_3d
        self.memory_format = last if channels_last else torch.contiguous_format
        self.model.to(memory_format=self.memory_format)
        self.train_loss = MeanMetric()
        self.train_accuracies = metrics.training_accuracies(num_classes)
        # class names and preprocessing, saved in the checkpoint
        self.description: dict[str, Any] | None = None
        # mean scores, labels and metrics of the tested videos
        self.test_results: tuple[Tensor, Tensor, dict[str, float]] | None = None
        self._reported_left_out = False

    def configure_callbacks(self) -> list[pl.Callback]:
        """Return the callbacks that report bad videos and tests, unless the trainer has them."""
        present = self.trainer.callbacks  # type: ignore[attr-defined]
        own: tuple[type[pl.Callback], ...] = (BadVideos, TestReport)
        return [kind() for kind in own if not any(isinstance(each, kind) for each in present)]

    def forward(self, clip: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of normalised clips (N, C, T, H, W).

        Raises:
            ConfigError: The network takes images, and T is not 1.
        """
        clip = self._match_network(clip)
        return self.model(network.mark_dynamic_batch(clip) if self.hparams["compile"] else clip)

    def features(self, clip: Tensor) -> Tensor:
        """Return the features (N, F) before the classifier, of normalised clips (N, C, T, H, W).

        Raises:
            ConfigError: The network takes images, and T is not 1.
        """
        return self.model.forward_features(self._match_network(clip))  # type: ignore[operator]

    def train(self, mode: bool = True) -> "VideoClassifier":
        """Set training mode, but for frozen modules."""
        super().train(mode)
        finetuning.keep_frozen(self.model, self.frozen)
        return self

    def setup(self, stage: str) -> None:
        """Take the description of the data, report learning rates of fine-tuning, compile.

        In evaluation the classes are those that the network was trained on. If they are unknown
        here, they follow from the checkpoint when it is loaded.

        Raises:
            ConfigError: The training is in bfloat16 on a CPU that computes it wrongly.
        """
        if stage == "fit":
            checks.check_precision(self.trainer, self.is_image_model)
        datamodule = self._datamodule()
        if datamodule is not None and stage == "fit":
            datamodule.use_classes(None)
            self.description = datamodule.describe()
            checks.leave_out_small_batches(self.trainer, datamodule, self)
        elif datamodule is not None and self.description is not None:
            datamodule.use_classes(self.description["class_names"])
            self.description = datamodule.describe()
        if stage == "fit":
            finetuning.report(self.model, self.lr_scales, self.hparams)
        if self.frozen:  # Lightning warns of them
            warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")
        if self.hparams["compile"]:
            network.compile_network(self.model)

    def on_fit_start(self) -> None:
        """Load the weights of ``init_from``, unless resuming, which Lightning knows only by now.

        Warns about callbacks that monitor a metric that is not in :attr:`logged_metrics`.
        """
        metrics.warn_of_unknown_monitors(self.trainer, self.logged_metrics)
        if self.hparams["init_from"] and self.trainer.ckpt_path is None:
            names = self.description["class_names"] if self.description else None
            finetuning.load_initial_weights(self.model, self.hparams["init_from"], names)

    @property
    def logged_metrics(self) -> list[str]:
        """Names of the metrics that training and validation log."""
        train = ["loss", *(str(name).removeprefix("train/") for name in self.train_accuracies)]
        both = [f"{stage}/{name}" for stage in ("val", "train") for name in [*train, "bad_clips"]]
        return [*both, "train/loss_step", "lr"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser; :meth:`on_train_batch_start` sets its learning rate.

        Raises:
            ConfigError: A cosine schedule has no number of epochs.
        """
        if self.hparams["lr_schedule"] == "cosine" and (self.trainer.max_epochs or -1) < 1:
            raise ConfigError("model.lr_schedule cosine needs trainer.max_epochs")
        return self._new_optimizer()

    def on_train_epoch_start(self) -> None:
        """Report once that an incomplete batch is left out."""
        if not self._reported_left_out:
            self._reported_left_out = checks.report_left_out(self.trainer)

    def on_train_start(self) -> None:
        """Use the current settings: a resumed optimiser brings those of the old run."""
        optim.update_settings(self.trainer.optimizers[0], self._new_optimizer())

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rate by the progress of the training, and seed the step.

        Steps are not counted: an epoch's length may vary (see :mod:`vidpool.data.schedule`). Random
        numbers of the step, such as dropout's, depend on (seed, epoch, step, rank) alone, so that
        runs resumed in the middle of an epoch are exact.
        """
        # loaders that are not vidpool's have no schedule
        sampler: ScheduledSampler | None = getattr(self.trainer.train_dataloader, "scheduled", None)
        epoch = self.current_epoch
        if sampler is not None:
            torch.manual_seed(mix_seeds(sampler.seed, epoch, batch_idx, sampler.rank))
        batches, epochs = int(self.trainer.num_training_batches), self.trainer.max_epochs or 1
        lr = optim.scheduled_lr(self.hparams, sampler, epoch, batch_idx, batches, epochs)
        optim.set_lr(self.trainer.optimizers[0], lr)
        self.log("lr", lr, batch_size=len(batch["label"]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the cross-entropy of augmented clips.

        Accuracies of mixed clips are of the main class.

        Raises:
            ConfigError: The batch is too small for batch norm; the message says why.
        """
        with checks.explain_single_values(self, batch, batch_idx):
            logits = self(batch["clip"])
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
        return loss

    def on_validation_epoch_start(self) -> None:
        """Make empty scores of all videos."""
        self.scores = self._empty_scores(self.trainer.val_dataloaders)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch of views to the scores of their videos."""
        self._add_scores(batch)

    def on_validation_epoch_end(self) -> None:
        """Log loss and accuracy over videos."""
        self._log_scores("val")

    def on_test_epoch_start(self) -> None:
        """Make empty scores of all videos; describe the data, unless a checkpoint did."""
        datamodule = self._datamodule()
        if self.description is None and datamodule is not None:
            self.description = datamodule.describe()
        self.scores = self._empty_scores(self.trainer.test_dataloaders)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch of views to the scores of their videos."""
        self._add_scores(batch)

    def on_test_epoch_end(self) -> None:
        """Log loss and accuracy over videos; :class:`TestReport` writes them."""
        self.test_results = self._log_scores("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add class names and preprocessing, for prediction."""
        checkpoint["vidpool"] = self.description

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network, of other classes, or of an average of weights.

        In evaluation the labels of the data are matched to the checkpoint's classes by name.

        Raises:
            CheckpointError: The checkpoint does not fit; the message gives the difference and how
                to fine-tune.
        """
        saved = checkpoint.get("hyper_parameters", {})
        resumes = self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING
        checks.check_network(saved, self.hparams, resumes)
        if resumes and checkpoint.get("optimizer_states"):  # without, Lightning refuses it
            groups = checkpoint["optimizer_states"][0]["param_groups"]
            new = self._new_optimizer().param_groups
            checks.check_parameter_groups(groups, new, saved, self.hparams)
        if resumes:
            checks.check_averaging(checkpoint, self.trainer)
        found = checkpoint.get("vidpool")
        datamodule = None if self._trainer is None else self._datamodule()
        if found and datamodule is not None and not resumes:
            datamodule.use_classes(found["class_names"])
            self.description = datamodule.describe()
        elif self.description and found:
            checks.check_class_names(found["class_names"], self.description["class_names"])
        self.description = self.description or found

    def _match_network(self, clip: Tensor) -> Tensor:
        """Return clips in the shape, dtype and memory format that the network takes."""
        dtype = next(self.model.parameters()).dtype  # of Lightning's bf16-true and 64-true
        if self.is_image_model:
            if clip.shape[2] != 1:
                raise ConfigError(
                    f"model.backbone {self.hparams['backbone']} takes pictures, not clips of "
                    f"{clip.shape[2]} frames: train it on vidpool.data.datasets.image_folder."
                    "ImageFolderDataModule, or with data.frames 1"
                )
            clip = clip.squeeze(2)
        return clip.to(dtype=dtype, memory_format=self.memory_format)

    def _datamodule(self) -> VideoDataModule | None:
        datamodule = getattr(self.trainer, "datamodule", None)
        return datamodule if isinstance(datamodule, VideoDataModule) else None

    def _empty_scores(self, loader: Any) -> metrics.VideoScores:
        videos, classes = len(loader.dataset.videos), self.hparams["num_classes"]
        # float32, but for Lightning's 64-true
        precision = torch.promote_types(next(self.model.parameters()).dtype, torch.float32)
        return metrics.VideoScores(videos, classes, precision).to(self.device)

    def _new_optimizer(self) -> torch.optim.Optimizer:
        h = self.hparams
        settings = h["optimizer"], h["lr"], h["momentum"], h["weight_decay"]
        return optim.make_optimizer(self.model, *settings, self.lr_scales)

    def _add_scores(self, batch: Batch) -> None:
        self.scores.update(self(batch["clip"]), batch["label"], batch["video"], batch["counted"])

    def _log_scores(self, stage: str) -> tuple[Tensor, Tensor, dict[str, float]]:
        """Log the metrics of the videos seen; return their mean scores, labels and metrics."""
        scores, labels = self.scores.mean_scores()
        loss = metrics.negative_log_likelihood(scores, labels)
        values = {"loss": loss, **metrics.accuracies(scores, labels)}
        for name, value in values.items():
            # every rank has the same value, computed from the scores of all
            self.log(f"{stage}/{name}", value, prog_bar=name == "top1", sync_dist=True)
        return scores, labels, {name: float(value) for name, value in values.items()}
