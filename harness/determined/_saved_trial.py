"""The trial of a checkpoint: its description, and its class from the checkpoint's copy of the code."""

from __future__ import annotations

import functools
import importlib
import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from determined._checkpoints import METADATA_FILE
from determined._errors import CheckpointError
from determined._hparams import sampled
from determined._trial_state import CODE_DIR, LOAD_DATA_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_Trial = TypeVar("_Trial")


def described(directory: Path) -> dict[str, Any]:
    """Return `trial_cls_spec`, `hparams` and `experiment_config` of the trial, as far as known.

    Before Determined 0.18 they were in metadata.json, and the class in the config's entrypoint.

    Raises:
        CheckpointError: unreadable files.
    """
    found = {**_read(directory / METADATA_FILE), **_read(directory / LOAD_DATA_FILE)}
    config = found.get("experiment_config") or {}
    hparams = found.get("hparams")
    return {
        "trial_cls_spec": found.get("trial_cls_spec") or _entrypoint(config),
        "hparams": sampled(config.get("hyperparameters")) if hparams is None else hparams,
        "experiment_config": config,
    }


@contextmanager
def trial_class_of(
    directory: Path, spec: str, base: type[_Trial], given: type[_Trial] | None
) -> Iterator[type[_Trial]]:
    """Yield the class of a checkpoint's trial; during the block, the checkpoint's modules are imported first.

    Args:
        directory: the checkpoint.
        spec: `module:Class`, as the checkpoint has it.
        base: its required base class.
        given: a class to use instead; then modules are imported as usual.

    Raises:
        CheckpointError: it cannot be imported, or is not a `base`.
    """
    if given is not None:
        yield given
        return
    with importing_from(directory / CODE_DIR, spec.partition(":")[0]):
        yield _class_of(directory, spec, base)


@contextmanager
def importing_from(code: Path, module: str) -> Iterator[None]:
    """Import the checkpoint's own modules first during the block; restore other modules afterwards."""
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


def _class_of(directory: Path, spec: str, base: type[_Trial]) -> type[_Trial]:
    module, _, name = spec.partition(":")
    hint = "pass trial_class="
    if not module:
        raise CheckpointError(f"{directory} does not name its trial class", hint=hint)
    if module == "__main__":
        raise CheckpointError(f"the trial class {name} was defined in the script that was run", hint=hint)
    try:
        found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise CheckpointError(f"the trial class {spec} cannot be imported: {error}", hint=hint) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise CheckpointError(f"{spec} is not a {base.__name__}", hint=hint)
    return found


def _entrypoint(config: Mapping[str, Any]) -> str:
    entrypoint = config.get("entrypoint")
    return entrypoint if isinstance(entrypoint, str) and ":" in entrypoint else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}", hint="pass the directory of a complete checkpoint"
        ) from error
    return found if isinstance(found, dict) else {}
