from __future__ import annotations

import pytest
from pydantic_core import PydanticCustomError

from detbuild.config.experiment import GIVEN, Entrypoint, parse_entrypoint
from tests.unit.config.configs import refusal, taken


@pytest.mark.parametrize(
    ("text", "module", "trial_class"),
    [
        ("model_def:MNistTrial", "model_def", "MNistTrial"),
        (":MNistTrial", "", "MNistTrial"),
        (
            "determined_lib.trial:trial_classes.NestedTrial",
            "determined_lib.trial",
            "trial_classes.NestedTrial",
        ),
        ("model_def:Outer.Inner", "model_def", "Outer.Inner"),
        ("dir-name.mod:T", "dir-name.mod", "T"),
        ("v1.2-beta.mod:T", "v1.2-beta.mod", "T"),
        (" model_def:T\n", "model_def", "T"),
        ("größe:Modell", "größe", "Modell"),
        ("模块:类", "模块", "类"),
    ],
)
def test_module_and_class_make_a_trial(text: str, module: str, trial_class: str) -> None:
    entrypoint = parse_entrypoint(text)
    assert (entrypoint.kind, entrypoint.module, entrypoint.trial_class) == ("trial", module, trial_class)


@pytest.mark.parametrize(
    "text",
    [
        "python3 train.py",
        "python3 -m determined.launch.torch_distributed -- python3 train.py --at a:b",
        "./train.sh",
        "train.sh",
        "A=1 ./train.sh",
        "FOO=a:b:c",
        "echo 'a: b'",
        "cd src && python3 -c 'import x'",
    ],
)
def test_other_text_is_a_shell_command_byte_for_byte(text: str) -> None:
    assert parse_entrypoint(text) == Entrypoint("shell", text)


def test_a_list_is_an_argument_list() -> None:
    assert parse_entrypoint(["python3", "a b.py", ""]) == Entrypoint("argv", ("python3", "a b.py", ""))


def test_only_a_trial_has_a_module_and_a_class() -> None:
    assert [(e.module, e.trial_class) for e in (GIVEN, Entrypoint("argv", ("a:b",)))] == [("", ""), ("", "")]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("model_def.py:Trial", "model_def:Trial"),
        ("model_def:", "model_def:MyTrial"),
        ("model_def:Trial()", "model_def:Trial"),
        ("model_def: Trial", "model_def:Trial"),
        ("model_def::Trial", "model_def:Trial"),
        ("src/model_def:Trial", "src.model_def:Trial"),
        ("./model_def.py:Trial", "model_def:Trial"),
        ("model_def.MyTrial", "model_def:MyTrial"),
        (".model_def:Trial", "model_def:Trial"),
        ("model_def:1Trial", "model_def:MyTrial"),
        ("a..b:T", "model_def:MyTrial"),
        ("a:b:c", "model_def:MyTrial"),
        (":", ":MyTrial"),
        ("\N{LEFT DOUBLE QUOTATION MARK}a:B\N{RIGHT DOUBLE QUOTATION MARK}", "model_def:MyTrial"),
    ],
)
def test_a_slip_is_refused_with_what_was_meant(text: str, meant: str) -> None:
    with pytest.raises(PydanticCustomError) as caught:
        parse_entrypoint(text)
    assert caught.value.context is not None
    assert caught.value.context["hint"] == f"write `{meant}`, or a command as a list"


def test_a_script_by_itself_is_refused_with_the_command_that_runs_it() -> None:
    with pytest.raises(PydanticCustomError) as caught:
        parse_entrypoint("train.py")
    assert caught.value.context is not None
    assert caught.value.context["hint"] == "write `python3 train.py` to run it as a script"


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ([], "is empty"),
        ([""], "is empty"),
        (["python3", 5], "must be text, not 5"),
        ({"a": 1}, "must be text or a list of text, not a map"),
        (True, "must be text or a list of text, not true"),
    ],
)
def test_what_cannot_be_run_is_refused(value: object, what: str) -> None:
    with pytest.raises(PydanticCustomError) as caught:
        parse_entrypoint(value)
    assert caught.value.context is not None
    assert caught.value.context["what"] == what


def test_labels_are_a_set_in_their_first_order() -> None:
    assert taken("labels: [b, a, b]", "labels") == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "profiling: {begin_on_batch: 5, end_after_batch: 4}",
            "profiling.end_after_batch: must be at least begin_on_batch",
        ),
        (
            "optimizations: {mixed_precision: o1}",
            "optimizations.mixed_precision: must be O0, O1, O2 or O3, not 'o1'",
        ),
        (
            "optimizations: {aggregation_frequency: 0}",
            "optimizations.aggregation_frequency: must be at least 1, not 0",
        ),
        ("slurm: {slots_per_node: 0}", "slurm.slots_per_node: must be at least 1, not 0"),
    ],
)
def test_a_broken_rule_is_told_by_its_path(text: str, problem: str) -> None:
    assert refusal(text).startswith(problem)


def test_dead_sections_are_read_and_kept() -> None:
    text = "data_layer: {type: s3}\ninternal: {native: {command: [a]}}\nsecurity: {}"
    assert taken(text, "internal") == {"native": {"command": ["a"]}}
