"""The data section of recipes, for the verbs that need nothing else of them."""

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from vidpool.cli.datamodules import VideoDataModule
from vidpool.cli.recipes import OPTIONS, expand_bases
from vidpool.cli.yaml_texts import read_all_names
from vidpool.errors import ConfigError

HELP = "`--config FILE` and `--data.OPTION VALUE` as `vidpool fit` takes them"


def parse_data(verb: str, arguments: list[str]) -> Namespace:
    """Parse ``--config FILE`` and ``--data.option VALUE``; what is not the data's is passed over.

    Returns:
        ``class_path`` and, with all defaults, ``init_args``.

    Raises:
        ConfigError: A file is missing or wrong, or names no datamodule.
    """
    return _parse(verb, arguments)[1].data


def make_datamodule(verb: str, arguments: list[str]) -> VideoDataModule:
    """Make the datamodule that :func:`parse_data` finds.

    Raises:
        ConfigError: As :func:`parse_data`; or a setting cannot work.
        DataError: The data are not where the settings say.
    """
    parser, settings = _parse(verb, arguments)
    return parser.instantiate(settings).data


def _parse(verb: str, arguments: list[str]) -> tuple[ArgumentParser, Namespace]:
    read_all_names()
    parser = ArgumentParser(
        prog=f"vidpool {verb}", usage=f"vidpool {verb} --config FILE [--data.OPTION VALUE]..."
    )
    parser.add_argument("--config", "-c", action=ActionConfigFile)
    parser.add_subclass_arguments(VideoDataModule, "data")
    missing = ConfigError(f"vidpool {verb} needs --config FILE with a section `data`")
    # without a class to choose by, jsonargparse's own words would be about abstract classes
    if not any(argument.partition("=")[0] in (*OPTIONS, "--data") for argument in arguments):
        raise missing
    settings = parser.parse_args(expand_bases(arguments, section="data"))
    if settings.get("data") is None:
        raise missing
    return parser, settings
