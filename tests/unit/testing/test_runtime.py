"""The contract of a runtime finds a runtime that breaks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from detbuild.runtime.docker import DockerRuntime
from detbuild.runtime.protocol import Observation, Phase
from detbuild.runtime.slot_queue import SlotQueue
from tests.contracts import DockerContract
from tests.fakes import FakeEngine

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from detbuild.runtime.protocol import RunKey, RunSpec, Signal


class Renames(DockerRuntime):
    """Makes another run with each `create`."""

    made = 0

    def create(self, spec: RunSpec) -> str:
        self.made += 1
        return f"{super().create(spec)}-{self.made}"


class Forgets(DockerRuntime):
    """Removes runs that are to be kept."""

    def remove(self, home_id: str, experiment_id: int, *, keep: Collection[RunKey] = ()) -> None:
        super().remove(home_id, experiment_id)


class Succeeds(DockerRuntime):
    """Reports no exit code but 0."""

    def observe(self, key: RunKey) -> Observation:
        seen = super().observe(key)
        return Observation(phase=seen.phase, exit_code=0) if seen.phase is Phase.ENDED else seen


class Shouts(DockerRuntime):
    """Removes a run that has ended at a signal."""

    def signal(self, key: RunKey, signal: Signal) -> None:
        if self.observe(key).phase is Phase.ENDED:
            engine = self._engine
            assert isinstance(engine, FakeEngine)
            engine.lose_container(key.name)


@pytest.mark.parametrize(
    ("runtime", "test"),
    [
        (Renames, "test_a_second_create_and_a_second_start_change_nothing"),
        (Forgets, "test_runs_are_removed_but_those_to_keep"),
        (Succeeds, "test_a_run_is_created_started_and_ends_with_its_exit_code"),
        (Shouts, "test_a_signal_to_a_run_that_has_ended_changes_nothing"),
    ],
)
def test_a_runtime_that_breaks_the_contract_is_found(
    tmp_path: Path, runtime: type[DockerRuntime], test: str
) -> None:
    engine, contract = FakeEngine(), DockerContract()
    contract.image = engine.add_image("program:1")
    with pytest.raises(AssertionError):
        getattr(contract, test)(runtime(engine, None, SlotQueue(tmp_path), nvidia_smi=str))
