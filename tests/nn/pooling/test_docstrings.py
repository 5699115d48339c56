"""Every layer documents its own arguments, those of its method and the common ones."""

import inspect
import re

import pytest
from torch import nn

import vidpool.nn
from vidpool.nn.pooling.base import PoolLayer

LAYERS = [
    value
    for name, value in vars(vidpool.nn).items()
    if isinstance(value, type) and issubclass(value, PoolLayer)
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)
def test_the_docstring_lists_every_argument(layer):
    documented = re.findall(r"^    (\w+): ", layer.__doc__.split("Raises:")[0], flags=re.M)
    assert documented == list(inspect.signature(layer).parameters)
    assert layer.__doc__.startswith(vars(layer)["__doc__"].split("\n")[0])
    assert "ConfigError: If `return_indices` is set" in layer.__doc__


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)
def test_the_arguments_of_max_pooling_come_first_and_the_others_are_keyword_only(layer):
    parameters = inspect.signature(layer).parameters
    theirs = list(inspect.signature(getattr(nn, f"MaxPool{layer.ndim}d")).parameters)
    assert list(parameters)[: len(theirs)] == theirs
    own = list(parameters.values())[len(theirs) :]
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in own)


def test_text_of_a_method_is_the_same_for_all_dimensions():
    texts = [
        getattr(vidpool.nn, f"LiftPool{ndim}d").__doc__.partition("\n\n")[2] for ndim in (1, 2, 3)
    ]
    assert texts[0] == texts[1] == texts[2]
    assert "dilation: Must be 1." in texts[0]
    assert "`return_indices` is set; if an axis has another stride" in texts[0]


def test_a_subclass_without_a_docstring_gets_none():
    class Own(PoolLayer):
        ndim = 2

    assert vars(Own)["__doc__"] is None
