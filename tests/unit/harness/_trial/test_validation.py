from __future__ import annotations

import logging
import sys
import warnings
from typing import TYPE_CHECKING

import pytest

from determined._contract.errors import HarnessError, InvalidHP, InvalidTrialError
from determined._trial.validation import LengthWatch, is_enabled, preflight_errors, silence

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Model:
    """Assigns attributes while it trains, one of them in a function inside."""

    def __init__(self) -> None:
        self.ready = True

    def train_batch(self) -> None:
        self.mean = 0.0

        def inner() -> None:
            self.late = 1

        inner()

    def evaluate_batch(self, name: str) -> object:
        return getattr(self, name)


@pytest.mark.parametrize(
    ("config", "enabled"),
    [({}, True), ({"preflight_validation": True}, True), ({"preflight_validation": False}, False)],
)
def test_it_is_on_unless_the_config_says_otherwise(config: dict[str, object], enabled: bool) -> None:
    assert is_enabled(config) is enabled


def test_output_is_hidden_while_all_is_well(capfd: pytest.CaptureFixture[str]) -> None:
    with silence(), warnings.catch_warnings():
        sys.stdout.write("hidden\n")
        sys.stderr.write("hidden too\n")
        logging.getLogger("mine").critical("hidden as well")
        warnings.warn("and this", stacklevel=1)
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == 0


def test_output_is_shown_before_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        sys.stdout.write("why it failed\n")
        raise ValueError

    with pytest.raises(ValueError), silence():
        fail()
    assert capfd.readouterr().err == "why it failed\n"


def raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_an_error_that_would_recur_ends_the_trial_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "model_def.py"
    file.write_text("def evaluate():\n    raise TypeError('no tensor')\n")
    scope: dict[str, Callable[[], None]] = {}
    exec(compile(file.read_text(), str(file), "exec"), scope)
    with pytest.raises(InvalidTrialError) as refused, preflight_errors((), tmp_path):
        scope["evaluate"]()
    said = "preflight validation failed: model_def.py:2 in evaluate: TypeError: no tensor"
    assert str(refused.value) == said
    assert "`preflight_validation: false`" in refused.value.hint


def test_hyperparameters_that_cannot_work_skip_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with preflight_errors((), tmp_path):
        raise InvalidHP("lr < 0")
    assert "skipping the preflight validation" in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        HarnessError("no disk"),
        MemoryError(),
        ConnectionResetError("gone"),
        KeyError("transient"),
        RuntimeError("CUDA out of memory"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_may_pass_stays_as_it_is(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as found, preflight_errors((), tmp_path, passing=(KeyError,)):
        raising(error)()
    assert found.value is error


@pytest.mark.parametrize(("name", "ends"), [("mean", False), ("late", False), ("never", True)])
def test_an_attribute_that_training_assigns_may_be_there_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, ends: bool
) -> None:
    model = Model()
    if ends:
        with pytest.raises(InvalidTrialError, match=name), preflight_errors((model,), tmp_path):
            model.evaluate_batch(name)
        return
    with preflight_errors((model,), tmp_path):
        model.evaluate_batch(name)
    assert "a real validation may succeed" in caplog.text


def test_a_value_that_is_wrong_on_few_batches_may_be_right_on_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def evaluate_full_dataset() -> float:
        return 1 / len("")

    with preflight_errors((), tmp_path):
        evaluate_full_dataset()
    assert "a real validation may succeed" in caplog.text


def test_an_endless_validation_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = LengthWatch()
    watch.begin(trained=20)  # 10 times that many
    for _ in range(199):
        watch.batch()
    assert caplog.messages == []
    for _ in range(500):
        watch.batch()
    assert [message[:31] for message in caplog.messages] == ["validation has taken 200 batches"[:31]]


def test_a_short_training_allows_a_hundred_batches(caplog: pytest.LogCaptureFixture) -> None:
    watch = LengthWatch()
    for trained in (1, 2, 3):  # each validation is counted anew
        watch.begin(trained)
        for _ in range(99):
            watch.batch()
    assert caplog.messages == []
    watch.batch()
    assert len(caplog.messages) == 1
