"""``vidpool fit | validate | test``: Lightning's own command line over VideoClassifier."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from jsonargparse import Namespace
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities import rank_zero_info

from vidpool.cli.arguments import PLUGIN, PLUGIN_HELP
from vidpool.cli.configs import expand_bases, note_settings, read_surrogates
from vidpool.cli.lightning import constructor_errors, instantiate, user_errors
from vidpool.errors import CheckpointError, ConfigError
from vidpool.files import expand_path
from vidpool.models.weights import load_checkpoint
from vidpool.plugins import loaded_plugins
from vidpool.train.callbacks.console import silence_noise
from vidpool.train.classifier import VideoClassifier
from vidpool.train.network import ARCHITECTURE
from vidpool.train.normalization import count_classes
from vidpool.train.run_folder import find_last_checkpoint, find_requeued_run
from vidpool.train.trainer import end_with_parent, make_trainer

DESCRIPTIONS = {
    "fit": "Train a network; --ckpt_path resumes a run.",
    "validate": "Accuracy on the validation videos, one view each.",
    "test": "Accuracy on the test videos, averaged over several views each.",
}
EPILOG = f"{PLUGIN} MODULE or {PLUGIN} FILE.py: {PLUGIN_HELP}."


def main(verb: str, arguments: list[str]) -> int:
    """Run one of Lightning's verbs; see :class:`VidpoolCLI`."""
    # distributed training starts its other processes with this command line
    plugins = (part for plugin in loaded_plugins() for part in (PLUGIN, plugin))
    sys.argv = [sys.argv[0], verb, *plugins, *arguments]
    silence_noise()
    with end_with_parent(), user_errors():
        VidpoolCLI(verb, arguments)
    return 0


def parse_fit(arguments: list[str]) -> "ParsedFit":
    """Parse a command line of ``vidpool fit`` without running it."""
    return ParsedFit("fit", arguments)


class VidpoolCLI(LightningCLI):
    """LightningCLI with vidpool's run folders and defaults.

    Logs, checkpoints and settings go to ``<root>/<name>/<verb>_<n>``, see
    :func:`vidpool.train.make_trainer`.

    Args:
        verb: ``fit``, ``validate`` or ``test``.
        arguments: The command line after the verb.
    """

    def __init__(self, verb: str, arguments: list[str]) -> None:
        self._verb = verb
        read_surrogates()
        super().__init__(
            VideoClassifier,
            pl.LightningDataModule,
            subclass_mode_data=True,
            seed_everything_default=1,
            auto_configure_optimizers=False,
            parser_kwargs={
                verb: {
                    "usage": f"vidpool {verb} [--config FILE]... [--section.option VALUE]...",
                    "description": DESCRIPTIONS[verb],
                    "epilog": EPILOG,
                }
            },
            args=[verb, *expand_bases(arguments)],
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the verb alone: building a parser takes 0.06 s."""
        return {self._verb: LightningCLI.subcommands()[self._verb]}

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add Lightning's groups of options, with those of the trainer last."""
        parser.add_lightning_class_args(self._model_class, "model")
        parser.add_lightning_class_args(self._datamodule_class, "data", subclass_mode=True)
        parser.add_lightning_class_args(self.trainer_class, "trainer")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of the run's folder and of ``last.ckpt``."""
        parser.add_argument("--run.name", default="default", help="Name of the run's folder.")
        parser.add_argument("--run.root", default="runs", help="Where the runs' folders lie.")
        parser.add_argument(
            "--run.save_minutes",
            type=float | None,
            default=15.0,
            help="How often last.ckpt is saved within an epoch; 0 is after every step, null not.",
        )

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        """Link the number of classes to the data in training; evaluation has the checkpoint's."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "fit":
            parser.link_arguments(
                "data", "model.num_classes", compute_fn=_count_classes, apply_on="instantiate"
            )
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse ``args`` without Lightning's warning that ``sys.argv`` differs."""
        self.config = parser.parse_args(args)
        settings = self.config[self.config["subcommand"]]
        note_settings(settings)
        for section, name in ((settings.run, "root"), (settings, "ckpt_path")):
            if section.get(name) is not None:
                section[name] = str(expand_path(section[name]))

    def before_instantiate_classes(self) -> None:
        """Turn errors in constructors of the settings' classes into errors for the user."""
        self.parser.add_instantiator(instantiate, object)

    def _parse_ckpt_path(self) -> None:
        """Resolve ``--ckpt_path`` and apply the settings of the checkpoint.

        Lightning silently lets the checkpoint's settings override the command line, so that a
        resumed run cannot be given another learning rate. Here training keeps the command line's,
        and :meth:`VideoClassifier.on_load_checkpoint` refuses another network; validation and
        testing build the checkpoint's network.
        """
        settings = self.config[self.config["subcommand"]]
        runs = Path(settings["run"]["root"]) / settings["run"]["name"]
        if self.config["subcommand"] == "fit":
            requeued = find_requeued_run(runs, "fit")
            if requeued is not None:
                settings["ckpt_path"] = str(requeued[1])
        if settings.get("ckpt_path") == "last":
            found = find_last_checkpoint(runs)
            rank_zero_info(f"--ckpt_path last: {found or f'no run in {runs} has one yet'}")
            settings["ckpt_path"] = None if found is None else str(found)
        path = settings.get("ckpt_path")
        if path is None:
            if self.config["subcommand"] != "fit":
                raise CheckpointError("--ckpt_path must name the checkpoint to be evaluated")
            return
        checkpoint = load_checkpoint(path)
        if self.config["subcommand"] == "fit" and "optimizer_states" not in checkpoint:
            raise CheckpointError(
                f"{path}: has no state of a training to go on with; start one from its weights "
                "with --model.init_from instead of --ckpt_path"
            )
        saved = checkpoint.get("hyper_parameters", {})
        if self.config["subcommand"] != "fit":
            for name in set(ARCHITECTURE) & saved.keys():
                settings["model"][name] = saved[name]

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Make the trainer with :func:`vidpool.train.make_trainer`."""
        run = self._get(self.config, "run")
        self.trainer_class = partial(make_trainer, **run)
        self.save_config_kwargs["overwrite"] = True  # by a requeued job, in its folder
        with constructor_errors("Lightning cannot run this"):
            return super().instantiate_trainer(**kwargs)


def _count_classes(data: Any) -> int:
    """Return the number of classes of a datamodule.

    Raises:
        ConfigError: The datamodule has neither ``num_classes`` nor ``class_names``.
    """
    count = count_classes(data)
    if count is None:
        raise ConfigError(
            f"{type(data).__name__} needs the attribute num_classes, the number of classes, or "
            "class_names"
        )
    return count


class ParsedFit(VidpoolCLI):
    """A parsed command line of ``vidpool fit``, which is not run."""

    @property
    def settings(self) -> dict[str, Any]:
        """Return all settings, by section."""
        return self.config["fit"].as_dict()

    def datamodule(self) -> pl.LightningDataModule:
        """Make the datamodule of the settings."""
        parser = LightningArgumentParser()
        parser.add_lightning_class_args(pl.LightningDataModule, "data", subclass_mode=True)
        return parser.instantiate_classes(Namespace(data=self.config["fit"]["data"])).data

    def _set_seed(self) -> None:
        """Do not seed anything."""

    def instantiate_classes(self) -> None:
        """Do not make trainer, model and data."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Do not train."""
