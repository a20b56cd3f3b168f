"""`create(local=True)`: the trial in this process, with the folders and records of any run."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.config.hyperparameters import sample
from detbuild.config.sources import template_layers
from detbuild.errors import ExperimentError
from detbuild.experiment import SubmitRequest, run_here, this_host
from detbuild.store.home import Home
from determined._contract.errors import InvalidTrialError
from determined._contract.records import Stage
from determined._contract.run_info import ExitCode, RunInfo, home_of
from determined.exec.worker import run_trial
from determined.experimental import _config
from determined.experimental._log import log_event, log_stage
from determined.experimental._say import LOG

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from determined._run.outcome import Outcome

_FAILED = {
    Stage.IMPORT: "importing the trial",
    Stage.BUILD: "creating the trial",
    Stage.RESTORE: "restoring the checkpoint",
    Stage.TRAIN: "training",
    Stage.VALIDATE: "validating",
    Stage.CHECKPOINT: "saving a checkpoint",
    None: "starting the trial",
}


def train(
    trial_class: type,
    given: _config.Given,
    context_dir: Path,
    *,
    test: bool,
    templates: Sequence[str] = (),
) -> int | None:
    """Train in this process; return the experiment's ID, or None for a test.

    Raises:
        ExperimentError: the trial failed, with its stage.
    """
    home = Home.open(home_of(os.environ))
    config, text = _config.local(given, test=test, below=template_layers(home.path, templates))
    outcomes: list[Outcome] = []

    def run(info: RunInfo) -> int:
        LOG.info("Hyperparameters: %s", dict(info.hparams))
        outcomes.append(run_trial(info, trial_class))
        return outcomes[0].exit_code

    LOG.info("Running a minimal test experiment locally" if test else "Training locally")
    directory = context_dir.resolve()
    request = SubmitRequest(config=config, text=text, context_dir=directory, test_mode=test)
    with _working_in(directory):
        state = run_here(request, this_host(os.environ), home, log_stage if test else log_event, train=run)
    _raise_failure(outcomes[0])
    folder = home.experiment(state.header.id).path
    LOG.info("The %s; its files are in %s", _ending(state.state, test=test), folder)
    return None if test else state.header.id


def _ending(state: str, *, test: bool) -> str:
    if state != "COMPLETED":
        return f"experiment is {state}"
    return "test experiment passed" if test else "trial was trained"


def instance(
    trial_class: type,
    directory: Path,
    given: _config.Given,
    hparams: Mapping[str, object] | None,
) -> object:
    """Create a trial as a run would, outside of any run."""
    module = getattr(trial_class, "_runner", "").partition(":")[0]
    if not module:
        raise InvalidTrialError(
            f"{trial_class.__name__} is not a trial class",
            hint="derive it from PyTorchTrial or TFKerasTrial",
        )
    runner = importlib.import_module(module)
    config, _ = _config.local(given, test=False)
    seed = config.reproducibility.experiment_seed or 0
    directory.mkdir(parents=True, exist_ok=True)
    info = RunInfo(
        experiment_id=0,
        trial_id=0,
        run=0,
        trial_seed=seed,
        slots=config.resources.slots_per_trial,
        entrypoint="",
        run_dir=str(directory),
        context_dir=str(Path.cwd()),
        context_name=Path.cwd().name,
        checkpoint_dir=str(directory),
        hparams=sample(config.hyperparameters, seed) if hparams is None else hparams,
        config=config.resolved(),
    )
    made: object = trial_class(runner.context_of(info))
    return made


def _raise_failure(outcome: Outcome) -> None:
    if outcome.exit_code is ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if outcome.ended.reason.failed:
        raise ExperimentError(
            f"{_FAILED[outcome.ended.stage]} failed: {outcome.ended.message}",
            hint=outcome.ended.hint,
        ) from outcome.error


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
