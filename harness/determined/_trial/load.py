"""Imports the trial class of an entrypoint from the context directory; its errors have hints.

Two forms are supported. In practice: `module:Class`, with the module relative to the context directory.
As documented: with the directory's name as a prefix, and no module for the directory itself.

Code written for Determined imports its siblings absolutely (`import net`). Determined's documentation treats
the directory as a package, with relative imports (`from .net import Net`) and the directory's name as a
prefix. Here both give the same module: it has its plain name, its relative imports start at our own package,
and a name in that package is an alias of the plain one.
"""

from __future__ import annotations

import importlib
import re
import sys
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, all_suffixes
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

from determined._contract import entrypoint as entrypoint_errors
from determined._contract.errors import HarnessError, InvalidHP, LoadError
from determined._contract.hints import DISTRIBUTIONS, here, hint_of, is_transient
from determined._run.outcome import place_of, python_files
from determined._trial.context import Trial

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

PACKAGE = "determined_context"  # the context directory as a package, whatever the directory is called
_IN_PACKAGE = f"{PACKAGE}."


def load_trial_class(entrypoint: str, context_dir: Path, context_name: str) -> type:
    """Import the class; its directory becomes the context of this process.

    Args:
        entrypoint: `module:Class`; both sides may have dots.
        context_dir: first on `sys.path`.
        context_name: the directory's name at submission; may prefix the module.

    Raises:
        LoadError: it cannot be imported, or is not a trial class.
        InvalidHP: from user code during its import, like OSError.
    """
    root = context_dir.resolve()
    module_name, names = _split(entrypoint)
    _refuse_own_determined(root)
    plain = _locate(module_name, root, context_name)
    top = plain.partition(".")[0]
    hidden = top if _is_of_library(top, root) else ""
    open_context(root, context_name, hidden=hidden)
    if not hidden:
        _forget(top)
    target = f"{PACKAGE}.{plain}" if hidden else plain
    module = _import(target or PACKAGE, root)
    return _trial_class(module, names, entrypoint)


def _split(entrypoint: str) -> tuple[str, tuple[str, ...]]:
    module, _, names = entrypoint.partition(":")
    if module.endswith(".py") or "/" in module:
        raise _names_a_file(entrypoint)
    if not all(map(str.isidentifier, names.split("."))):
        raise _load_error(entrypoint_errors.no_class_named(entrypoint))
    return module, tuple(names.split("."))


def _refuse_own_determined(root: Path) -> None:
    for place in ("determined/__init__.py", "determined.py"):
        if (root / place).is_file():
            raise LoadError(
                f"the context directory holds {place}, which hides the Trial API from your code",
                hint="rename it, or add it to .detignore",
            )


def _locate(module: str, root: Path, context_name: str) -> str:
    """Return the module's name relative to the root; "" for the directory itself."""
    if _has_module(root, module):
        return module
    for prefix in (context_name, re.sub(r"\W", "_", context_name)):
        if module in {"", prefix} and _has_module(root, "__init__"):
            return ""
        inner = module.removeprefix(f"{prefix}.")
        if inner != module and _has_module(root, inner):
            return inner
    raise _load_error(entrypoint_errors.no_such_module(module, _modules(root)))


def _has_module(root: Path, module: str) -> bool:
    """Whether the module has a file; a directory without `__init__.py` is not a module."""
    *folders, last = module.split(".")
    base = root.joinpath(*folders, last)
    files = [base.with_name(last + suffix) for suffix in all_suffixes()] if last else []
    return any(file.is_file() for file in [*files, base / "__init__.py"]) and all([*folders, last])


def _is_of_library(name: str, root: Path) -> bool:
    """Whether the plain name belongs to the standard library or an installed one.

    The context's module wins over an installed one if other files of the context import it.
    """
    if name in sys.stdlib_module_names:
        return True
    installed = [entry for entry in sys.path if entry.endswith("-packages")]
    spec = PathFinder.find_spec(name, installed) if name else None
    return spec is not None and spec.origin is not None and not _imported_by_others(name, root)


def _imported_by_others(name: str, root: Path) -> bool:
    words = re.compile(rf"^\s*(from|import)\s+{re.escape(name)}\b", re.MULTILINE)
    others = (root / file for file in python_files(root) if file.stem != name and name not in file.parts)
    return any(words.search(file.read_text(encoding="utf-8", errors="replace")) for file in others)


def _forget(name: str) -> None:
    """Drop a loaded module of this name."""
    for loaded in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
        del sys.modules[loaded]


def _import(name: str, root: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (InvalidHP, HarnessError, MemoryError):
        raise  # these explain themselves
    except (Exception, SystemExit) as error:
        if is_transient(error):
            raise  # a retry may succeed
        raise _failed_import(error, root) from error


def _trial_class(module: ModuleType, names: tuple[str, ...], entrypoint: str) -> type:
    found: object = module
    for name in names:
        if not hasattr(found, name):
            raise _no_such_name(found, name, module)
        found = getattr(found, name)
    if not isinstance(found, type):
        raise _load_error(entrypoint_errors.not_a_class(entrypoint, type(found).__name__))
    if not issubclass(found, Trial):
        raise _not_a_trial(entrypoint, found)
    return found


def _names_a_file(entrypoint: str) -> LoadError:
    module, _, name = entrypoint.partition(":")
    dotted = ".".join(part for part in module.removesuffix(".py").split("/") if part not in {"", "."})
    return LoadError(
        f"the entrypoint `{entrypoint}` is a file; expected a module",
        hint=f"write `{dotted}:{name}`",
    )


def _no_such_name(holder: object, name: str, module: ModuleType) -> LoadError:
    where = getattr(holder, "__qualname__", None) or _plain(module.__name__)
    trials = [each for each, value in vars(module).items() if _is_own_trial(value, module)]
    return _load_error(entrypoint_errors.no_such_name(where, name, names=dir(holder), trials=trials))


def _not_a_trial(entrypoint: str, found: type) -> LoadError:
    bases = ", ".join(base.__name__ for base in found.__bases__)
    return _load_error(entrypoint_errors.not_a_trial(entrypoint, bases))


def _load_error(message: tuple[str, str]) -> LoadError:
    cause, hint = message
    return LoadError(cause, hint=hint)


def _failed_import(error: BaseException, root: Path) -> LoadError:
    """Return the error for what user code raised during its import."""
    place = place_of(error, root)
    where = f"{place}: " if place else ""
    if isinstance(error, SystemExit):
        return LoadError(
            f"{where}the module calls sys.exit during its import",
            hint='move the code of the script under `if __name__ == "__main__":`',
        )
    if isinstance(error, SyntaxError):
        return _syntax_error(error, root)
    text = str(error).replace(f"{PACKAGE}.", "")
    if "partially initialized module" in text:
        return LoadError(
            f"{where}{text}",
            hint="move one of the circular imports into a function",
        )
    if isinstance(error, ModuleNotFoundError):
        return _missing_module(error, where, root)
    hint = "pin its version in requirements.txt: other versions have other names"
    if not isinstance(error, ImportError) or "cannot import name" not in text:
        hint = ""
    return LoadError(f"{where}{type(error).__name__}: {text}", hint=hint_of(error, here()) or hint)


def _syntax_error(error: SyntaxError, root: Path) -> LoadError:
    file = Path(error.filename or "?")
    shown = file.relative_to(root) if file.is_relative_to(root) else file
    line = f": `{error.text.strip()}`" if error.text else ""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return LoadError(
        f"{shown}:{error.lineno}: {error.msg}{line}",
        hint=f"fix it; the code runs on Python {version}",
    )


def _missing_module(error: ModuleNotFoundError, where: str, root: Path) -> LoadError:
    name = _plain(error.name or "")
    top = name.partition(".")[0]
    if top == "determined":
        return LoadError(
            f"{where}detbuild does not support `{name}`",
            hint="use determined.core, determined.pytorch, determined.keras or determined.experimental",
        )
    there = _modules(root)
    inside = [module for module in there if module == name or module.endswith(f".{name}")]
    if inside:
        hint = f"import {entrypoint_errors.listed(inside)}, its name relative to the context directory"
    elif top != name or top in there:
        hint = f"check the name and the version of `{top}`"
    else:
        distribution = DISTRIBUTIONS.get(top, top)
        hint = f"add `{distribution}` to requirements.txt in the context; for a local run, install it"
    return LoadError(f"{where}the module `{name}` is neither installed nor in the context", hint=hint)


def _modules(root: Path) -> list[str]:
    names = (".".join(file.with_suffix("").parts) for file in python_files(root))
    return sorted(name.removesuffix(".__init__") for name in names if name != "__init__")


def _is_own_trial(value: object, module: ModuleType) -> bool:
    return isinstance(value, type) and issubclass(value, Trial) and value.__module__ == module.__name__


def _plain(name: str) -> str:
    return name.removeprefix(f"{PACKAGE}.")


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


@contextmanager
def import_from_path(path: str | Path) -> Iterator[None]:
    """Import modules from the directory first during the block, and drop them afterwards.

    Modules of the same names that were imported before are removed during the block and restored after it. No
    bytecode is written into the directory.
    """
    root = Path(path).resolve()
    names = _top_level_names(root)
    kept = _take_out(names)
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(root))
        sys.dont_write_bytecode = writes_bytecode
        _take_out(names)
        sys.modules.update(kept)


def _top_level_names(root: Path) -> set[str]:
    """Return the importable names. A folder without `__init__.py` does not hide a loaded module."""
    packages = {path.name for path in root.iterdir() if path.is_dir()}
    unloaded = {
        name for name in packages if name not in sys.modules or (root / name / "__init__.py").is_file()
    }
    return unloaded | {path.name.partition(".")[0] for path in root.glob("*.py")}


def _take_out(names: set[str]) -> dict[str, ModuleType]:
    found = [name for name in sys.modules if name.partition(".")[0] in names]
    return {name: sys.modules.pop(name) for name in found}
