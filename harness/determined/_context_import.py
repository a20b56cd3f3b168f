"""Makes the context directory importable, both as the root of plain modules and as a package.

Code written for Determined imports its siblings absolutely (`import net`). Determined's documentation treats
the directory as a package, with relative imports (`from .net import Net`) and the directory's name as a
prefix. Here both give the same module: it has its plain name, its relative imports start at our own package,
and a name in that package is an alias of the plain one.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

PACKAGE = "determined_context"  # the context directory as a package, whatever the directory is called
_IN_PACKAGE = f"{PACKAGE}."


class ContextSpec(ModuleSpec):
    """The spec of a module of the context; its type identifies such modules."""

    @property
    def parent(self) -> str:
        """Return the package at which relative imports start."""
        plain = super().parent or ""
        if plain == PACKAGE or plain.startswith(_IN_PACKAGE):
            return plain
        return f"{_IN_PACKAGE}{plain}" if plain else PACKAGE


class ContextFinder(MetaPathFinder):
    """Finds modules of the context before all others. First on `sys.meta_path`.

    Args:
        root: the context directory.
        hidden: a top-level module named `PACKAGE.<hidden>` only, because another module has its plain name.
    """

    def __init__(self, root: Path, hidden: str) -> None:
        self.root = str(root)
        self._hidden = hidden

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del target
        if fullname == PACKAGE:
            return self._package()
        if path is None:
            return self._top_level(fullname)
        parent, _, last = fullname.rpartition(".")
        holder = sys.modules[parent]
        spec = PathFinder.find_spec(fullname, path) if is_of_context(holder) else None
        if spec is None:
            return None
        own_name = self._own_name(holder.__name__, last)
        return _own(spec) if own_name == fullname else _alias(fullname, own_name)

    def _own_name(self, parent: str, name: str) -> str:
        """Return a module's canonical name: modules of the root have plain names."""
        return name if parent == PACKAGE and name != self._hidden else f"{parent}.{name}"

    def _package(self) -> ModuleSpec | None:
        init = Path(self.root) / "__init__.py"
        if init.is_file():
            return _own(spec_from_file_location(PACKAGE, init, submodule_search_locations=[self.root]))
        spec = ContextSpec(PACKAGE, None, is_package=True)
        spec.submodule_search_locations = [self.root]
        return spec

    def _top_level(self, name: str) -> ModuleSpec | None:
        elsewhere = [entry for entry in sys.path if entry != self.root]
        if name == self._hidden:
            return PathFinder.find_spec(name, elsewhere)
        if name in sys.builtin_module_names:
            return None
        spec = PathFinder.find_spec(name, [self.root])
        # A directory without `__init__.py`, e.g. of data, must not hide an installed package.
        if spec and spec.origin is None and PathFinder.find_spec(name, elsewhere):
            return None
        return _own(spec) if spec else None


class ContextNameFinder(MetaPathFinder):
    """Finds the context under its directory's name, unless another module has it. Last on `sys.meta_path`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        return _alias(fullname, PACKAGE) if fullname == self._name else None


class _Alias(Loader):
    """Loads the module of another name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        del spec
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has just replaced it by the alias's spec


def _alias(name: str, other: str) -> ModuleSpec:
    return ModuleSpec(name, _Alias(other))


def is_of_context(module: ModuleType) -> bool:
    return isinstance(getattr(module, "__spec__", None), ContextSpec)


def open_context(root: Path, name: str, *, hidden: str = "") -> None:
    """Make `root` the context of this process, and drop the modules of an earlier one, siblings too."""
    close_context()
    sys.path.insert(0, str(root))
    sys.meta_path.insert(0, ContextFinder(root, hidden))
    if name.isidentifier():
        sys.meta_path.append(ContextNameFinder(name))
    importlib.invalidate_caches()


def close_context() -> None:
    """Drop the context of this process, if it has one."""
    for finder in [each for each in sys.meta_path if isinstance(each, (ContextFinder, ContextNameFinder))]:
        sys.meta_path.remove(finder)
        if isinstance(finder, ContextFinder) and finder.root in sys.path:
            sys.path.remove(finder.root)
    for name, module in list(sys.modules.items()):
        if is_of_context(module):
            del sys.modules[name]


def _own(spec: ModuleSpec | None) -> ModuleSpec | None:
    """Convert the import system's spec to a `ContextSpec`: only the parent differs."""
    if spec is not None:
        spec.__class__ = ContextSpec
    return spec
