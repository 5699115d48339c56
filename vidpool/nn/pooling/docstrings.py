"""Docstrings of the pooling layers: each class documents all of its arguments."""

from __future__ import annotations

import inspect
import re


def complete_docstring(cls: type, base: type) -> str | None:
    """Return the docstring of a layer class with the text and the arguments of its base classes.

    A method has one class for each number of dimensions. The class says what it pools, its base
    class describes the method and its own arguments, and `base` documents the arguments that all
    methods share. `help` then shows all arguments of every class.

    Args:
        cls: Class with a docstring of its own.
        base: Class whose sections `Args` and `Raises` hold for all layers; may be the base class of
            `cls`.
    """
    if not cls.__dict__.get("__doc__") or not base.__doc__:  # python -OO removes docstrings
        return None
    own = _sections(cls.__doc__)
    method = _sections(cls.__base__.__doc__ if cls.__base__ else None)
    shared = _sections(base.__doc__)
    description = method.get("", "").partition("\n\n")[2]  # without the summary of the base class
    text = "\n\n".join(filter(None, (own[""], description)))
    arguments: dict[str, str] = {}
    errors: dict[str, str] = {}
    for sections in (shared, own) if cls.__base__ is base else (shared, method, own):
        arguments |= _entries(sections.get("Args", ""))
        for name, entry in _entries(sections.get("Raises", "")).items():
            known = errors.get(name, "").rstrip(".")
            errors[name] = f"{known}; {entry[0].lower()}{entry[1:]}" if known else entry
    for title, entries in (("Args", arguments), ("Raises", errors)):
        text += f"\n\n{title}:"
        text += "".join(f"\n    {name}: {entry}" for name, entry in entries.items())
    if "Examples" in own:
        text += f"\n\nExamples:\n{own['Examples']}"
    return f"{text}\n"


def _sections(docstring: str | None) -> dict[str, str]:
    """Return the sections of a docstring by title; the title of the description is empty."""
    if not docstring:
        return {}
    first, *rest = re.split(r"^(\w+):\n", inspect.cleandoc(docstring), flags=re.M)
    texts = [text.strip("\n") for text in rest[1::2]]
    return {"": first.strip(), **dict(zip(rest[::2], texts, strict=True))}


def _entries(section: str) -> dict[str, str]:
    """Return the entries of a section by name, such as the arguments."""
    parts = re.split(r"^    (\w+): ", section, flags=re.M)[1:]
    texts = [text.strip("\n") for text in parts[1::2]]
    return dict(zip(parts[::2], texts, strict=True))
