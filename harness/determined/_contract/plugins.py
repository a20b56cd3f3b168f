"""Extension points: members that installed packages add by their entry points.

Host and run read them by the same rules. Reading entry points scans all installed distributions, which takes
longer than a listing may, so it is done only for a name that is not built in, and for a list of all.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from importlib.metadata import EntryPoint

_LONGEST: Final = 300  # characters of an error


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A member that a package adds. It is valid unless it has an error."""

    group: str
    name: str
    package: str  # with its version
    value: object = field(default=None, repr=False)  # what the entry point names
    error: str = ""

    @property
    def problem(self) -> str:
        """Say why it is not used; "" if it is valid."""
        return f"{self.package} cannot be used: {self.error}" if self.error else ""


class PluginGroup:
    """The members of one entry point group, each loaded at most once.

    Args:
        name: of the group.
        built_in: names that a package cannot take.
        check: returns why a loaded value is not a valid member of that name, or "".
    """

    def __init__(self, name: str, built_in: Collection[str], check: Callable[[str, object], str]) -> None:
        self.name = name
        self._built_in, self._check = built_in, check
        self._loaded: dict[tuple[str, str, str], Plugin] = {}

    @property
    def loaded(self) -> tuple[Plugin, ...]:
        """The valid members that were loaded so far."""
        if not self._loaded:
            return ()
        return tuple(plugin for plugin in self._loaded.values() if not plugin.error)

    def names(self) -> tuple[str, ...]:
        """Return the names that installed packages add, without loading them."""
        return tuple(sorted({entry.name for entry in self._entries()} - {*self._built_in}))

    def find(self, name: str) -> Plugin | None:
        """Load the member of this name; None if no package has it."""
        found = [entry for entry in self._entries() if entry.name == name]
        if not found or name in self._built_in:
            return None
        if len(found) > 1:
            packages = " and ".join(sorted(map(_package, found)))
            return Plugin(group=self.name, name=name, package=packages, error="uninstall all but one of them")
        return self._load(found[0])

    def all(self) -> Iterator[Plugin]:
        """Load and yield the members of all packages, also those that cannot be used."""
        entries = self._entries()
        for entry in sorted(entries, key=lambda entry: (entry.name, entry.value)):
            if entry.name in self._built_in:
                error = "the name is built in and cannot be overridden"
                yield Plugin(group=self.name, name=entry.name, package=_package(entry), error=error)
        for name in self.names():
            plugin = self.find(name)
            if plugin is not None:
                yield plugin

    def _entries(self) -> tuple[EntryPoint, ...]:
        return _entry_points(self.name, tuple(sys.path))

    def _load(self, entry: EntryPoint) -> Plugin:
        key = (entry.name, entry.value, _package(entry))
        if key not in self._loaded:
            value, error = self._checked(entry)
            self._loaded[key] = Plugin(
                group=self.name, name=entry.name, package=_package(entry), value=value, error=error
            )
        return self._loaded[key]

    def _checked(self, entry: EntryPoint) -> tuple[object, str]:
        """Import what an entry point names; return it, or why it cannot be used."""
        try:
            value: object = entry.load()
            return value, self._check(entry.name, value)
        except (Exception, SystemExit) as error:  # noqa: BLE001  (a package may raise anything; others stay usable)
            return None, f"{type(error).__name__}: {' '.join(str(error).split())[:_LONGEST]}"


@lru_cache(maxsize=16)
def _entry_points(group: str, _path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group on this search path."""
    from importlib.metadata import entry_points  # 60 ms

    return tuple(entry_points(group=group))


def _package(entry: EntryPoint) -> str:
    return f"package {entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"
