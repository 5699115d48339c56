"""Functions that build models: the arguments they need, and the options they refuse."""

import pytest
from torch import nn

from vidpool.errors import ConfigError
from vidpool.models.builder import ModelBuilder


class Net(nn.Module):
    """Has two keyword-only arguments and one that is no option."""

    def __init__(self, depth=1, *, num_classes: int, width: int = 3):
        super().__init__()
        self.settings = depth, num_classes, width


def typed(*, num_classes: int, **options) -> Net:
    return Net(num_classes=num_classes, **options)


def untyped(**options):
    return Net(**options)


def unresolved(num_classes: int, **options) -> "Missing":  # noqa: F821
    return Net(num_classes=num_classes, **options)


def needs(num_classes, depth):
    return Net(depth, num_classes=num_classes)


def test_options_of_a_class_that_is_returned():
    builder = ModelBuilder("net", typed)
    assert list(builder.options) == ["num_classes", "width"]
    assert builder({"num_classes": 4, "width": 2}).settings == (1, 4, 2)
    with pytest.raises(ConfigError, match="net does not take depth; it takes num_classes, width"):
        builder({"num_classes": 4, "depth": 2})


@pytest.mark.parametrize("function", [untyped, unresolved])
def test_any_option_where_the_class_is_unknown(function):
    builder = ModelBuilder("net", function)
    assert builder({"num_classes": 4, "depth": 2}).settings == (2, 4, 3)
    with pytest.raises(ConfigError, match="net: num_classes must be a whole number, but is '4'"):
        builder({"num_classes": "4"})


def test_an_option_without_a_default_is_named():
    with pytest.raises(ConfigError, match=r"^net needs depth$") as caught:
        ModelBuilder("net", needs)({"num_classes": 4})
    assert caught.value.argument == "depth"
    assert ModelBuilder("net", needs)({"num_classes": 4, "depth": 2}).settings == (2, 4, 3)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda classes: Net(num_classes=classes), "'net': <lambda> does not take num_classes"),
        (lambda num_classes, /: Net(num_classes=num_classes), "does not take num_classes"),
        (
            lambda num_classes, pooling: Net(pooling, num_classes=num_classes),
            "'net' cannot have the option pooling: create_model has",
        ),
        (5, "'net': 5 is no function or class"),
    ],
)
def test_what_cannot_build_is_refused(function, message):
    with pytest.raises(ConfigError, match=message) as caught:
        ModelBuilder("net", function)
    assert caught.value.argument == "builder"
