"""Custom search: a class of the user, on the host, proposes trials and receives their results.

```python
class Search:
    def __init__(self, about):  # hyperparameters, metric, smaller_is_better, max_length, seed, options
        ...
    def ask(self):  # hyperparameters of a new trial; None: none for now
        ...
    def tell(self, trial, time, metric):  # a validation of trial.id; metric may be None
        ...
    def ended(self, trial, reason):  # optional: completed, errored, invalid_hp, stopped or canceled
        ...
    def adopt(self, trial):  # optional: after a restart, a trial that `ask` returned before
        ...
```

`tell` is called when a trial has trained to its length: None ends the trial, a number above `time` is its
next total length. With `stop_once: true` it is called for every validation, and False stops the trial.

Its answers are recorded in the journal. After a restart a new object receives all calls again and its
answers, which may differ, are ignored; without `adopt`, `ask` is called again too.

The class runs in its own process, with the Python of detbuild and as the same user. Its environment has PATH,
HOME, locale, proxies without credentials, Python's own variables, and those of the config. It is not
sandboxed: an untrusted model directory runs untrusted code on this host. Commands that only show something
(`render`, `--dry-run`, `preview-search`) do not run it.
"""

from __future__ import annotations

import os
import re
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Final

import detbuild
from detbuild.credentials import credentials_in
from detbuild.errors import ConfigError, SearchError
from detbuild.pipe import Child
from detbuild.search.method import Close, Create, Finish, Stop, Train, TrialEnded, Validated
from determined._contract.run_info import Length

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detbuild.config.searcher import Custom
    from detbuild.search.base import Trials
    from detbuild.search.method import Action, SearchEvent

# Environment variables that the hook gets; others may hold credentials under any name.
_ALLOWED: Final = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "LD_LIBRARY_PATH",
        "VIRTUAL_ENV",
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONHASHSEED",
        "PYTHONNOUSERSITE",
        "PYTHONUSERBASE",
        "PYTHONUTF8",
        "PYTHONIOENCODING",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONPYCACHEPREFIX",
        "PYTHONUNBUFFERED",
        "PYTHONWARNINGS",
        "NO_PROXY",
        "no_proxy",
    }
)
_LOCALE: Final = re.compile(r"LC_[A-Z]+")
_PROXY: Final = re.compile(r"(?:HTTP|HTTPS|FTP|ALL)_PROXY", re.IGNORECASE)
ANSWER_TIMEOUT: Final = 300.0  # seconds
_SHOWN: Final = 4  # lines of a traceback


class CustomSearch:
    """A search by the user's class; raises ConfigError without a hook, its directory, or `max_length`."""

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
                "searcher: custom needs a hook",
                hint="add `hook: module:Class`; the module is imported from the model directory",
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
        """Share of `max_trials` that ended; 0 without that limit."""
        if self._finished:
            return 1.0
        return self._ended / self._config.max_trials if self._config.max_trials else 0.0

    def first(self) -> tuple[Create, Train]:
        """Return the first trial without running the class, so without hyperparameters."""
        create = self._trials.new({})
        return create, Train(trial_id=create.trial_id, length=self._length)

    def decide(self, event: SearchEvent) -> Sequence[Action]:
        """Return the actions for an event; raise SearchError if the hook fails (the event can be retried)."""
        if self._finished or (
            isinstance(event, (Validated, TrialEnded)) and event.trial_id not in self._open
        ):
            return []
        actions = self._answers_to(event)
        actions += self._new_trials(running=len(self._open) - isinstance(event, TrialEnded))
        self._apply(event, actions)
        if not self._open:
            self._finish()
            actions.append(Finish())
        return actions

    def replay(self, event: SearchEvent, actions: Sequence[Action]) -> None:
        """Repeat the calls to the hook, but use the recorded actions instead of its answers."""
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
            raise self._invalid_answer("tell", f"None, or a whole number above {event.time:g}", answer)
        return [Train(trial_id=trial_id, length=Length(self._length.unit, answer))]

    def _new_trials(self, running: int) -> list[Action]:
        """Ask the hook for new trials, within the limits."""
        actions: list[Action] = []
        most, at_once = self._config.max_trials, self._config.max_concurrent_trials
        while (most is None or self._trials.count < most) and (not at_once or running < at_once):
            hparams = self._hook.call("ask")
            if hparams is None:
                break
            if not isinstance(hparams, dict):
                raise self._invalid_answer("ask", "None, or a dict of hyperparameters", hparams)
            create = self._trials.new(hparams)
            actions += [create, Train(trial_id=create.trial_id, length=self._length)]
            if self.needs_every_validation:
                actions.append(Close(trial_id=create.trial_id))
            running += 1
        return actions

    def _invalid_answer(self, method: str, expected: str, answer: object) -> SearchError:
        return SearchError(
            f"searcher.hook: {self._hook.target}.{method} must return {expected}, not {answer!r}",
            hint="fix it and continue the experiment; the search resumes from its last decision",
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


class HookProcess:
    """The process of a hook: started by the first call, ended with this object or this process.

    Args:
        target: `module:Class`.
        about: argument of the class.
        context_dir: the directory from which the module is imported.
        variables: environment variables of the config.
    """

    def __init__(
        self, target: str, about: Mapping[str, object], context_dir: Path, variables: Mapping[str, str]
    ) -> None:
        self.target = target
        self._about, self._context_dir, self._variables = about, context_dir, variables
        self._child: Child | None = None

    def call(self, method: str, **arguments: object) -> object:
        """Call a method of the class; raise SearchError if there is no answer."""
        if self._child is None:
            self._child = self._start()
            self._exchange(self._child, self._about)
        return self._exchange(self._child, {"call": method, "with": arguments})

    def close(self) -> None:
        if self._child is not None:
            self._child.close()

    def _start(self) -> Child:
        ours = str(Path(detbuild.__file__).parents[1])
        environ = hook_environment(os.environ, self._variables)
        paths = filter(None, (environ.get("PYTHONPATH"), ours))
        try:
            child = Child(
                [sys.executable, "-m", "detbuild.search.hook", self.target],
                cwd=self._context_dir,
                env={**environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
        except OSError as error:
            raise SearchError(
                f"searcher.hook: {self.target} cannot be started in {self._context_dir}: {error.strerror}",
                hint="restore the model directory and continue the experiment",
            ) from error
        weakref.finalize(self, child.close)
        return child

    def _exchange(self, child: Child, request: Mapping[str, object]) -> object:
        child.send(request)
        try:
            answer = child.answer(ANSWER_TIMEOUT)
        except EOFError as error:
            raise self._no_answer("has ended") from error
        if answer is None:
            raise self._no_answer(f"has not answered within {ANSWER_TIMEOUT:.0f} seconds")
        if "error" in answer:
            last = "\n".join(str(answer["error"]).strip().splitlines()[-_SHOWN:])
            raise SearchError(
                f"searcher.hook: {self.target} raised an error\n{last}",
                hint="fix it and continue the experiment; the search resumes from its last decision",
            )
        return answer["answer"]

    def _no_answer(self, what: str) -> SearchError:
        self.close()
        return SearchError(
            f"searcher.hook: the process of {self.target} {what}",
            hint="check its output in controller.log, fix it and continue the experiment",
        )


def hook_environment(environ: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the hook: the allowed variables of `environ`, then those of the config."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in _ALLOWED
        or _LOCALE.fullmatch(name)
        or (_PROXY.fullmatch(name) and not credentials_in(value) and "@" not in value)
    }
    return {**kept, **variables}
