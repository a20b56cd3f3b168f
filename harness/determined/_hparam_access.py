"""The read-only part of a context: hyperparameters, the experiment config and IDs."""

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
    """The trial read a value that neither the config nor the hyperparameters contain."""


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
        """Return the value of one hyperparameter.

        Raises:
            NotConfiguredError: unknown hyperparameter.
        """
        hparams = self._known_hparams()
        if name not in hparams:
            raise NotConfiguredError(
                f"no hyperparameter {name!r}; available: {', '.join(sorted(hparams)) or 'none'}",
                hint=f"add {name} to hyperparameters in the experiment config",
            )
        if name == _BATCH_SIZE:
            _LOG.debug("use context.get_per_slot_batch_size() to build data loaders")
        return hparams[name]

    def get_global_batch_size(self) -> int:
        """Return the records in a batch of all slots: `global_batch_size`, rounded down to their multiple."""
        hparams = self._known_hparams()
        size = hparams.get(_BATCH_SIZE)
        hint = f"set hyperparameters.{_BATCH_SIZE} in the experiment config to an integer of 1 or more"
        if size is None:
            raise NotConfiguredError(
                f"the trial reads its batch size, but {_BATCH_SIZE} is not set", hint=hint
            )
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise NotConfiguredError(f"the hyperparameter {_BATCH_SIZE} is {size!r}", hint=hint)
        if size < self._slots:
            raise NotConfiguredError(
                f"the hyperparameter {_BATCH_SIZE} is {size}, but the trial has {self._slots} slots",
                hint=f"set it to {self._slots} or more",
            )
        if size % self._slots:
            _LOG.warning(
                "%s %d is not a multiple of %d slots: using %d",
                _BATCH_SIZE,
                size,
                self._slots,
                size - size % self._slots,
            )
        return size - size % self._slots

    def get_per_slot_batch_size(self) -> int:
        """Return the records in a batch of this process."""
        return self.get_global_batch_size() // self._slots

    @property
    def batch_size(self) -> int | None:
        """The global batch size, if set."""
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
        """Return the section `data` of the experiment config."""
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
                "there are no IDs outside an experiment",
                hint="submit the script, or do not read IDs when it runs by hand",
            )
        return self._info
