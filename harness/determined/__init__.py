"""Determined's API for user code, as detbuild supports it. Importing it imports no framework."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from determined._contract.errors import InvalidHP
from determined._removed import report_removed_modules
from determined._version import __version__

if TYPE_CHECKING:
    from determined._run.info import ClusterInfo, TrialInfo, get_cluster_info
    from determined._trial.context import Categorical, Constant, Double, Integer, Log, Trial, TrialContext
    from determined._trial.load import import_from_path

__all__ = [
    "LOG_FORMAT",
    "Categorical",
    "ClusterInfo",
    "Constant",
    "Double",
    "Integer",
    "InvalidHP",
    "Log",
    "Trial",
    "TrialContext",
    "TrialInfo",
    "__version__",
    "get_cluster_info",
    "import_from_path",
]

LOG_FORMAT = "%(levelname)s: [%(process)s] %(name)s: %(message)s"
__detbuild__ = __version__  # distinguishes this package from PyPI's of the same name

# Imported lazily: `import determined as det` is enough for det.pytorch, and costs a few milliseconds.
_MODULES = ("common", "core", "errors", "experimental", "keras", "launch", "pytorch", "tensorboard")
_LAZY = {
    **dict.fromkeys(("Categorical", "Constant", "Double", "Integer", "Log"), "_trial.context"),
    "ClusterInfo": "_run.info",
    "Trial": "_trial.context",
    "TrialContext": "_trial.context",
    "TrialInfo": "_run.info",
    "get_cluster_info": "_run.info",
    "import_from_path": "_trial.load",
}


report_removed_modules()


def __getattr__(name: str) -> object:
    if name in _MODULES or name == "estimator":  # which raises
        return importlib.import_module(f"determined.{name}")
    if name in _LAZY:
        return getattr(importlib.import_module(f"determined.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'determined' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_MODULES]
