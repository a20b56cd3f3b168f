"""What a checkpoint has for every framework: its numbers, the user's code, and the data to rebuild the trial.

From these and the run's input follows the plan of a run: where it continues from, and its schedule. Each
purpose of randomness has its own seed, derived from the trial's.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import importlib
import importlib.util
import json
import logging
import os
import random
import shutil
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from determined._contract.checkpoints import METADATA_FILE
from determined._contract.errors import CheckpointError, InvalidTrialError
from determined._contract.records import Stage
from determined._contract.run_info import is_home
from determined._trial.context import sampled
from determined._trial.loop import Position, SavePolicy
from determined._trial.schedule import Schedule, Units, configured, milestones
from determined._trial.validation import is_enabled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from determined._contract.run_info import Length, RunInfo
    from determined._run.run import Run

TRIAL_STATE_FILE = "trial_state.json"
LOAD_DATA_FILE = "load_data.json"
CODE_DIR = "code"
_Trial = TypeVar("_Trial")
_LOG = logging.getLogger(__name__)
_NO_CODE = ("__pycache__", "*.py[co]", "*$py.class", ".git", ".vscode", ".idea", ".mypy_cache", ".venv")
_LIMIT = 95 << 20  # bytes: Determined's limit for a context; a larger one contains data
_NUMPY_SEEDS = 1 << 32


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialState:
    """The numbers of a checkpoint."""

    trial_id: int
    steps_completed: int
    epochs_completed: int
    validated: int | None
    data_seed: int  # of the order of the training data

    @property
    def position(self) -> Position:
        return Position(self.steps_completed, self.validated)


def write_numbers(directory: Path, numbers: TrialState) -> None:
    _write_json(directory / TRIAL_STATE_FILE, asdict(numbers))


def read_numbers(directory: Path) -> TrialState:
    """Read the numbers of a checkpoint.

    Raises:
        CheckpointError: unreadable.
    """
    path = directory / TRIAL_STATE_FILE
    try:
        return TrialState(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}", hint="resume from a checkpoint that detbuild wrote"
        ) from error


def write_code(
    directory: Path, info: RunInfo, trial_class: type, *, trial_type: str, is_trainer: bool = False
) -> None:
    """Write the data to rebuild the trial elsewhere: its code, hyperparameters and config."""
    described = {
        "trial_type": trial_type,
        "experiment_config": dict(info.config),
        "hparams": dict(info.hparams),
        "trial_cls_spec": f"{trial_class.__module__}:{trial_class.__qualname__}",
        "is_trainer": is_trainer,
    }
    _write_json(directory / LOAD_DATA_FILE, described)
    copy_code(Path(info.context_dir), directory / CODE_DIR, (Path(info.checkpoint_dir), Path(info.run_dir)))


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, default=str), encoding="utf-8")


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


def copy_code(context_dir: Path, target: Path, storage: Iterable[Path]) -> None:
    """Copy a context without caches, `storage` and detbuild homes; skip one that is mostly data.

    Args:
        context_dir: the user's files.
        target: of the copy; not created if nothing is copied.
        storage: directories that may lie inside the context and would be copied into themselves.
    """
    apart = {path.resolve() for path in (*storage, target)}
    files = list(_files(context_dir.resolve(), apart))
    size = sum(path.lstat().st_size for path in files)
    if size > _LIMIT:
        _warn_once(str(context_dir), size >> 20)
        return
    for path in files:
        copy = target / path.relative_to(context_dir.resolve())
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy, follow_symlinks=False)


def _files(root: Path, apart: set[Path]) -> Iterator[Path]:
    for parent, names, files in os.walk(root):
        here = Path(parent)
        names[:] = [name for name in names if _is_code(name) and here / name not in apart]
        names[:] = [name for name in names if not is_home(here / name)]
        links = (here / name for name in names if (here / name).is_symlink())
        found = (here / name for name in files if _is_code(name))
        yield from (path for path in (*links, *found) if path.is_symlink() or path.is_file())


def _is_code(name: str) -> bool:
    return not any(fnmatch.fnmatchcase(name, pattern) for pattern in _NO_CODE)


@cache
def _warn_once(directory: str, megabytes: int) -> None:
    _LOG.warning("checkpoints contain no copy of the code: %s is too large (%d MB)", directory, megabytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a run continues from."""

    directory: Path | None = None
    uuid: str | None = None
    numbers: TrialState | None = None  # None: only the weights are loaded, and counters start at 0

    @property
    def position(self) -> Position:
        return self.numbers.position if self.numbers else Position()


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The plan of one run of a trial; its schedule depends on the length of an epoch."""

    schedule: Callable[[Units], Schedule]
    policy: SavePolicy
    seed: int  # of the data, unless the checkpoint has another one
    is_trainer: bool = False
    test_mode: bool = False  # validate one batch only
    preflight: bool = False  # validate one batch before training


def open_source(run: Run) -> Source:
    """Find the checkpoint to resume from."""
    if not run.info.checkpoints:
        return Source()
    run.enter(Stage.RESTORE)
    found = run.open_checkpoint()
    if found is None:
        return Source()
    directory, uuid = found
    return Source(
        directory=directory, uuid=uuid, numbers=None if run.info.warm_start else read_numbers(directory)
    )


def plan_of(info: RunInfo) -> Plan:
    """Return the plan for the experiment config."""
    if info.test_mode:
        policy = SavePolicy.configured(info.config)
        return Plan(schedule=_one_batch, policy=policy, seed=info.trial_seed, test_mode=True)
    length = info.max_length
    if length is None:
        raise InvalidTrialError(
            "the experiment config does not say how long to train",
            hint="set searcher.max_length, e.g. {epochs: 10}",
        )
    policy = SavePolicy.configured(info.config)
    return Plan(
        schedule=lambda units: _asked_for(info, length, units),
        policy=policy,
        seed=info.trial_seed,
        preflight=is_enabled(info.config),
    )


def _asked_for(info: RunInfo, length: Length, units: Units) -> Schedule:
    base = configured(info.config, length, units)
    return replace(base, validation=base.validation.joined(milestones(info, units)))


def _one_batch(_: Units) -> Schedule:
    return Schedule(max_length=1)


def derive(seed: int, *purpose: object) -> int:
    """Return a seed below 2**63, unique to the arguments."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_python(seed: int) -> None:
    """Seed the global generators of Python and, if installed, of numpy."""
    random.seed(seed)
    if importlib.util.find_spec("numpy") is not None:
        import numpy as np

        np.random.seed(seed % _NUMPY_SEEDS)  # noqa: NPY002  (user code draws from this generator)
