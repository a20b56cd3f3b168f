"""Submits experiments from Python, and trains a trial class in this process.

`create` runs the script or notebook that calls it again in the container, up to this call, so that the class
is the one that the caller has. `create_experiment` needs no class: it takes a config and a directory, as
`detbuild create` does.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.api import config as configs
from detbuild.api import submission
from detbuild.errors import CanceledError, ConfigError, ExperimentError
from detbuild.events import Event, RunRecord
from detbuild.sdk import host
from determined._contract.errors import InvalidTrialError
from determined._contract.records import Stage, StageEntered
from determined._contract.run_info import ExitCode, RunInfo
from determined._trial.context import Trial
from determined._trial.frameworks import runner_of
from determined.exec.worker import run_trial
from determined.experimental._say import LOG, logged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from detbuild.api.config import ExperimentConfig
    from detbuild.store.state import ExperimentState
    from determined._run.outcome import Outcome

Config = Mapping[str, object] | str | Path

_RUN_AGAIN = ("python3", "-m", "determined.experimental.script")
_SCRIPT_OF_NOTEBOOK = "__detbuild_notebook__.py"
_NO_EFFECT_HERE = ("bind_mounts", "checkpoint_storage", "environment", "resources")  # in the caller's process
_FAILED = {
    Stage.IMPORT: "importing the trial",
    Stage.BUILD: "creating the trial",
    Stage.RESTORE: "restoring the checkpoint",
    Stage.TRAIN: "training",
    Stage.VALIDATE: "validating",
    Stage.CHECKPOINT: "saving a checkpoint",
    None: "starting the trial",
}
_STAGES = {
    Stage.IMPORT: "Importing the trial",
    Stage.BUILD: "Creating the trial",
    Stage.TRAIN: "Training one batch",
    Stage.VALIDATE: "Validating one batch",
    Stage.CHECKPOINT: "Saving a checkpoint",
    Stage.RESTORE: "Restoring the checkpoint",
}
# Cell magics with a body of Python code, unlike `%%bash` or `%%html`.
_PYTHON_MAGICS = frozenset({"time", "timeit", "capture", "prun"})
_CELL_MAGIC = re.compile(r"\s*%%(\w+)")
_NOT_PYTHON = re.compile(
    r"""^(?P<indent>\s*)(?:
        !|%(?=[A-Za-z])                     # !pip install ..., %matplotlib inline
      | \?                                  # ?name
      | [\w.,\s]*=\s*(?:!|%(?=[A-Za-z]))    # files = !ls
      | [\w.]+\?{1,2}\s*$                   # name?
    )""",
    re.VERBOSE,
)


def create(
    trial_def: type,
    config: Config | None,
    *,
    local: bool,
    test: bool,
    context_dir: str | Path,
    command: Sequence[str] | None,
    template: str | None,
) -> int | None:
    """Train a trial class, in a container or in this process, as `determined.experimental.create` tells."""
    templates = () if template is None else (template,)
    with logged(), host.explained():
        if local:
            return _train_here(trial_def, config, Path(context_dir or "."), test=test, templates=templates)
        return _submit_trial(trial_def, config, context_dir, command=command, test=test, templates=templates)


def create_trial_instance(
    trial_def: type, directory: Path, config: Config | None, hparams: Mapping[str, object] | None
) -> object:
    """Create a trial as a run would, outside of any run."""
    with host.explained():
        runner = sys.modules[runner_of(trial_def).__module__]  # it also makes the context of a trial
        parsed, _ = _config_here(config, test=False)
        seed = parsed.reproducibility.experiment_seed or 0
        directory.mkdir(parents=True, exist_ok=True)
        info = RunInfo(
            experiment_id=0,
            trial_id=0,
            run=0,
            trial_seed=seed,
            slots=parsed.resources.slots_per_trial,
            entrypoint="",
            run_dir=str(directory),
            context_dir=str(Path.cwd()),
            context_name=Path.cwd().name,
            checkpoint_dir=str(directory),
            hparams=configs.sampled(parsed, seed) if hparams is None else hparams,
            config=parsed.resolved(),
        )
        trial: object = trial_def(runner.context_of(info))
        return trial


def create_experiment(
    config: Config, model_dir: str | Path, includes: Iterable[str | Path], template: str | None
) -> int:
    """Build an image of a directory and submit; return the experiment's ID."""
    if not model_dir:
        raise ConfigError("model_dir is required", hint='pass the directory of your code, e.g. model_dir="."')
    client, templates = host.client(), () if template is None else (template,)
    parsed, text = configs.read_config(config, below=configs.layers(client, templates))
    paths = [Path(path) for path in includes]
    request = submission.request_parsed(parsed, text, Path(model_dir), host=client, includes=paths)
    return submission.submit(client, request, host.lines_view())


def _submit_trial(
    trial_class: type,
    config: Config | None,
    context_dir: str | Path,
    *,
    command: Sequence[str] | None,
    test: bool,
    templates: Sequence[str],
) -> int:
    """Build the image and submit; return the experiment's ID, for a test after it has ended."""
    _check(trial_class, context_dir)
    client, emit = host.client(), host.lines_view()
    directory, below = Path(context_dir), configs.layers(client, templates)
    with reach(trial_class, directory, command) as way:
        parsed, text = _config_of_trial(config, way.entrypoint, below)
        request = submission.request_parsed(
            parsed, text, directory, host=client, includes=way.includes, test_mode=test
        )
        id_ = submission.submit(client, request, emit)
        if test:
            try:
                _raise_failed_test(client.experiment(id_).follow(emit))
            except KeyboardInterrupt:
                LOG.info("detached; experiment %s keeps running: `detbuild logs %s -f`", id_, id_)
                raise
    return id_


def _check(trial_class: object, context_dir: str | Path) -> None:
    if not isinstance(trial_class, type) or not issubclass(trial_class, Trial):
        raise ConfigError(
            f"trial_def is {trial_class!r}, not a trial class",
            hint="derive it from determined.pytorch.PyTorchTrial or determined.keras.TFKerasTrial",
        )
    if not context_dir:
        raise ConfigError(
            "context_dir is required when local is False",
            hint='pass the directory of your code, e.g. context_dir="."',
        )


def _raise_failed_test(state: ExperimentState) -> None:
    if state.state == "CANCELED":
        raise CanceledError(f"experiment {state.header.id} was canceled")
    if state.state == "ERROR":
        raise ExperimentError(
            f"the test of experiment {state.header.id} failed: {state.why}",
            hint=f"see `detbuild logs {state.header.id}`",
        )


def _train_here(
    trial_class: type, config: Config | None, context_dir: Path, *, test: bool, templates: Sequence[str]
) -> int | None:
    """Train in this process; return the experiment's ID, or None for a test."""
    client = host.client()
    parsed, text = _config_here(config, test=test, below=configs.layers(client, templates, host=False))
    outcomes: list[Outcome] = []

    def run(info: RunInfo) -> int:
        LOG.info("Hyperparameters: %s", dict(info.hparams))
        outcomes.append(run_trial(info, trial_class))
        return outcomes[0].exit_code

    LOG.info("Running a minimal test experiment locally" if test else "Training locally")
    directory = context_dir.resolve()
    request = submission.request_parsed(parsed, text, directory, test_mode=test)
    emit = _log_stage if test else host.log_event
    with _working_in(directory):
        state = submission.run_here(client, request, emit, train=run)
    _raise_failed_run(outcomes[0])
    folder = client.experiment(state.header.id).path
    LOG.info("The %s; its files are in %s", _ending(state.state, test=test), folder)
    return None if test else state.header.id


def _log_stage(event: Event) -> None:
    """Log an event of the minimal loop, with every stage, since it is short."""
    match event:
        case RunRecord(_, _, StageEntered(stage)):
            LOG.info("%s", _STAGES[stage])
        case _:
            host.log_event(event)


@contextmanager
def _working_in(directory: Path) -> Iterator[None]:
    """Let the trial find its files and modules in the context, as in a container."""
    before, path = Path.cwd(), list(sys.path)
    os.chdir(directory)
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = path


def _raise_failed_run(outcome: Outcome) -> None:
    if outcome.exit_code is ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if outcome.ended.reason.failed:
        raise ExperimentError(
            f"{_FAILED[outcome.ended.stage]} failed: {outcome.ended.message}",
            hint=outcome.ended.hint,
        ) from outcome.error


def _ending(state: str, *, test: bool) -> str:
    if state != "COMPLETED":
        return f"experiment is {state}"
    return "test experiment passed" if test else "trial was trained"


def _config_of_trial(
    given: Config | None, entrypoint: str | tuple[str, ...], below: Sequence[configs.Layer]
) -> tuple[ExperimentConfig, str]:
    """Return the config with that entrypoint, merged over `below`, and its original text."""
    if isinstance(given, (str, Path)):
        return configs.read_config(given, below=below, overrides=(f"entrypoint={json.dumps(entrypoint)}",))
    written = entrypoint if isinstance(entrypoint, str) else list(entrypoint)
    return configs.read_config({**(given or {}), "entrypoint": written}, below=below, local=True)


def _config_here(
    given: Config | None, *, test: bool, below: Sequence[configs.Layer] = ()
) -> tuple[ExperimentConfig, str]:
    """Return the config for this process and its original text, and log ignored fields."""
    config, text = configs.read_config(given, below=below, local=True)
    resolved = config.resolved()
    plain = configs.local_config({}).resolved()
    ignored = (*_NO_EFFECT_HERE, "optimizations") if test else _NO_EFFECT_HERE
    for name in ignored:
        if resolved[name] != plain[name]:
            LOG.info("%s is ignored in local mode", name)
    here = {**resolved, **{name: plain[name] for name in ignored}}
    if test:
        here["checkpoint_policy"] = "none"  # there is no search, so the searcher metric need not be reported
    return configs.local_config(here), text


@dataclass(frozen=True, slots=True)
class Reach:
    """How a container gets the trial class: an entrypoint, and files in addition to the context."""

    entrypoint: str | tuple[str, ...]
    includes: tuple[Path, ...] = ()


@contextmanager
def reach(trial_class: type, context_dir: Path, command: Sequence[str] | None) -> Iterator[Reach]:
    """Decide how the container gets the class.

    The script that calls `create`, or the cells of its notebook, run there again. Without a running script of
    the context, e.g. in a shell or a test runner, the class is imported from its module.

    Raises:
        ConfigError: neither the script nor the module is in the context directory.
    """
    if command is None and (cells := _cells_so_far()):
        with _written(cells) as script:
            yield Reach((*_RUN_AGAIN, script.name), (script,))
        return
    argv = list(command) if command is not None else list(sys.argv)
    if argv and argv[0].endswith(".ipynb"):
        with _written(notebook_cells(_found(argv[0], context_dir))) as script:
            yield Reach((*_RUN_AGAIN, script.name, *argv[1:]), (script,))
        return
    inside = _inside(Path(argv[0]), context_dir) if argv and argv[0] else None
    if inside is None and command is not None:
        inside = _inside(context_dir / command[0], context_dir)
    if inside is not None:
        yield Reach((*_RUN_AGAIN, inside, *argv[1:]))
    else:
        yield Reach(_module_entrypoint(trial_class, context_dir, argv))


def _cells_so_far() -> list[str]:
    """Return the cells that this notebook or IPython shell has run, the current one last; empty elsewhere."""
    main: Mapping[str, object] = vars(sys.modules["__main__"])
    cells = main.get("In")
    if "get_ipython" not in main or not isinstance(cells, list):
        return []
    return [str(cell) for cell in cells]


@contextmanager
def _written(cells: Sequence[str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="detbuild-notebook-") as directory:
        script = Path(directory, _SCRIPT_OF_NOTEBOOK)
        script.write_text(script_of(cells), encoding="utf-8")
        yield script


def _found(name: str, context_dir: Path) -> Path:
    """Resolve a relative name in the working directory, then in the context."""
    return Path(name) if Path(name).is_file() else context_dir / name


def _inside(path: Path, context_dir: Path) -> str | None:
    """Return the file's path in the context; None if it is outside."""
    resolved, root = path.resolve(), context_dir.resolve()
    if resolved.is_file() and resolved.is_relative_to(root):
        return resolved.relative_to(root).as_posix()
    return None


def _module_entrypoint(trial_class: type, context_dir: Path, argv: Sequence[str]) -> str:
    module = sys.modules.get(trial_class.__module__)
    file = _inside(Path(getattr(module, "__file__", None) or "/"), context_dir)
    if file is None or trial_class.__module__ == "__main__" or "<locals>" in trial_class.__qualname__:
        what = argv[0] if argv and argv[0] else "the code that calls create"
        raise ConfigError(
            f"{what} is not in the context directory {context_dir}, so it cannot run again in the container",
            hint="pass a `context_dir` that contains it, or `command=[script, argument...]`",
        )
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return f"{name}:{trial_class.__qualname__}"


def notebook_cells(path: Path) -> list[str]:
    """Read the code cells of an .ipynb file."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidTrialError(f"{path} is not a notebook: {error}", hint="pass an .ipynb file") from error


def script_of(cells: Iterable[str]) -> str:
    """Return the cells as one script; magics and shell commands become `pass`, so that blocks stay valid."""
    return "\n\n".join(cell for cell in map(_python_of, cells) if cell.strip()) + "\n"


def _python_of(cell: str) -> str:
    magic = _CELL_MAGIC.match(cell)
    if magic is None:
        return cell if _compiles(cell) else "\n".join(_line_of_cell(line) for line in cell.splitlines())
    if magic[1] not in _PYTHON_MAGICS:
        return ""
    return _python_of(cell[magic.end() :].partition("\n")[2])


def _compiles(cell: str) -> bool:
    """Whether it is valid Python: an apparent magic is then part of a string or an expression."""
    try:
        compile(cell, "<cell>", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


def _line_of_cell(line: str) -> str:
    match = _NOT_PYTHON.match(line)
    return f"{match['indent']}pass  # {line.strip()}" if match else line
