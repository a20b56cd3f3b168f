"""The framework `functional`: a trial is three pure functions over a state that is saved as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from determined.framework import (
    ExitReason,
    InvalidTrialError,
    Loop,
    Position,
    Run,
    Stage,
    Trial,
    TrialState,
    Units,
    open_source,
    plan_of,
    write_code,
    write_numbers,
)

State = dict[str, Any]
Metrics = Mapping[str, object]


class FunctionalTrial(Trial):
    """The base class of users' trials."""

    _runner = "functional"  # the name of the entry point

    def initial(self, hparams: Mapping[str, Any], seed: int) -> State:
        raise NotImplementedError

    def train(self, state: State, batch: int) -> tuple[State, Metrics]:
        raise NotImplementedError

    def validate(self, state: State) -> Metrics:
        raise NotImplementedError


class FunctionalTrainable:
    """The framework's part of a run: it trains, validates and saves when the loop says so."""

    records_trained = 0  # unknown
    stop_requested = False

    def __init__(self, trial: FunctionalTrial, run: Run) -> None:
        self.trial, self.run = trial, run
        self.state = trial.initial(run.info.hparams, run.info.trial_seed)
        self.steps_completed = 0
        self.collected: list[tuple[int, Metrics]] = []

    def train_until(self, reports: Iterator[int], should_stop: Callable[[], bool]) -> None:
        end = next(reports)
        while self.steps_completed < end:
            self.state, metrics = self.trial.train(self.state, self.steps_completed)
            self.steps_completed += 1
            self.collected.append((self.steps_completed, metrics))
            if should_stop():
                return

    def reduce(self) -> Sequence[tuple[int, Metrics]]:
        """Return the mean of each metric since the last report."""
        collected, self.collected = self.collected, []
        if not collected:
            return ()
        names = collected[-1][1]
        means = {name: sum(metrics[name] for _, metrics in collected) / len(collected) for name in names}
        return ((collected[-1][0], means),)

    def evaluate(self) -> Metrics:
        return self.trial.validate(self.state)

    def preflight(self) -> Metrics | None:
        return self.evaluate()  # pure: it leaves nothing to restore

    def save(
        self, directory: Path, position: Position, *, in_background: bool = False, hooks: bool = True
    ) -> None:
        info = self.run.info
        (directory / "state.json").write_text(json.dumps(self.state))
        write_code(directory, info, type(self.trial), trial_type="FunctionalTrial")
        numbers = TrialState(
            trial_id=info.trial_id,
            steps_completed=position.steps_completed,
            epochs_completed=0,
            validated=position.validated,
            data_seed=info.trial_seed,
        )
        write_numbers(directory, numbers)

    def restore(self, directory: Path, position: Position) -> None:
        self.state = json.loads((directory / "state.json").read_text())
        self.steps_completed = position.steps_completed

    def metadata(self) -> Mapping[str, object]:
        return {"framework": "functional"}

    def reported(self, steps_completed: int, metrics: Metrics) -> None: ...

    def prepare_saving(self) -> None: ...

    def saved(self, uuid: str) -> None: ...


def run_trial(trial_class: type[FunctionalTrial], run: Run) -> ExitReason:
    """Build the trial, restore its checkpoint and train it to the end of its schedule."""
    if run.group.size > 1:
        raise InvalidTrialError("a FunctionalTrial runs in one process", hint="set slots_per_trial to 0 or 1")
    source, plan = open_source(run), plan_of(run.info)
    run.enter(Stage.BUILD)
    trainable = FunctionalTrainable(trial_class(), run)
    if source.directory is not None:
        run.enter(Stage.RESTORE)
        trainable.restore(source.directory, source.position)
    schedule = plan.schedule(Units(None, None))  # neither epochs nor records have a length here
    return Loop(trainable, run, schedule, plan.policy, source.position, preflight=plan.preflight).train()
