"""Imports user code from a directory for a while: `det.import_from_path`."""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


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
