"""The trial class of a checkpoint, found again in the copy of the code that the checkpoint carries."""

from __future__ import annotations

import functools
import importlib
import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from determined._errors import CheckpointError
from determined._trial_state import CODE_DIR, LOAD_DATA_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_Trial = TypeVar("_Trial")


def described(directory: Path) -> dict[str, Any]:
    """What a checkpoint says of the trial that wrote it: `load_data.json`."""
    path = directory / LOAD_DATA_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}", mend="name the directory of a checkpoint"
        ) from error
    return found if isinstance(found, dict) else {}


def class_of(directory: Path, spec: str, base: type[_Trial]) -> type[_Trial]:
    """The trial class of a checkpoint, from its copy of the code.

    Args:
        directory: the checkpoint.
        spec: `module:Class`, as the checkpoint has it.
        base: what it has to be derived from.

    Raises:
        CheckpointError: it cannot be imported, or is none.
    """
    module, _, name = spec.partition(":")
    mend = "pass trial_class="
    if module == "__main__":
        raise CheckpointError(f"the trial class {name} was defined in the script that was run", mend=mend)
    try:
        with _importing_from(directory / CODE_DIR, module):
            found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise CheckpointError(f"the trial class {spec} cannot be imported: {error}", mend=mend) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise CheckpointError(f"{spec} is not a {base.__name__}", mend=mend)
    return found


@contextmanager
def _importing_from(code: Path, module: str) -> Iterator[None]:
    """Let the checkpoint's own modules be found first; what was imported before stays as it was."""
    own = {path.stem for path in code.iterdir()} if code.is_dir() else set()
    own.add(module.partition(".")[0])
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in own}
    no_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(code))
    try:
        yield
    finally:
        sys.path.remove(str(code))
        sys.dont_write_bytecode = no_bytecode
        for name in [name for name in sys.modules if name.partition(".")[0] in own]:
            del sys.modules[name]
        sys.modules.update(before)
