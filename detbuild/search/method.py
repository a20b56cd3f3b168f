"""What a search method is: observations in, decisions out. It starts nothing and stores nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Observation:
    """One trial as a search method sees it."""

    trial_id: int
    ended: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class CreateTrial:
    trial_id: int  # 1, 2, 3 ... within the experiment
    seed: int
    hparams: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finish:
    """No trial is left to run and none will be created."""


Decision = CreateTrial | Finish


class SearchMethod(Protocol):
    """Asked again and again with all there is to know: equal observations give equal decisions."""

    def decide(self, trials: Sequence[Observation]) -> Sequence[Decision]: ...
