"""The exit code of an experiment's end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.errors import CanceledError, ExperimentError
from detbuild.store.state import State

if TYPE_CHECKING:
    from detbuild.store.state import ExperimentState

_CODES = {
    State.PAUSED: 0,
    State.COMPLETED: 0,
    State.CANCELED: CanceledError.exit_code,
    State.ERROR: ExperimentError.exit_code,
}


def exit_code_of(state: ExperimentState) -> int:
    return _CODES[state.state]
