"""Determined's retention policy for the checkpoints of an experiment, as a pure function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How many checkpoints each of three rules keeps; a checkpoint stays if any rule keeps it."""

    save_experiment_best: int = 0
    save_trial_best: int = 1
    save_trial_latest: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A complete checkpoint of a trial."""

    uuid: str
    trial_id: int
    steps_completed: int
    metric: float | None  # the searcher's metric at the same batch; None is never the best


def select_kept(
    candidates: Iterable[Candidate], policy: Policy, *, smaller_is_better: bool, protected: AbstractSet[str]
) -> frozenset[str]:
    """Return the UUIDs of the checkpoints to keep.

    Args:
        candidates: In the order written; of equal metrics the earlier one is better.
        protected: UUIDs that are always kept: registered ones, and those that a trial started from.
    """
    written = tuple(candidates)
    sign = 1.0 if smaller_is_better else -1.0
    ranked = [(sign * one.metric, place, one) for place, one in enumerate(written) if one.metric is not None]
    best = [one for _, _, one in sorted(ranked, key=lambda entry: entry[:2])]
    chosen = set(best[: policy.save_experiment_best])
    for own in _by_trial(best):
        chosen.update(own[: policy.save_trial_best])
    for own in _by_trial(written[::-1]):
        newest_first = sorted(own, key=lambda one: -one.steps_completed)  # ties: the last written
        chosen.update(newest_first[: policy.save_trial_latest])
    return frozenset(one.uuid for one in written if one in chosen or one.uuid in protected)


def _by_trial(candidates: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    trials: dict[int, list[Candidate]] = {}
    for one in candidates:
        trials.setdefault(one.trial_id, []).append(one)
    yield from trials.values()
