"""What every runtime must do, as tests for pytest; our own and those of packages run the same."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from detbuild.runtime.protocol import Demand, Phase, Placement, Reason, Refused, RunKey, Waiting

if TYPE_CHECKING:
    from detbuild.runtime.protocol import Observation, RunSpec, Runtime

_POLL: Final = 0.02  # seconds
_LONG: Final = 600  # seconds; a test ends the run long before


class RuntimeContract:
    """Derive `Test...` from it, define the method `spec`, and a fixture `runtime`.

    The fixture yields a runtime that has room for a run without GPUs, and closes it after the test.
    """

    home_id = "0a1b2c3d"
    experiment_id = 7

    def spec(self, key: RunKey, *, seconds: float, exit_code: int) -> RunSpec:
        """Return a run that lasts for so long, ends at SIGTERM with 143, and by itself with `exit_code`."""
        raise NotImplementedError

    def key(self, run: int = 0) -> RunKey:
        return RunKey(self.home_id, self.experiment_id, 1, run)

    def created(self, runtime: Runtime, *, run: int = 0, seconds: float = 0, exit_code: int = 0) -> RunSpec:
        """Place and create a run, as a controller does."""
        spec = self.spec(self.key(run), seconds=seconds, exit_code=exit_code)
        with runtime.place(self.demand(spec.key)) as placed:
            assert isinstance(placed, Placement)
            answer = runtime.create(spec)
        assert isinstance(answer, str)
        return spec

    def demand(self, key: RunKey) -> Demand:
        return Demand(key=key, user="0", slots=0, priority=42, weight=1.0)

    def start(self, runtime: Runtime, key: RunKey) -> None:
        while (answer := runtime.start(key)) is False:
            time.sleep(_POLL)
        assert answer is True

    def ended(self, runtime: Runtime, key: RunKey) -> Observation:
        """Observe until the run has ended."""
        while (seen := runtime.observe(key)).phase in {Phase.CREATED, Phase.RUNNING}:
            time.sleep(_POLL)
        return seen

    def test_a_run_is_created_started_and_ends_with_its_exit_code(self, runtime: Runtime) -> None:
        for run, exit_code in enumerate((0, 3)):
            key = self.created(runtime, run=run, exit_code=exit_code).key
            assert runtime.observe(key).phase is Phase.CREATED
            self.start(runtime, key)
            seen = self.ended(runtime, key)
            assert (seen.phase, seen.exit_code, seen.reason) == (Phase.ENDED, exit_code, Reason.NONE)

    def test_a_second_create_and_a_second_start_change_nothing(self, runtime: Runtime) -> None:
        spec = self.created(runtime)
        first = runtime.create(spec)
        assert runtime.create(spec) == first
        self.start(runtime, spec.key)
        seen = self.ended(runtime, spec.key)
        self.start(runtime, spec.key)
        assert runtime.observe(spec.key) == seen

    def test_a_run_ends_at_sigterm(self, runtime: Runtime) -> None:
        key = self.created(runtime, seconds=_LONG).key
        self.start(runtime, key)
        while runtime.observe(key).phase is not Phase.RUNNING:
            time.sleep(_POLL)
        seen = runtime.observe(key)
        while seen.phase is Phase.RUNNING:  # a run may ignore it until it has installed its handler
            runtime.signal(key, "SIGTERM")
            time.sleep(_POLL)
            seen = runtime.observe(key)
        assert (seen.phase, seen.exit_code) == (Phase.ENDED, 143)

    def test_a_run_is_killed(self, runtime: Runtime) -> None:
        key = self.created(runtime, seconds=_LONG).key
        self.start(runtime, key)
        runtime.signal(key, "SIGKILL")
        seen = self.ended(runtime, key)
        assert (seen.phase, seen.exit_code in {0, None}) == (Phase.ENDED, False)

    def test_a_signal_to_a_run_that_has_ended_changes_nothing(self, runtime: Runtime) -> None:
        key = self.created(runtime, exit_code=3).key
        self.start(runtime, key)
        seen = self.ended(runtime, key)
        runtime.signal(key, "SIGTERM")
        runtime.signal(key, "SIGKILL")
        assert runtime.observe(key) == seen

    def test_a_run_that_is_not_there_is_lost(self, runtime: Runtime) -> None:
        seen = runtime.observe(self.key(run=9))
        assert (seen.phase, seen.reason) == (Phase.GONE, Reason.LOST)

    def test_what_was_not_created_cannot_be_started(self, runtime: Runtime) -> None:
        while (answer := runtime.start(self.key(run=9))) is False:
            time.sleep(_POLL)
        assert isinstance(answer, Refused | Waiting)

    def test_runs_are_removed_but_those_to_keep(self, runtime: Runtime) -> None:
        gone = self.created(runtime).key
        self.start(runtime, gone)
        self.ended(runtime, gone)
        kept = self.created(runtime, run=1).key
        for _ in range(2):
            runtime.remove(self.home_id, self.experiment_id, keep=[kept])
            assert runtime.observe(gone).phase is Phase.GONE
            assert runtime.observe(kept).phase is Phase.CREATED
        runtime.remove("ffffffff", self.experiment_id)
        runtime.remove(self.home_id, self.experiment_id + 1)
        assert runtime.observe(kept).phase is Phase.CREATED
        runtime.remove(self.home_id, self.experiment_id)
        assert runtime.observe(kept).phase is Phase.GONE

    def test_what_create_sends_can_be_seen_before(self, runtime: Runtime) -> None:
        spec = self.spec(self.key(), seconds=0, exit_code=0)
        assert runtime.render(spec) == runtime.render(spec)
        assert runtime.observe(spec.key).phase is Phase.GONE
