"""What the contexts of all frameworks have in common; the type to annotate a trial's `context` with."""

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
    """`context.env`: what trials of Determined 0.12 read of it, under the names it had."""

    experiment_config: Mapping[str, object] = field(default_factory=dict)
    hparams: Mapping[str, object] = field(default_factory=dict)
    trial_seed: int | None = None
    det_experiment_id: int | None = None
    det_trial_id: int | None = None
    use_gpu: bool = False
    on_cluster: bool = False


class TrialContext:
    """The base of `PyTorchTrialContext` and its like."""

    @classmethod
    def from_config(  # noqa: PYI019  (typing.Self is not in Python 3.10)
        cls: type[_Context], config: Mapping[str, object]
    ) -> _Context:
        """A context for trying a trial out by hand, without a run.

        Args:
            config: an experiment config; hyperparameters that are ranges are drawn from.
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
        """What a framework supplies to `from_config`."""
        raise NotImplementedError
