"""Finds the trial class that an entrypoint names, in the context directory.

Two rules are held at once. The practised one: `module:Class`, the module relative to the context directory.
The documented one: the directory's name in front of it, and no module at all for the directory itself.
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
    """Import the module from the context and give the class; the context becomes this process's own.

    Args:
        entrypoint: `module:Class`; both sides may have dots.
        context_dir: goes to the front of `sys.path`.
        context_name: what the directory was called where it was submitted; may stand in front of the module.

    Raises:
        LoadError: it cannot be imported, or is not a trial class.
        InvalidHP: raised by user code while it was imported, as is OSError.
    """
    root = context_dir.resolve()
    module_name, names = _split(entrypoint)
    _refuse_own_determined(root)
    plain = _locate(module_name, root, context_name)
    top = plain.partition(".")[0]
    hidden = top if _is_taken(top, root) else ""
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
    """The module's name relative to the root; "" for the directory itself."""
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
    """Whether a file is there for it; a directory without `__init__.py` may lead to it, but is none."""
    *folders, last = module.split(".")
    base = root.joinpath(*folders, last)
    files = [base.with_name(last + suffix) for suffix in all_suffixes()] if last else []
    return any(file.is_file() for file in [*files, base / "__init__.py"]) and all([*folders, last])


def _is_taken(name: str, root: Path) -> bool:
    """Whether the plain name has to stay with a library: the standard one, or an installed one.

    An installed module gives its name up when other files of the context import theirs by it.
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
    """Drop a module that another place has given this process under the name."""
    for loaded in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
        del sys.modules[loaded]


def _import(name: str, root: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (InvalidHP, HarnessError, MemoryError):
        raise  # these say all themselves
    except (Exception, SystemExit) as error:
        if is_transient(error):
            raise  # it may succeed another time
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
