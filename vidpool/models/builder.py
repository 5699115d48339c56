"""The functions that build registered models, and checks of their options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

from torch import nn

from vidpool.errors import ConfigError

_EXPECTED: dict[Any, tuple[type, str]] = {
    bool: (bool, "true or false"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
}
"""Accepted class and its description by the annotation of an option; others are not checked."""


class ModelBuilder:
    """A function or class that builds a model, checked to meet the protocol.

    :func:`~vidpool.models.register_model` documents the protocol.

    Args:
        model: Name of the model, for messages.
        function: The function or class.

    Raises:
        ConfigError: If it cannot be called, does not take `num_classes` as a keyword argument, or
            has an option with the name of another argument of `create_model`.
    """

    def __init__(self, model: str, function: Callable[..., nn.Module]) -> None:
        if not callable(function):
            raise ConfigError(f"model {model!r}: {function!r} is no function or class", "builder")
        self.model = model
        self.function = function
        signature = _signature(function)
        parameters = [
            parameter
            for parameter in signature.parameters.values()
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        kinds = {parameter.kind for parameter in signature.parameters.values()}
        self._takes_others = inspect.Parameter.VAR_KEYWORD in kinds
        network = signature.return_annotation
        if self._takes_others and isinstance(network, type) and network is not signature.empty:
            own = _signature(network).parameters.values()
            parameters += [each for each in own if each.kind is each.KEYWORD_ONLY]
            self._takes_others = False
        self.options = {parameter.name: parameter.annotation for parameter in parameters}
        """Annotations of the options by name."""
        reserved = [name for name in ("name", "pooling", "pooling_options") if name in self.options]
        if reserved:
            raise ConfigError(
                f"model {model!r} cannot have the option {' and '.join(reserved)}: create_model "
                "has an argument of that name",
                argument="builder",
            )
        self._required = [each.name for each in parameters if each.default is each.empty]
        if "num_classes" not in self.options and not self._takes_others:
            raise ConfigError(
                f"model {model!r}: {getattr(function, '__name__', function)} does not take "
                "num_classes, the number of logits, as a keyword argument",
                argument="builder",
            )

    def __call__(self, options: Mapping[str, Any]) -> nn.Module:
        """Build the model.

        Args:
            options: Options by name, including `num_classes`.

        Raises:
            ConfigError: If an option is unknown, missing or of the wrong type.
        """
        unknown = sorted(options.keys() - self.options.keys() - {"num_classes"})
        if unknown and not self._takes_others:
            raise ConfigError(
                f"{self.model} does not take {', '.join(unknown)}; it takes "
                f"{', '.join(self.options)}",
                argument=unknown[0],
            )
        for option, value in options.items():
            annotation = int if option == "num_classes" else self.options.get(option)
            cls, expected = _EXPECTED.get(annotation, (object, ""))
            # True is an Integral, but not a number of classes
            if not isinstance(value, cls) or (isinstance(value, bool) and cls in (Integral, Real)):
                raise ConfigError(
                    f"{self.model}: {option} must be {expected}, but is {value!r}", option
                )
        absent = [option for option in self._required if option not in options]
        if absent:
            raise ConfigError(f"{self.model} needs {', '.join(absent)}", absent[0])
        return self.function(**options)


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return a signature with evaluated annotations, or as written if they cannot be evaluated."""
    try:
        return inspect.signature(function, eval_str=True)
    except (NameError, AttributeError, TypeError):
        return inspect.signature(function)
