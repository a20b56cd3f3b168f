from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detbuild.errors import ConfigError, SearchError
from detbuild.search import custom as search_custom
from detbuild.search.custom import HookProcess, hook_environment
from detbuild.search.method import (
    Began,
    Close,
    Create,
    Finish,
    Stop,
    Train,
    TrialEnd,
    TrialEnded,
    Validated,
    from_json,
    to_json,
)
from detbuild.search.preview import simulate
from detbuild.search.registry import search_method
from determined._contract.run_info import Length
from tests.unit.search.searches import config_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from detbuild.search.method import SearchMethod


DOUBLING = '''
import json, random, sys
print("a hook may print")

class Search:
    """Doubles the learning rate, and trains on what is better than all before."""
    def __init__(self, about):
        self.about, self.lr, self.best = about, about["options"]["first"], None
        self.salt = random.random()

    def ask(self):
        self.lr *= 2
        return {"lr": self.lr, "salt": self.salt}

    def tell(self, trial, time, metric):
        if metric is None or (self.best is not None and metric >= self.best):
            return None
        self.best = metric
        return time * 2 if time < 8 else None
'''


@pytest.fixture
def context_dir(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def custom(context_dir: Path, code: str, **settings: object) -> SearchMethod:
    (context_dir / "mine.py").write_text(code)
    given = {"hook": "mine:Search", "max_length": {"batches": 2}, "options": {"first": 0.5}, **settings}
    return search_method(config_of("custom", **given), context_dir)


def test_the_hook_gives_trials_and_trains_them_on(context_dir: Path) -> None:
    search = custom(context_dir, DOUBLING, max_trials=3, max_concurrent_trials=1)
    simulation = simulate(search, lambda create, length: float(create.hparams["lr"]) / length)
    assert [create.hparams["lr"] for create in simulation.creates.values()] == [1, 2, 4]
    assert simulation.trained == {1: [2, 4, 8], 2: [2], 3: [2]}
    assert search.progress == 1


def test_request_ids_and_seeds_are_drawn_as_for_any_search(context_dir: Path) -> None:
    from detbuild.config.hyperparameters import RandomState, identity

    random = RandomState(0)
    creates = [
        action
        for action in custom(context_dir, DOUBLING, max_trials=2).decide(Began())
        if isinstance(action, Create)
    ]
    assert [(create.request_id, create.seed) for create in creates] == [identity(random), identity(random)]


def test_a_restart_takes_the_answers_of_before(context_dir: Path) -> None:
    search = custom(context_dir, DOUBLING, max_trials=4, max_concurrent_trials=1)
    events = [
        Began(),
        Validated(trial_id=1, time=2, metric=0.5),
        Validated(trial_id=1, time=4, metric=0.6),
        TrialEnded(trial_id=1, reason=TrialEnd.COMPLETED),
    ]
    history = [(event, search.decide(event)) for event in events]
    assert history[1][1] == [Train(trial_id=1, length=Length("batches", 4))]
    assert history[2][1] == [Close(trial_id=1)]
    again = custom(context_dir, DOUBLING, max_trials=4, max_concurrent_trials=1)
    for event, actions in history:
        again.replay(event, [from_json(to_json(action)) for action in actions])
    assert again.progress == search.progress == 0.25
    next_event = Validated(trial_id=2, time=2, metric=0.7)
    assert again.decide(next_event) == search.decide(next_event) == [Close(trial_id=2)]
    create, *_ = again.decide(TrialEnded(trial_id=2, reason=TrialEnd.COMPLETED))
    assert create.trial_id == 3
    assert create.hparams["lr"] == 4  # the first two were asked for again


ADOPTING = """
class Search:
    def __init__(self, about):
        self.seen = []
    def ask(self):
        return {"seen": list(self.seen)}
    def tell(self, trial, time, metric):
        self.seen.append([trial.id, time, metric])
        return False if metric is None else True
    def ended(self, trial, reason):
        self.seen.append([trial.hparams, reason])
    def adopt(self, trial):
        self.seen.append(["adopted", trial.id])
"""


def test_a_hook_may_watch_every_validation_and_stop(context_dir: Path) -> None:
    search = custom(context_dir, ADOPTING, stop_once=True, max_trials=3, max_concurrent_trials=1)
    assert search.needs_every_validation
    create, *rest = search.decide(Began())
    assert rest == [Train(trial_id=1, length=Length("batches", 2)), Close(trial_id=1)]
    assert search.decide(Validated(trial_id=1, time=1, metric=0.5)) == []
    assert search.decide(Validated(trial_id=1, time=1.5, metric=None)) == [Stop(trial_id=1)]
    second, *_ = search.decide(TrialEnded(trial_id=1, reason=TrialEnd.ERRORED))
    assert second.hparams == {"seen": [[1, 1, 0.5], [1, 1.5, None], [create.hparams, "errored"]]}
    again = custom(context_dir, ADOPTING, stop_once=True, max_trials=3, max_concurrent_trials=1)
    again.replay(Began(), [create, *rest])
    second, *_ = again.decide(TrialEnded(trial_id=1, reason=TrialEnd.ERRORED))
    assert second.hparams == {"seen": [["adopted", 1], [create.hparams, "errored"]]}


def test_a_hook_without_more_ends_the_search(context_dir: Path) -> None:
    code = "class Search:\n    def __init__(self, about): pass\n    def ask(self): return None\n"
    assert custom(context_dir, code).decide(Began()) == [Finish()]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("def ask(self): return 1 / 0", "raised an error"),
        ("def ask(self): return 3", "must return None, or a dict of hyperparameters, not 3"),
        ("def ask(self): return {'x': float('nan')}", "raised an error"),
        ("def ask(self): return {'x': object()}", "raised an error"),
        ("def ask(self): import os; os._exit(3)", "has ended"),
        ("pass", "raised an error"),
    ],
)
def test_what_goes_wrong_in_a_hook_is_said(context_dir: Path, body: str, what: str) -> None:
    code = f"class Search:\n    def __init__(self, about): pass\n    {body}\n"
    with pytest.raises(SearchError, match=what) as caught:
        custom(context_dir, code).decide(Began())
    assert "continue the experiment" in caught.value.hint


def test_a_model_directory_that_is_gone_is_said(context_dir: Path) -> None:
    search = custom(context_dir, DOUBLING)
    (context_dir / "mine.py").unlink()
    context_dir.rmdir()
    with pytest.raises(SearchError, match=f"cannot be started in {context_dir}"):
        search.decide(Began())


@pytest.mark.parametrize("answer", ["2", "1", "'far'", "True"])
def test_a_trial_cannot_be_trained_to_where_it_is(context_dir: Path, answer: str) -> None:
    code = (
        "class Search:\n    def __init__(self, about): pass\n    def ask(self): return {}\n"
        f"    def tell(self, trial, time, metric): return {answer}\n"
    )
    search = custom(context_dir, code)
    search.decide(Began())
    with pytest.raises(SearchError, match="tell must return None, or a whole number above 2"):
        search.decide(Validated(trial_id=1, time=2, metric=1))


def test_a_hook_that_hangs_is_ended(context_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_custom, "ANSWER_TIMEOUT", 0.2)
    code = "import time\nclass Search:\n    def __init__(self, about): time.sleep(60)\n"
    with pytest.raises(SearchError, match="has not answered"):
        custom(context_dir, code).decide(Began())


@pytest.mark.parametrize(
    ("settings", "what"),
    [({"hook": None}, "needs a hook"), ({"max_length": None}, "needs max_length")],
)
def test_a_custom_search_needs_a_hook_and_a_length(
    context_dir: Path, settings: dict[str, object], what: str
) -> None:
    with pytest.raises(ConfigError, match=what):
        custom(context_dir, DOUBLING, **settings)


def test_without_a_model_directory_there_is_no_hook() -> None:
    with pytest.raises(ConfigError, match="needs a hook"):
        search_method(config_of("custom", hook="mine:Search", max_length=2))


@pytest.mark.parametrize("hook", ["mine", "mine:Search()", "../mine:Search", ":Search", "mine:"])
def test_a_hook_is_a_module_and_a_class(hook: str) -> None:
    with pytest.raises(ConfigError, match=r"a class, e\.g\. search:Search"):
        config_of("custom", hook=hook, max_length=2)


def test_a_busy_hook_ends_with_the_process_that_started_it(context_dir: Path, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    (context_dir / "busy.py").write_text(
        "import os\nfrom pathlib import Path\n"
        "class Search:\n    def __init__(self, about):\n"
        f"        Path({str(pid) + '.tmp'!r}).write_text(str(os.getpid()))\n"
        f"        os.rename({str(pid) + '.tmp'!r}, {str(pid)!r})\n"
        "        while True:\n            pass\n"
    )
    code = (
        "import sys\nfrom pathlib import Path\nfrom detbuild.search.custom import HookProcess\n"
        "HookProcess('busy:Search', {}, Path(sys.argv[1]), {}).call('ask')"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(context_dir)])
    until(pid.exists)
    parent.kill()
    parent.wait()
    stat = Path(f"/proc/{pid.read_text()}/stat")
    until(lambda: not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120  # what takes longer hangs
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


CANARY = "c4n4ry"


def test_the_environment_of_a_hook_is_an_allow_list() -> None:
    host = {
        "PATH": "/bin",
        "HOME": "/home/u",
        "LC_ALL": "C",
        "HTTP_PROXY": "http://proxy:3128",
        "https_proxy": f"http://u:{CANARY}@proxy:3128",
        "ALL_PROXY": f"u:{CANARY}@proxy:3128",
        "no_proxy": "localhost",
        "PYTHONPATH": "/x",
        "PYTHON_TOKEN": CANARY,
        "AWS_SECRET_ACCESS_KEY": CANARY,
        "ANYTHING": CANARY,
    }
    kept = {name: host[name] for name in ("PATH", "HOME", "LC_ALL", "HTTP_PROXY", "no_proxy", "PYTHONPATH")}
    assert hook_environment(host, {"MINE": "1", "HOME": "/other"}) == {**kept, "HOME": "/other", "MINE": "1"}


def test_a_hook_sees_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "import os\nclass Search:\n    def __init__(self, _): ...\n    def ask(self): return dict(os.environ)"
    )
    monkeypatch.setenv("ANYTHING", CANARY)
    hook = HookProcess("mine:Search", {}, tmp_path, {"MINE": "1"})
    seen = hook.call("ask")
    hook.close()
    assert isinstance(seen, dict)
    assert (seen.get("MINE"), seen.get("ANYTHING")) == ("1", None)
