"""Origins of registered classes and functions: who may replace an entry of a registry."""

from __future__ import annotations

import sys
from functools import partial
from inspect import getsourcefile, unwrap
from typing import Any, NamedTuple

from vidpool.errors import ConfigError


class Place(NamedTuple):
    """A module."""

    module: str
    """Name of the module; `"__main__"` for notebooks and scripts."""
    file: str | None
    """Path of the source file, if it is known."""

    def __str__(self) -> str:
        return f"{self.module} ({self.file})" if self.file else self.module

    def matches(self, other: Place) -> bool:
        """Return whether both are the same module, even if it was loaded under two names."""
        return self.module == other.module or (self.file is not None and self.file == other.file)


class Origin(NamedTuple):
    """The places where a registered class or function was defined and registered.

    Registering again from the same origin replaces the entry: a notebook cell may run again, and a
    file of plugins may be loaded twice. Anything else is an accident and an error.
    """

    definition: Place
    registration: Place

    @classmethod
    def of(cls, entry: Any, depth: int = 1) -> Origin:
        """Return the origin of an entry that is being registered.

        Args:
            entry: A class, a function, or a `functools.partial` of one of them.
            depth: Number of frames between the caller of this method and the place of registration.
        """
        frame = sys._getframe(depth + 1)
        registration = Place(str(frame.f_globals.get("__name__")), frame.f_code.co_filename)
        while isinstance(entry, partial):
            entry = entry.func
        entry = unwrap(entry)
        if not hasattr(entry, "__qualname__"):  # an object with __call__
            entry = type(entry)
        try:
            file = getsourcefile(entry)
        except (OSError, TypeError):  # of `python -c`, built in, or a class of a notebook
            file = None
        return cls(Place(str(entry.__module__), file), registration)

    def check_replaceable_by(self, other: Origin, what: str) -> None:
        """Check that an entry may replace the one of this origin.

        Args:
            other: Origin of the new entry.
            what: Description of the entry, such as `"a model named 'r3d_50'"`.

        Raises:
            ConfigError: If the origins differ.
        """
        if not all(old.matches(new) for old, new in zip(self, other, strict=True)):
            raise ConfigError(
                f"{what} is registered already, by {self.registration}: choose another name",
                argument="name",
            )
