"""The part of a context that reads: hyperparameters, the experiment config and ids."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from determined._errors import InvalidTrialError
from determined._trial_context import Environment, TrialContext

if TYPE_CHECKING:
    from determined._run_info import RunInfo

_LOG = logging.getLogger(__name__)
_BATCH_SIZE = "global_batch_size"


class NotConfiguredError(InvalidTrialError, ValueError):
    """The trial asked for something that neither config nor hyperparameters hold."""


class HparamAccess(TrialContext):
    def __init__(
        self,
        hparams: Mapping[str, object] | None,
        config: Mapping[str, object] | None,
        info: RunInfo | None,
        *,
        slots: int = 1,
    ) -> None:
        self._hparams, self._config, self._info, self._slots = hparams, config, info, slots

    def get_hparams(self) -> dict[str, object]:
        return dict(self._known_hparams())

    def get_hparam(self, name: str) -> object:
        """The value of one hyperparameter.

        Raises:
            NotConfiguredError: there is no hyperparameter of that name.
        """
        hparams = self._known_hparams()
        if name not in hparams:
            raise NotConfiguredError(
                f"there is no hyperparameter {name!r}, but {', '.join(sorted(hparams)) or 'none at all'}",
                hint=f"add {name} to hyperparameters in the experiment config",
            )
        if name == _BATCH_SIZE:
            _LOG.debug("use context.get_per_slot_batch_size() to build data loaders")
        return hparams[name]

    def get_global_batch_size(self) -> int:
        """Records in a batch over all slots: `global_batch_size`, rounded down to a multiple of them."""
        hparams = self._known_hparams()
        size = hparams.get(_BATCH_SIZE)
        hint = f"set hyperparameters.{_BATCH_SIZE} in the experiment config, to a whole number of 1 or more"
        if size is None:
            raise NotConfiguredError(
                f"the trial asked for its batch size, and {_BATCH_SIZE} is not set", hint=hint
            )
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise NotConfiguredError(f"the hyperparameter {_BATCH_SIZE} is {size!r}", hint=hint)
        if size < self._slots:
            raise NotConfiguredError(
                f"the hyperparameter {_BATCH_SIZE} is {size}, and the trial has {self._slots} slots",
                hint=f"make it {self._slots} or more",
            )
        if size % self._slots:
            _LOG.warning(
                "%s %d is no multiple of %d slots: %d is used",
                _BATCH_SIZE,
                size,
                self._slots,
                size - size % self._slots,
            )
        return size - size % self._slots

    def get_per_slot_batch_size(self) -> int:
        """Records in a batch of this process."""
        return self.get_global_batch_size() // self._slots

    @property
    def batch_size(self) -> int | None:
        """The global batch size, where it is set."""
        return self.get_global_batch_size() if self._hparams and _BATCH_SIZE in self._hparams else None

    @property
    def env(self) -> Environment:
        info = self._info
        return Environment(
            experiment_config=self._config or {},
            hparams=self._hparams or {},
            trial_seed=info.trial_seed if info else None,
            det_experiment_id=info.experiment_id if info else None,
            det_trial_id=info.trial_id if info else None,
            use_gpu=info is not None and info.slots > 0,
            on_cluster=info is not None,
        )

    def get_experiment_config(self) -> dict[str, object]:
        if self._config is None:
            raise NotConfiguredError("there is no experiment config", hint="pass exp_conf= to pytorch.init")
        return dict(self._config)

    def get_data_config(self) -> dict[str, object]:
        """The section `data` of the experiment config."""
        data = self.get_experiment_config().get("data")
        return dict(data) if isinstance(data, Mapping) else {}

    def get_experiment_id(self) -> int:
        return self._known_info().experiment_id

    def get_trial_id(self) -> int:
        return self._known_info().trial_id

    def get_trial_seed(self) -> int:
        return self._known_info().trial_seed

    def _known_hparams(self) -> Mapping[str, object]:
        if self._hparams is None:
            raise NotConfiguredError("there are no hyperparameters", hint="pass hparams= to pytorch.init")
        return self._hparams

    def _known_info(self) -> RunInfo:
        if self._info is None:
            raise NotConfiguredError(
                "there are no ids outside an experiment",
                hint="submit the script, or do without ids when it runs alone",
            )
        return self._info
