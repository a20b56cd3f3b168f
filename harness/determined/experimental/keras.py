"""Determined's Native API for Keras, which was removed: calling it names the replacement."""

from __future__ import annotations

from typing import NoReturn

from determined._contract.errors import RemovedError


def init(*_args: object, **_options: object) -> NoReturn:
    """Raise an error with the replacement."""
    raise RemovedError(
        "determined.experimental.keras.init belongs to the Native API, which Determined removed",
        hint="write a determined.keras.TFKerasTrial, or pass determined.keras.DeterminedCallback to fit",
    )
