"""Frameworks by name: the function that trains their trials, ours and those of installed packages."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Final

from determined._contract.errors import InvalidTrialError
from determined._contract.plugins import PluginGroup
from determined._contract.records import ExitReason
from determined._run.run import Run

Runner = Callable[[type, Run], ExitReason]
BUILT_IN: Final = {
    "pytorch": "determined.pytorch._trainer:run_trial",
    "keras": "determined.keras._runner:run_trial",
}


def _check(_name: str, value: object) -> str:
    return "" if callable(value) else "it is not a function of a trial class and a run"


PACKAGES: Final = PluginGroup("determined.frameworks", BUILT_IN, _check)


def runner_of(trial_class: type) -> Runner:
    """Import the function that trains a trial class.

    Raises:
        InvalidTrialError: the class is not that of a framework, or its framework cannot be used.
    """
    named = str(getattr(trial_class, "_runner", ""))
    if not named:
        others = "".join(f", or the trial class of {name}" for name in PACKAGES.names())
        raise InvalidTrialError(
            f"{trial_class.__name__} does not derive from the trial class of a framework",
            hint=f"derive it from determined.pytorch.PyTorchTrial or determined.keras.TFKerasTrial{others}",
        )
    where = BUILT_IN.get(named, named)
    runner: Runner = _imported(where) if ":" in where else _of_package(trial_class, named)
    return runner


def _imported(where: str) -> Runner:
    module, _, function = where.partition(":")
    runner: Runner = getattr(importlib.import_module(module), function)
    return runner


def _of_package(trial_class: type, name: str) -> Runner:
    plugin = PACKAGES.find(name)
    if plugin is None:
        raise InvalidTrialError(
            f"{trial_class.__name__} is of the framework {name!r}, which no installed package adds",
            hint="add the package to requirements.txt; for a local run, install it",
        )
    if plugin.error:
        raise InvalidTrialError(plugin.problem, hint="repair the package, or pin another version of it")
    runner: Runner = plugin.value  # type: ignore[assignment]  # checked
    return runner
