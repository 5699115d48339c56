r"""YAML with names that are not UTF-8: PyYAML writes ``"\uDCE9"``, but libyaml does not read it."""

import re
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

_SURROGATE = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")
_load_other = get_loader("yaml")


def load_yaml(text: str) -> Any:
    """Return the values of a YAML text, in which lone surrogates may stand, escaped or not.

    Raises:
        yaml.YAMLError: The text is not valid YAML.
    """
    return yaml.load(text, _Loader if _SURROGATE.search(text) else yaml.SafeLoader)


def read_all_names() -> None:
    """Make jsonargparse read values and config files with names that are not UTF-8, too."""
    set_loader("yaml", _load, (yaml.YAMLError,))


def _load(text: str) -> Any:
    return load_yaml(text) if _SURROGATE.search(text) else _load_other(text)


class _Loader(yaml.SafeLoader):
    """PyYAML's loader in Python, to which 1e-3 is a number, as it is to jsonargparse's."""

    def check_printable(self, data: str) -> None:
        """Refuse characters that YAML does not allow, but for surrogates."""
        super().check_printable(re.sub("[\ud800-\udfff]", "", data))


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)
