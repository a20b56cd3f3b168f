from __future__ import annotations

import pytest

from detbuild.store.experiment_dir import Header
from detbuild.store.state import ExperimentState, Progress, TrialState

HEADER = Header(id=1, name="", context_name="", created=0.0)


def trial(
    number: int, fraction: float | None, *, state: str = "RUNNING", released: bool = False
) -> TrialState:
    return TrialState(id=number, state=state, released=released, progress=Progress(fraction=fraction))


@pytest.mark.parametrize(
    ("decided", "share", "trials", "progress"),
    [
        (0.0, 0.0, [], 0.0),
        (0.25, 0.25, [trial(1, 1.0, state="COMPLETED", released=True), trial(2, 0.5)], 0.375),
        (0.25, 0.25, [trial(2, None)], 0.25),
        (0.4, 0.0, [trial(1, 0.9), trial(2, 0.9)], 0.4),
        (1.0, 0.5, [trial(1, 0.5, released=True), trial(2, 1.0, state="COMPLETED", released=True)], 0.75),
        (1.0, 1.0, [trial(1, 0.5)], 1.0),
        (1.0, 1.0, [trial(1, 0.25, state="ERROR", released=True)], 0.25),
    ],
    ids=["nothing yet", "parts", "unknown part", "segments", "taken up again", "never above 1", "failed"],
)
def test_the_progress_of_a_search(
    decided: float, share: float, trials: list[TrialState], progress: float
) -> None:
    found = {one.id: one for one in trials}
    state = ExperimentState(header=HEADER, state="RUNNING", trials=found, decided=decided, share=share)
    assert state.progress == pytest.approx(progress)


def test_what_is_completed_is_done_whatever_was_counted() -> None:
    assert ExperimentState(header=HEADER, state="COMPLETED").progress == 1
