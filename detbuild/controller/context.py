"""The context of a controller: its experiment, and the runtime of its runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from detbuild.controller.policies import Policy, policies_of
from detbuild.controller.state import JournaledState
from detbuild.runtime.plan import RunOwner
from detbuild.store.home import Home

if TYPE_CHECKING:
    from collections.abc import Callable

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.controller.retry import Clock
    from detbuild.runtime.protocol import Runtime


@dataclass(kw_only=True, slots=True)
class ControllerContext(JournaledState):
    """The journaled state of an experiment, and where its runs run."""

    runtime: Runtime
    config: ExperimentConfig
    home_id: str
    clock: Clock
    policies: tuple[Policy, ...] = field(init=False)  # to search the output of runs for
    retries: bool = True  # of runs that have failed
    restore_files: Callable[[tuple[str, ...]], str] = lambda _: ""  # set by the controller
    runs_removed: bool = False  # those that have ended

    def __post_init__(self) -> None:
        JournaledState.__post_init__(self)
        self.policies = policies_of(self.config)

    @property
    def home(self) -> Home:
        return Home(self.folder.path.parent.parent, self.home_id)

    @property
    def owner(self) -> RunOwner:
        return RunOwner(home_id=self.home_id, folder=self.folder, header=self.state.header)

    @property
    def max_restarts(self) -> int:
        return self.config.max_restarts if self.retries else 0
