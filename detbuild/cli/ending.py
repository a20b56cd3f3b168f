"""The exit code of an experiment's end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.errors import CanceledError, ExperimentError

if TYPE_CHECKING:
    from detbuild.store.state import ExperimentState

_CODES = {
    "PAUSED": 0,  # paused is not failed
    "COMPLETED": 0,
    "CANCELED": CanceledError.exit_code,
    "ERROR": ExperimentError.exit_code,
}


def exit_code_of(state: ExperimentState) -> int:
    return _CODES[state.state]
