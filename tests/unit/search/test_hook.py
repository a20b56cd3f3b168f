from __future__ import annotations

import io
import json
import sys
from types import ModuleType

import pytest

from detbuild.search.hook import serve


class Search:
    def __init__(self, about: dict[str, object]) -> None:
        if about.get("broken"):
            raise ValueError("broken on purpose")
        self.asked = 0

    def ask(self) -> dict[str, object]:
        self.asked += 1
        return {"lr": self.asked}

    def tell(self, trial: object, time: float, metric: float | None) -> object:
        return [trial.id, trial.hparams, time, metric]  # type: ignore[attr-defined]


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> str:
    module = ModuleType("custom_search")
    module.Search = Search  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "custom_search", module)
    return "custom_search:Search"


def served(target: str, *requests: object) -> list[dict[str, object]]:
    answers = io.StringIO()
    serve(io.StringIO("".join(json.dumps(request) + "\n" for request in requests)), answers, target)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def call(name: str, **arguments: object) -> dict[str, object]:
    return {"call": name, "with": arguments}


def test_the_first_request_creates_the_object_and_each_further_one_calls_it(target: str) -> None:
    assert served(target, {}, call("ask"), call("ask")) == [
        {"answer": None},
        {"answer": {"lr": 1}},
        {"answer": {"lr": 2}},
    ]


def test_a_trial_arrives_as_an_object(target: str) -> None:
    trial = {"id": 4, "hparams": {"lr": 1}}
    (_, answer) = served(target, {}, call("tell", trial=trial, time=2.0, metric=None))
    assert answer == {"answer": [4, {"lr": 1}, 2.0, None]}


def test_a_missing_optional_method_answers_nothing_and_a_missing_adopt_asks(target: str) -> None:
    trial = {"id": 4, "hparams": {}}
    answers = served(target, {}, call("ended", trial=trial, reason="errored"), call("adopt", trial=trial))
    assert answers[1:] == [{"answer": None}, {"answer": {"lr": 1}}]


def test_an_error_of_the_class_is_reported_with_its_traceback(target: str) -> None:
    (answer,) = served(target, {"broken": True})
    assert "ValueError: broken on purpose" in str(answer["error"])


def test_an_answer_that_is_not_json_is_an_error(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Search, "ask", lambda _: {"lr": float("nan")})
    answers = served(target, {}, call("ask"))
    assert "error" in answers[1]
