"""Imports the trial class of an entrypoint from the context directory.

Two forms are supported. In practice: `module:Class`, with the module relative to the context directory.
As documented: with the directory's name as a prefix, and no module for the directory itself.
"""

from __future__ import annotations

import importlib
import re
import sys
from importlib.machinery import PathFinder, all_suffixes
from typing import TYPE_CHECKING

from determined import _load_errors
from determined._context_import import PACKAGE, open_context
from determined._errors import HarnessError, InvalidHP, LoadError
from determined._transient import is_transient
from determined._trial import Trial
from determined._user_code import python_files

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


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
        raise _load_errors.names_a_file(entrypoint)
    if not all(map(str.isidentifier, names.split("."))):
        raise _load_errors.names_no_class(entrypoint)
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
    raise _load_errors.no_such_module(module, root)


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
        raise _load_errors.failed_import(error, root) from error


def _trial_class(module: ModuleType, names: tuple[str, ...], entrypoint: str) -> type:
    found: object = module
    for name in names:
        if not hasattr(found, name):
            raise _load_errors.no_such_name(found, name, module)
        found = getattr(found, name)
    if not isinstance(found, type):
        raise _load_errors.not_a_class(entrypoint, found)
    if not issubclass(found, Trial):
        raise _load_errors.not_a_trial(entrypoint, found)
    return found
