"""What a script that starts its own run tells of it: see `core_v2`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, kw_only=True)
class DefaultConfig:
    """Fields of an experiment config. `searcher` has `metric` and `smaller_is_better`."""

    name: str | None = None
    hparams: Mapping[str, object] | None = None
    data: Mapping[str, object] | None = None
    description: str | None = None
    labels: Sequence[str] | None = None
    checkpoint_storage: str | Mapping[str, object] | None = None  # directory, s3://..., or as in a config
    searcher: Mapping[str, object] | None = None


@dataclass(frozen=True, kw_only=True)
class UnmanagedConfig:
    """The script's own names of its experiment and trial.

    A later run with the same names continues from the last checkpoint of the previous one:
    `core_v2.info.latest_checkpoint` is its ID.
    """

    workspace: str | None = None
    project: str | None = None
    external_experiment_id: str | None = None
    external_trial_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Config(DefaultConfig, UnmanagedConfig):
    """`DefaultConfig` and `UnmanagedConfig` in one."""
