"""The base class of all frameworks' contexts; the type to annotate a trial's `context` with."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from determined._hparams import sampled

if TYPE_CHECKING:
    from collections.abc import Mapping

_Context = TypeVar("_Context", bound="TrialContext")


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """`context.env`: the attributes that trials of Determined 0.12 read."""

    experiment_config: Mapping[str, object] = field(default_factory=dict)
    hparams: Mapping[str, object] = field(default_factory=dict)
    trial_seed: int | None = None
    det_experiment_id: int | None = None
    det_trial_id: int | None = None
    use_gpu: bool = False
    on_cluster: bool = False


class TrialContext:
    """The base class of `PyTorchTrialContext` and `TFKerasTrialContext`."""

    @classmethod
    def from_config(  # noqa: PYI019  (typing.Self is not in Python 3.10)
        cls: type[_Context], config: Mapping[str, object]
    ) -> _Context:
        """Return a context to try a trial by hand, without a run.

        Args:
            config: an experiment config; ranges of hyperparameters are sampled.
        """
        kind = (
            importlib.import_module("determined.pytorch").PyTorchTrialContext if cls is TrialContext else cls
        )
        made: _Context = kind.of_config(config, sampled(config.get("hyperparameters")))
        return made

    @classmethod
    def of_config(  # noqa: PYI019  (typing.Self is not in Python 3.10)
        cls: type[_Context], config: Mapping[str, object], hparams: Mapping[str, object]
    ) -> _Context:
        """Return the framework's context for `from_config`."""
        raise NotImplementedError
