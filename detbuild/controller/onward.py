"""Takes up again an experiment that has ended or is paused, if need be with another config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from detbuild.config.parse import LOCAL_DEFAULTS, config_from_mapping
from detbuild.controller.attend import resume_one
from detbuild.controller.book import Book
from detbuild.errors import ConfigError
from detbuild.store.submitted import config_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.store.home import Home
    from detbuild.store.state import ExperimentState

# What the trials that there are were made by, or where their checkpoints are.
_FIXED: Final = (
    ("hyperparameters",),
    ("reproducibility",),
    ("checkpoint_storage",),
    ("environment", "image"),
    ("searcher",),
)


def continue_(home: Home, experiment_id: int, overrides: Sequence[str] = ()) -> ExperimentState:
    """Go on with what was not completed; what was trained and reported is kept.

    A trial that failed, was cancelled or is paused runs again from its newest checkpoint, with all of its
    `max_restarts`. The search hears nothing of a trial whose end it knew.

    Args:
        home: Of the experiment.
        experiment_id: Of the experiment.
        overrides: Changes to its config, as `--config` takes them. With a longer `searcher.max_length` the
            trial of a `single` search trains on, completed or not.

    Returns:
        The state in which the experiment was.

    Raises:
        ConfigError: It is going on, there is nothing to go on with, or that cannot be changed any more.
    """
    folder = home.experiment(experiment_id)
    book = Book(folder=folder)
    state = book.state.snapshot()
    if state.header.local:
        raise ConfigError(
            "a local run cannot be continued",
            mend="start it again, with searcher.source_checkpoint_uuid to go on from its weights",
        )
    if not book.state.at_rest:
        raise ConfigError(
            f"experiment {experiment_id} is {state.state}: only what has ended or is paused can be continued",
            mend=f"`detbuild pause {experiment_id}` or `detbuild cancel {experiment_id}` first, and wait",
        )
    before = config_of(folder)
    config = _continued(before, overrides) if overrides else before
    longer = config.searcher.max_length != before.searcher.max_length
    if book.state.over and not longer and all(t.state == "COMPLETED" for t in state.trials.values()):
        raise ConfigError(
            f"all trials of experiment {experiment_id} are completed: there is nothing to continue",
            mend="train longer, for example with --config searcher.max_length.batches=1000",
        )
    folder.inbox().put("continue", config=config.resolved() if overrides else None)
    resume_one(folder)
    return state


def _continued(before: ExperimentConfig, overrides: Sequence[str]) -> ExperimentConfig:
    old = before.resolved()
    config = config_from_mapping(
        old, source="the experiment's config", overrides=overrides, defaults=LOCAL_DEFAULTS
    )
    new = config.resolved()
    for path in _FIXED:
        one, other = _at(old, path), _at(new, path)
        if path == ("searcher",) and before.searcher.name == "single":
            one, other = (
                {**each, "max_length": None} if isinstance(each, dict) else each for each in (one, other)
            )
        if one != other:
            raise ConfigError(
                f"{'.'.join(path)} cannot be changed when an experiment is continued",
                mend="start another experiment; searcher.source_checkpoint_uuid takes the weights along",
            )
    return config


def _at(raw: Mapping[str, object], path: tuple[str, ...]) -> object:
    value: object = raw
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
