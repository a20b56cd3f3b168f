"""Common part of all search methods: draws, counts and ends trials; a policy decides the rest.

Nested hyperparameters are drawn as a flat list of leaves.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol

from detbuild.config.hyperparameters import Nested, RandomState, draw, identity
from detbuild.search.method import Began, Create, Finish, TrialEnded, Validated, check_same

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.config.hyperparameters import Hyperparameter, Path
    from detbuild.search.method import Action, SearchEvent, TrialEnd

WORST: Final = sys.float_info.max  # the cost of a failed trial, or of a metric that is absent or not a number
MAX_REPLACED: Final = 1000


def cost(metric: float | None, sign: int) -> float:
    """Convert a metric to a cost: smaller is better, at most WORST; `sign` is the searcher's."""
    if metric is None or math.isnan(metric):
        return WORST
    return min(sign * metric, WORST)


class Trials:
    """Numbers the trials of one experiment and draws their values, all from one generator.

    Draws per trial, as in Determined: the hyperparameters in the order of their names (a nested map at its
    own name), then 16 bytes for the request ID, then the seed.
    """

    def __init__(self, hyperparameters: Mapping[str, Hyperparameter], seed: int) -> None:
        self.hyperparameters, self.seed = hyperparameters, seed
        self.random = RandomState(seed)
        self.count = 0
        self._replaced = 0

    def new(self, hparams: Mapping[str, object] | None = None, *, parent: int | None = None) -> Create:
        """Create the next trial; its hyperparameters are drawn unless given."""
        values = draw(self.hyperparameters, self.random) if hparams is None else hparams
        request_id, seed = identity(self.random)
        self.count += 1
        return Create(trial_id=self.count, request_id=request_id, seed=seed, hparams=values, parent=parent)

    def may_replace(self) -> bool:
        """Count a trial with invalid hyperparameters; return whether a new one replaces it.

        Determined has no limit, so a search of a space without valid points never ends there.
        """
        self._replaced += 1
        return self._replaced <= MAX_REPLACED


class Policy(Protocol):
    """The method-specific part of a search. It receives events of open trials only."""

    @property
    def needs_every_validation(self) -> bool:
        """As in `SearchMethod`."""

    @property
    def progress(self) -> float:
        """Estimated progress; `Search` keeps it from falling."""

    @property
    def share(self) -> float:
        """As in `SearchMethod`."""

    def begin(self) -> list[Action]: ...

    def validated(self, trial_id: int, time: float, cost: float) -> list[Action]: ...

    def ended(self, trial_id: int, reason: TrialEnd) -> list[Action]: ...


class Search:
    """A `SearchMethod` around one policy."""

    def __init__(self, policy: Policy, *, sign: int) -> None:
        self.policy = policy
        self._sign = sign
        self._open: set[int] = set()
        self._began = self._finished = False
        self._progress = 0.0

    @property
    def needs_every_validation(self) -> bool:
        return self.policy.needs_every_validation

    @property
    def progress(self) -> float:
        return self._progress

    @property
    def share(self) -> float:
        return self.policy.share

    def decide(self, event: SearchEvent) -> Sequence[Action]:
        """Return the actions for an event; ended and unknown trials give none."""
        actions = self._react(event)
        self._open.update(action.trial_id for action in actions if isinstance(action, Create))
        if self._began and not self._open and not self._finished:
            self._finished = True
            actions.append(Finish())
        done = 1.0 if self._finished else min(self.policy.progress, 1.0)
        self._progress = max(self._progress, done)
        return actions

    def replay(self, event: SearchEvent, actions: Sequence[Action]) -> None:
        """Decide again; raise SearchError if the recorded actions differ."""
        check_same(self.decide(event), actions, event)

    def _react(self, event: SearchEvent) -> list[Action]:
        if isinstance(event, Validated):
            if event.trial_id not in self._open:
                return []
            value = cost(event.metric, self._sign)
            return self.policy.validated(event.trial_id, event.time, value)
        if isinstance(event, TrialEnded):
            if event.trial_id not in self._open:
                return []
            self._open.remove(event.trial_id)
            return self.policy.ended(event.trial_id, event.reason)
        return self._begin(event)

    def _begin(self, _event: Began) -> list[Action]:
        if self._began:
            return []
        self._began = True
        return self.policy.begin()


def assembled(
    hyperparameters: Mapping[str, Hyperparameter], values: Mapping[Path, object], above: Path = ()
) -> dict[str, object]:
    """Build a trial's hyperparameters from the values of all leaves; empty maps are kept."""
    whole: dict[str, object] = {}
    for name in sorted(hyperparameters):
        hyperparameter, path = hyperparameters[name], (*above, name)
        if isinstance(hyperparameter, Nested):
            whole[name] = assembled(hyperparameter.root, values, path)
        else:
            whole[name] = values[path]
    return whole


def value_at(hparams: Mapping[str, object], path: Path) -> object:
    """Return the value of one leaf; raise KeyError if it does not exist."""
    value: object = hparams
    for name in path:
        if not isinstance(value, Mapping):
            raise KeyError(path)
        value = value[name]
    return value
