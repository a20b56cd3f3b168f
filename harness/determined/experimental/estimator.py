"""Determined's Native API for estimators, which was removed: calling it names the replacement."""

from __future__ import annotations

from typing import NoReturn

from determined._contract.errors import RemovedError


def init(*_args: object, **_options: object) -> NoReturn:
    """Raise an error with the replacement."""
    raise RemovedError(
        "determined.experimental.estimator.init belongs to the Native API, which Determined removed",
        hint="rewrite the model as a determined.keras.TFKerasTrial",
    )
