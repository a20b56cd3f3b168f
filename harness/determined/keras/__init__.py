"""Determined's Keras API: `from determined.keras import TFKerasTrial, TFKerasTrialContext`.

TensorFlow is imported lazily: `DeterminedCallback` works with any backend of Keras 3.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from determined._contract.errors import InvalidHP

if TYPE_CHECKING:
    from determined.keras import callbacks
    from determined.keras._feed import SequenceAdapter
    from determined.keras._load import load_model_from_checkpoint_path
    from determined.keras._script import DeterminedCallback, TensorBoard
    from determined.keras._tf import InputData
    from determined.keras._trial import TFKerasTrial, TFKerasTrialContext
    from determined.keras.callbacks import TensorBoard as TFKerasTensorBoard

__all__ = [
    "DeterminedCallback",
    "InputData",
    "InvalidHP",
    "SequenceAdapter",
    "TFKerasTensorBoard",
    "TFKerasTrial",
    "TFKerasTrialContext",
    "TensorBoard",
    "callbacks",
    "load_model_from_checkpoint_path",
]

_MODULES = {
    "DeterminedCallback": ("_script", "DeterminedCallback"),
    "InputData": ("_tf", "InputData"),
    "SequenceAdapter": ("_feed", "SequenceAdapter"),
    "TFKerasTensorBoard": ("callbacks", "TensorBoard"),
    "TFKerasTrial": ("_trial", "TFKerasTrial"),
    "TFKerasTrialContext": ("_trial", "TFKerasTrialContext"),
    "TensorBoard": ("_script", "TensorBoard"),
    "load_model_from_checkpoint_path": ("_load", "load_model_from_checkpoint_path"),
}


def __getattr__(name: str) -> object:
    if name == "callbacks":
        return importlib.import_module("determined.keras.callbacks")
    if name in _MODULES:
        module, attribute = _MODULES[name]
        return getattr(importlib.import_module(f"determined.keras.{module}"), attribute)
    raise AttributeError(f"module 'determined.keras' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
