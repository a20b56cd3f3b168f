"""What a script asks of an experiment that runs, and the care for it while the script waits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from detbuild.controller.attend import needs_controller, request, resume_one
from detbuild.controller.lease import holder
from detbuild.errors import EngineError
from determined.experimental.client import _host

if TYPE_CHECKING:
    from detbuild.store.folder import ExperimentFolder

_ABSENT = 3.0  # seconds without a controller after which a new one is started
_STARTS = 3  # how often that is tried before it is taken for a defect


def ask(experiment_id: int, verb: Literal["kill", "cancel", "pause", "activate"]) -> None:
    """Ask for `verb`; nothing happens when the experiment has ended."""
    with _host.found():
        request(_host.home(), experiment_id, verb)


def kill_trial(folder: ExperimentFolder, number: int) -> None:
    """Stop one trial at once; the others go on."""
    request(_host.home(), folder.id, "kill", number)


class Attendant:
    """Sees to it that an experiment has a controller while somebody waits for its end."""

    def __init__(self, folder: ExperimentFolder) -> None:
        self._folder = folder
        self._seen = time.monotonic()
        self._starts = 0

    def look(self) -> None:
        """Start a controller when there has been none for a while.

        Raises:
            EngineError: It does not stay alive.
        """
        if holder(self._folder.lock_file) is not None or not needs_controller(self._folder):
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > _ABSENT:
            if self._starts == _STARTS:
                raise EngineError(
                    f"the controller of experiment {self._folder.id} does not stay alive",
                    mend=f"see {self._folder.log_file}; then `detbuild resume`",
                )
            resume_one(self._folder)
            self._seen, self._starts = time.monotonic(), self._starts + 1
