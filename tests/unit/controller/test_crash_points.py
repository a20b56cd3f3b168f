"""The controller is killed before and after every one of its effects; the experiment must not notice.

A story is what a person does meanwhile. It goes on from where it was when the controller died, as people do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pytest

from detbuild.checkpoint.find import checkpoints_of
from detbuild.controller import requests
from detbuild.controller.requests import continue_
from detbuild.search.registry import search_method
from detbuild.store import journal
from tests.fakes import Crash, Effects, FakeEngine
from tests.faults.searching import Halving, Heirs, Random, Watching, made
from tests.faults.training import BATCHES, Rig, expected, rig, train

if TYPE_CHECKING:
    from pathlib import Path

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.search.method import SearchMethod
    from detbuild.store.state import ExperimentState

SLACK = 2  # crash points beyond the last effect: nothing happens there, and that must hold too
When = Literal["before", "after"]


@dataclass(frozen=True)
class Story:
    """What is asked for: once trial 1 has trained so many batches, or for 0 once all has come to rest."""

    name: str
    effects: int  # of an undisturbed run
    state: str = "COMPLETED"
    method: Callable[[ExperimentConfig], SearchMethod] = search_method
    asked: tuple[tuple[int, str, int | None], ...] = ()  # (batches, verb, trial)
    lengths: tuple[int, ...] = (BATCHES,)  # what each trial trains in the end; () where that depends
    start: Callable[[int], float] = lambda _: 1.0


def searched(trial_id: int) -> float:
    return float(str(made(trial_id).hparams["start"]))


STORIES = (
    Story("create", effects=14),
    Story("pause and activate", effects=25, asked=((2, "pause", None), (0, "activate", None))),
    Story("cancel", effects=12, state="CANCELED", asked=((2, "cancel", None),), lengths=()),
    Story("kill", effects=12, state="CANCELED", asked=((2, "kill", None),), lengths=()),
    Story(
        "continue with a longer length",
        effects=26,
        asked=((0, "continue", None),),
        lengths=(10,),
    ),
    Story(
        "cancel, and continue a search",
        effects=91,
        method=lambda _: Halving(),
        asked=((2, "cancel", None), (0, "continue", None)),
        lengths=(6, 4, 2, 2),
        start=searched,
    ),
    Story(
        "a random search",
        effects=44,
        method=lambda _: Random(4, at_once=2),
        lengths=(6, 6, 6, 6),
        start=searched,
    ),
    Story(
        "a random search with one trial killed",
        effects=45,
        method=lambda _: Random(4, at_once=2),
        asked=((2, "kill", 1),),
        lengths=(0, 6, 6, 6),
        start=searched,
    ),
    Story(
        "a search in segments", effects=68, method=lambda _: Halving(), lengths=(6, 4, 2, 2), start=searched
    ),
    Story("a watching search", effects=39, method=lambda _: Watching(), lengths=(6, 0, 0), start=searched),
    Story(
        "a trial from another's checkpoint",
        effects=24,
        method=lambda _: Heirs(),
        lengths=(4, 0),
        start=searched,
    ),
)


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests are the controller."""
    monkeypatch.setattr(requests, "start_detached", lambda folder, held: None)
    monkeypatch.setattr(requests, "resume_one", lambda folder: True)


def tell(story: Story, tried: Rig) -> ExperimentState:
    """Live through the story, with as many controllers as it takes."""
    asked = list(story.asked)
    controller = None
    for _ in range(3000):
        try:
            controller = controller or tried.controller()
            state = controller.context.state
            if asked and is_time(tried, asked[0][0], idle=state.idle):
                ask(tried, *asked.pop(0)[1:])
                controller = None
                continue
            if controller.done:
                return tried.state()
            controller.step()
            tried.clock.wait(0.3)
        except Crash:
            tried.effects.crash_at, controller = 0, None
    raise AssertionError(f"not over: {tried.state()}")


def is_time(tried: Rig, batches: int, *, idle: bool) -> bool:
    trial = tried.state().trials.get(1) if batches else None
    return trial.progress.steps_completed >= batches if trial else idle and not batches


def ask(tried: Rig, verb: str, trial_id: int | None) -> None:
    if verb == "continue":
        longer = ("searcher.max_length.batches=10",) if tried.method is search_method else ()
        continue_(tried.home, 1, longer)
    else:
        tried.folder.request(verb, trial_id=trial_id)


def check(story: Story, tried: Rig, state: ExperimentState) -> None:
    assert state.state == story.state
    assert tried.engine.containers == {}
    kept = {one.checkpoint.uuid for one in checkpoints_of(tried.folder) if one.state == "COMPLETED"}
    assert {path.name for path in tried.folder.checkpoints.iterdir()} == kept
    for trial_id, length in enumerate(story.lengths, start=1):
        if length:
            assert state.trials[trial_id].state == "COMPLETED"
            assert tried.reports(trial_id) == expected(length, story.start(trial_id))
    for trial in state.trials.values():
        assert [run.run for run in trial.runs] == list(range(len(trial.runs)))
        assert trial.restarts == 0
    created = [name for name in tried.effects.done if name.startswith("create ")]
    assert len(created) == len(set(created))
    facts = [entry.fact for entry in tried.folder.journal()]
    told = [str(fact.event) for fact in facts if isinstance(fact, journal.Searched)]
    assert len(told) == len(set(told))
    applied = [fact.number for fact in facts if isinstance(fact, journal.RequestApplied)]
    assert applied == list(range(1, len(story.asked) + 1))


def points() -> list[object]:
    return [
        pytest.param(story, number, when, id=f"{story.name}-{number}-{when}")
        for story in STORIES
        for number in range(1, story.effects + 1 + SLACK)
        for when in ("before", "after")
    ]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_the_crash_points_are_all_there(tmp_path: Path, story: Story) -> None:
    tried = rig(tmp_path, method=story.method)
    check(story, tried, tell(story, tried))
    assert tried.effects.count == story.effects


@pytest.mark.parametrize(("story", "number", "when"), points())
def test_a_crash_at_any_effect_loses_and_doubles_nothing(
    tmp_path: Path, story: Story, number: int, when: When
) -> None:
    effects = Effects(crash_at=number, crash_when=when)
    tried = rig(tmp_path, engine=FakeEngine(train, effects=effects), method=story.method)
    check(story, tried, tell(story, tried))
