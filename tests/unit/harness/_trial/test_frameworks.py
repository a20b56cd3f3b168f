"""The framework of a trial class, ours or that of a package."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from determined import Trial
from determined._contract.errors import InvalidTrialError
from determined._trial.frameworks import BUILT_IN, PACKAGES, runner_of
from tests.plugins import write_package

if TYPE_CHECKING:
    from pathlib import Path


def trial(runner: str) -> type[Trial]:
    return type("Toy", (Trial,), {"_runner": runner})


def train() -> None: ...


def test_a_runner_may_be_named_itself() -> None:
    assert runner_of(trial(f"{__name__}:train")) is train


@pytest.mark.parametrize(("name", "library"), [("pytorch", "torch"), ("keras", "tensorflow")])
def test_our_own_frameworks_have_names(name: str, library: str) -> None:
    pytest.importorskip(library)
    found = runner_of(trial(name))
    assert f"{found.__module__}:{found.__name__}" == BUILT_IN[name]
    assert hasattr(sys.modules[found.__module__], "context_of")


def test_a_package_adds_a_framework(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path / "site")
    write_package(tmp_path / "site", "determined.frameworks", "odd", "raise ValueError('odd')")
    write_package(tmp_path / "site", "determined.frameworks", "module", "run_trial = 1")
    for name, error in (("odd", "ValueError: odd"), ("module", "it is not a function")):
        with pytest.raises(InvalidTrialError, match=f"package detbuild-{name} 1.0 cannot be used: {error}"):
            runner_of(trial(name))
    with pytest.raises(InvalidTrialError, match="does not derive") as caught:
        runner_of(Trial)
    assert caught.value.hint.endswith("TFKerasTrial, or the trial class of module, or the trial class of odd")
    assert PACKAGES.loaded == ()


def test_a_framework_that_is_not_installed_is_named() -> None:
    with pytest.raises(InvalidTrialError, match="is of the framework 'other', which no installed") as caught:
        runner_of(trial("other"))
    assert "requirements.txt" in caught.value.hint
