"""The check before a build and the import in a run use these messages; here are their hints."""

from __future__ import annotations

import pytest

from determined._contract.entrypoint import no_such_module, no_such_name, not_a_class, not_a_trial


@pytest.mark.parametrize(
    ("module", "modules", "hint"),
    [
        ("model_deff", ["model_def", "data"], "did you mean `model_def`?"),
        ("trial", ["src.trial", "trials"], "did you mean `src.trial`?"),
        ("x", ["a", "b"], "the context directory contains `a`, `b`"),
        ("x", [], "the context directory contains no Python file"),
    ],
)
def test_a_missing_module_is_compared_with_those_of_the_context(
    module: str, modules: list[str], hint: str
) -> None:
    cause = f"the entrypoint's module `{module}` is not in the context directory"
    assert no_such_module(module, modules) == (cause, hint)


def test_no_more_than_ten_modules_are_listed() -> None:
    _, hint = no_such_module("x", [f"module_{number}" for number in range(99)])
    assert hint.count("`module_") == 10


def test_a_context_directory_is_a_module_only_with_an_init_file() -> None:
    cause, hint = no_such_module("", ["model_def"])
    assert "which has no __init__.py" in cause
    assert hint == "write `<module>:<trial class>`, e.g. `model_def:MNistTrial`"


@pytest.mark.parametrize(
    ("names", "trials", "hint"),
    [
        (["MyTrial", "torch"], ["MyTrial"], "did you mean `MyTrial`?"),
        (["_MyTrail", "Other"], ["Other"], "its trial classes are `Other`"),
        ([], [], "define a trial class there: derive it from determined.pytorch.PyTorchTrial"),
    ],
)
def test_a_missing_class_is_compared_with_public_names_and_then_with_trials(
    names: list[str], trials: list[str], hint: str
) -> None:
    assert no_such_name("m", "MyTrail", names=names, trials=trials) == ("`m` has no `MyTrail`", hint)


def test_what_is_not_a_trial_class_is_named_by_its_kind_or_its_bases() -> None:
    assert not_a_class("m:f", "function")[0] == "the entrypoint `m:f` is a function, not a class"
    assert not_a_trial("m:A", "object")[0] == (
        "the entrypoint `m:A` is not a trial class: it derives from object"
    )
