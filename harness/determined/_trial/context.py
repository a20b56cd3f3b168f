# ruff: noqa: N802  (Determined's own names)
"""The base classes of the trials and contexts of all frameworks, and Determined's hyperparameters.

A context gives user code the hyperparameters, the experiment config and IDs, all read-only.
"""

from __future__ import annotations

import importlib
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from determined._contract.errors import InvalidTrialError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from determined._contract.run_info import RunInfo

_Context = TypeVar("_Context", bound="TrialContext")
_LOG = logging.getLogger(__name__)
_BATCH_SIZE = "global_batch_size"
Spec = dict[str, object]
_DRAWS: dict[object, Callable[[Mapping[str, Any]], object]] = {
    "const": lambda spec: spec["val"],
    "int": lambda spec: random.randint(spec["minval"], spec["maxval"]),  # noqa: S311  (no secret)
    "double": lambda spec: random.uniform(spec["minval"], spec["maxval"]),  # noqa: S311
    "log": lambda spec: spec.get("base", 10.0) ** random.uniform(spec["minval"], spec["maxval"]),  # noqa: S311
    "categorical": lambda spec: random.choice(spec["vals"]),  # noqa: S311
}


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


def Constant(value: object) -> Spec:
    return {"type": "const", "val": value}


def Integer(minval: int, maxval: int, count: int | None = None) -> Spec:
    """An integer from `minval` to `maxval`; a grid search uses `count` values of it."""
    return {"type": "int", "minval": minval, "maxval": maxval, **_grid(count)}


def Double(minval: float, maxval: float, count: int | None = None) -> Spec:
    """A number from `minval` to `maxval`; a grid search uses `count` values of it."""
    return {"type": "double", "minval": minval, "maxval": maxval, **_grid(count)}


def Log(minval: float, maxval: float, base: float = 10.0, count: int | None = None) -> Spec:
    """`base` to the power of a number from `minval` to `maxval`; a grid search uses `count` values of it."""
    return {"type": "log", "minval": minval, "maxval": maxval, "base": base, **_grid(count)}


def Categorical(vals: Sequence[object]) -> Spec:
    return {"type": "categorical", "vals": list(vals)}


def _grid(count: int | None) -> Spec:
    return {} if count is None else {"count": count}


def sampled(hyperparameters: object) -> dict[str, object]:
    """Sample one value of each, nested ones too; keep values that are not ranges."""
    given = hyperparameters if isinstance(hyperparameters, Mapping) else {}
    return {str(name): _drawn(spec) for name, spec in given.items()}


def _drawn(spec: Any) -> object:  # noqa: ANN401  (any value of a config)
    if not isinstance(spec, Mapping):
        return spec
    draw = _DRAWS.get(spec.get("type", ""))
    return draw(spec) if draw else sampled(spec)


class Trial:
    """The base class of `PyTorchTrial` and `TFKerasTrial`.

    `_runner` names the framework, or as `module:function` the function that trains such a trial. It is
    imported only when a trial of that kind runs, and called as `function(trial_class, run) -> ExitReason`.
    """

    _runner: ClassVar[str] = ""
    _one_process: ClassVar[bool] = False  # one process uses all devices of a run
