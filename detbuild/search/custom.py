"""A search by a class of the user's own, on the host: it is asked for trials and told how they do.

```python
class Search:
    def __init__(self, about):  # hyperparameters, metric, smaller_is_better, max_length, seed, options
        ...
    def ask(self):  # the hyperparameters of a new trial; None: no more, for now
        ...
    def tell(self, trial, time, metric):  # a validation; trial.id, trial.hparams; metric None: no number
        ...
    def ended(self, trial, reason):  # optional: completed, errored, invalid_hp, stopped or canceled
        ...
    def adopt(self, trial):  # optional: after a restart, a trial that `ask` gave before
        ...
```

`tell` is called when a trial has trained as long as it should: None ends it, a number greater than `time`
trains it on to that length in total. With `stop_once: true` it hears of every validation, and False stops
the trial.

What it answers is in the journal. After a restart a new object is told everything once more, without effect,
and where it has no `adopt` it is asked again; its answers need not be the same.

The class runs in a process of its own, with the Python of detbuild and as the same user. Of the environment
it gets PATH, HOME, locale, proxies without credentials and what Python needs, and the variables that the
config names. It is no more confined than a script that you start yourself: a stranger's model directory runs
a stranger's code here. What only shows (`render`, `--dry-run`, `preview-search`) does not run it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.decisions import Close, Create, Finish, Stop, Train, TrialEnded, Validated
from detbuild.errors import ConfigError, SearchError
from detbuild.search.hookprocess import HookProcess
from determined._run_info import Length

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from detbuild.config.searcher import Custom
    from detbuild.decisions import Action, SearchEvent
    from detbuild.search.base import Trials


class CustomSearch:
    """Raise ConfigError when there is no hook, no directory to import it from, or no length to train."""

    share = 0.0

    def __init__(
        self,
        trials: Trials,
        config: Custom,
        seed: int,
        *,
        context_dir: Path | None,
        variables: Mapping[str, str],
    ) -> None:
        if config.hook is None or context_dir is None:
            raise ConfigError(
                "searcher: custom needs a class to ask for trials",
                hint="write `hook: module:Class`; the module is imported from the model directory",
            )
        if config.max_length is None:
            raise ConfigError("searcher: custom needs max_length", hint="add `max_length: {batches: 1000}`")
        self._trials, self._config = trials, config
        self._hook = HookProcess(config.hook, _about(trials, config, seed), context_dir, variables)
        self._length: Length = config.max_length
        self._open: dict[int, Create] = {}
        self._ended = 0
        self._finished = False

    @property
    def needs_every_validation(self) -> bool:
        return self._config.stop_once

    @property
    def progress(self) -> float:
        """Of `max_trials`; unknown without."""
        if self._finished:
            return 1.0
        return self._ended / self._config.max_trials if self._config.max_trials else 0.0

    def first(self) -> tuple[Create, Train]:
        """The first trial as far as it is known without running the class: without hyperparameters."""
        create = self._trials.new({})
        return create, Train(trial_id=create.trial_id, length=self._length)

    def decide(self, event: SearchEvent) -> Sequence[Action]:
        """Raise SearchError when the hook fails; the same event may then be tried again."""
        if self._finished or (
            isinstance(event, (Validated, TrialEnded)) and event.trial_id not in self._open
        ):
            return []
        actions = self._answers_to(event)
        actions += self._new_trials(room=len(self._open) - isinstance(event, TrialEnded))
        self._apply(event, actions)
        if not self._open:
            self._finish()
            actions.append(Finish())
        return actions

    def replay(self, event: SearchEvent, actions: Sequence[Action]) -> None:
        """Tell the hook again what it was told, and take what it had answered from the record."""
        if isinstance(event, (Validated, TrialEnded)) and event.trial_id in self._open:
            self._answers_to(event)
        for action in actions:
            if isinstance(action, Create):
                self._trials.new(action.hparams)
                self._hook.call("adopt", trial=_trial(action))
        self._apply(event, actions)
        if any(isinstance(action, Finish) for action in actions):
            self._finish()

    def _apply(self, event: SearchEvent, actions: Sequence[Action]) -> None:
        if isinstance(event, TrialEnded) and event.trial_id in self._open:
            del self._open[event.trial_id]
            self._ended += 1
        self._open.update({action.trial_id: action for action in actions if isinstance(action, Create)})

    def _finish(self) -> None:
        self._finished = True
        self._hook.close()

    def _answers_to(self, event: SearchEvent) -> list[Action]:
        if isinstance(event, TrialEnded):
            self._hook.call("ended", trial=_trial(self._open[event.trial_id]), reason=event.reason.value)
        if not isinstance(event, Validated):
            return []
        trial_id = event.trial_id
        trial = _trial(self._open[trial_id])
        answer = self._hook.call("tell", trial=trial, time=event.time, metric=event.metric)
        if self.needs_every_validation:
            return [Stop(trial_id=trial_id)] if answer is False else []
        if answer is None or answer is False:
            return [Close(trial_id=trial_id)]
        if type(answer) is not int or answer <= event.time:
            raise self._wrong("tell", f"None, or a whole number above {event.time:g}", answer)
        return [Train(trial_id=trial_id, length=Length(self._length.unit, answer))]

    def _new_trials(self, room: int) -> list[Action]:
        """New trials, while there is room and the hook has some."""
        actions: list[Action] = []
        most, together = self._config.max_trials, self._config.max_concurrent_trials
        while (most is None or self._trials.count < most) and (not together or room < together):
            hparams = self._hook.call("ask")
            if hparams is None:
                break
            if not isinstance(hparams, dict):
                raise self._wrong("ask", "None, or a dict of hyperparameters", hparams)
            create = self._trials.new(hparams)
            actions += [create, Train(trial_id=create.trial_id, length=self._length)]
            if self.needs_every_validation:
                actions.append(Close(trial_id=create.trial_id))
            room += 1
        return actions

    def _wrong(self, method: str, expected: str, answer: object) -> SearchError:
        return SearchError(
            f"searcher.hook: {self._hook.target}.{method} must return {expected}, not {answer!r}",
            hint="correct it and continue the experiment: it goes on from its last decision",
        )


def _trial(create: Create) -> dict[str, object]:
    return {"id": create.trial_id, "hparams": create.hparams}


def _about(trials: Trials, config: Custom, seed: int) -> dict[str, object]:
    written = {name: one.model_dump(mode="json") for name, one in trials.hyperparameters.items()}
    return {
        "hyperparameters": written,
        "metric": config.metric,
        "smaller_is_better": config.smaller_is_better,
        "max_length": {config.max_length.unit: config.max_length.count} if config.max_length else None,
        "seed": seed,
        "options": dict(config.options),
    }
