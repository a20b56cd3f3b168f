"""Determined's Native API for estimators is no more: calling it says what to do instead."""

from __future__ import annotations

from typing import NoReturn

from determined._errors import RemovedError


def init(*_args: object, **_options: object) -> NoReturn:
    """Refused, whatever it is given."""
    raise RemovedError(
        "determined.experimental.estimator.init belongs to the Native API, which Determined removed",
        hint="rewrite the model as a determined.keras.TFKerasTrial",
    )
