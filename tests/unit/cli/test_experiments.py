"""Commands about an experiment that runs or is over: wait, cancel, kill, resume."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from detbuild.controller.lease import lease
from detbuild.controller.loop import controller_of
from detbuild.runtime.docker import DockerRuntime
from detbuild.store import journal
from detbuild.store.annotations import Attributes, read_attributes
from detbuild.store.experiment_dir import ExperimentFolder
from detbuild.store.home import Home, mark_deleting
from detbuild.store.state import State, load
from tests.experiments import write_experiment
from tests.unit.cli.shells import UUID, train_until_told


def test_an_empty_home_lists_nothing_and_says_how_to_begin(shell):
    outcome = shell("detbuild", "list")
    assert (outcome.code, outcome.out) == (0, "")
    assert "detbuild create CONFIG DIR" in outcome.err


def test_a_listing_shows_the_newest_first(shell):
    shell.experiment("first")
    shell.experiment("second", finished=None)
    lines = shell("detbuild", "list").out.splitlines()
    assert lines[0].split() == [
        "ID",
        "NAME",
        "STATE",
        "DONE",
        "TRIALS",
        "BATCHES",
        "BEST",
        "CHECKPOINTS",
        "CREATED",
    ]
    assert [line.split()[:9] for line in lines[1:]] == [
        ["2", "second", "running", "0", "%", "1", "10", "validation_loss=0.25", "1"],
        ["1", "first", "completed", "100", "%", "1", "10", "validation_loss=0.25", "1"],
    ]


def test_a_listing_for_programs_has_the_documented_keys(shell):
    folder = shell.experiment()
    (row,) = json.loads(shell("detbuild", "list", "--json").out)
    ended = row.pop("ended")
    assert ended > row["created"]
    assert row == {
        "id": 1,
        "name": "mnist",
        "state": "COMPLETED",
        "why": "",
        "metric": "validation_loss",
        "best": 0.25,
        "steps_completed": 10,
        "progress": 1.0,
        "trial_count": 1,
        "checkpoint_count": 1,
        "created": 1_700_000_000.0,
        "local": False,
        "test_mode": False,
        "labels": [],
        "archived": False,
        "folder": str(folder.path),
    }


def test_every_key_of_the_json_is_named_in_the_help(shell):
    shell.experiment()
    text = shell("detbuild", "list", "--help").out
    (row,) = json.loads(shell("detbuild", "list", "--json").out)
    assert [key for key in row if f'"{key}"' not in text] == []


def test_ids_alone_come_one_a_line(shell):
    shell.experiment()
    shell.experiment()
    assert shell("detbuild", "list", "-q").out == "2\n1\n"


def test_a_name_with_terminal_escapes_is_shown_and_not_obeyed(shell):
    shell.experiment("evil \x1b[2J\x1b]0;owned\x07 \u202egnp")
    for words in (("list",), ("describe", "1")):
        out = shell("detbuild", *words).out
        assert "evil \\x1b[2J\\x1b]0;owned\\x07 \\u202egnp" in out
        assert "\x1b" not in out


def test_describe_shows_state_metrics_checkpoints_and_folders(shell):
    folder = shell.experiment()
    out = shell("detbuild", "describe", "1").out
    for part in (
        "experiment 1  mnist",
        "state      completed",
        "best       validation_loss=0.25 accuracy=0.9 at batch 10",
        f"folder     {folder.path}",
        "hyperparameters  lr=0.001",
        f"checkpoint       {UUID}  batch 10  2.0 kB",
        f"run 0  completed  {folder.run(1, 0).path}",
    ):
        assert part in out


def test_describe_says_how_many_records_were_rejected(shell):
    folder = shell.experiment()
    assert "rejected" not in shell("detbuild", "describe", "1").out
    with folder.run(1, 0).events.open("ab") as events:
        events.write(b"garbage\n{}\n")
    assert "rejected         2 invalid records in events.jsonl" in shell("detbuild", "describe", "1").out


def test_describe_names_skipped_records_of_a_newer_version(shell):
    folder = shell.experiment()
    with folder.run(1, 0).events.open("ab") as events:
        events.write(
            b'{"seq":99,"run":"1-0","time":1,"kind":"power \x1b[31m"}\n'.replace(b"\x1b", b"\\u001b")
        )
    out = shell("detbuild", "describe", "1").out
    assert "skipped          records of a newer detbuild in events.jsonl: power " in out
    assert "rejected" not in out
    assert "\x1b" not in out


def test_describe_for_programs_nests_trials_checkpoints_and_runs(shell):
    shell.experiment()
    document = json.loads(shell("detbuild", "describe", "1", "--json").out)
    (trial,) = document["trials"]
    assert (document["id"], document["state"]) == (1, "COMPLETED")
    assert trial["hparams"] == {"lr": 0.001}
    assert trial["validations"] == [
        {"steps_completed": 10, "metrics": {"validation_loss": 0.25, "accuracy": 0.9}}
    ]
    assert [checkpoint["uuid"] for checkpoint in trial["checkpoints"]] == [UUID]
    assert [run["outcome"] for run in trial["runs"]] == ["completed"]


@pytest.mark.parametrize("words", [("describe", "7"), ("logs", "7"), ("checkpoint", "list", "7")])
def test_an_experiment_that_is_not_there_is_an_error(shell, words):
    outcome = shell("detbuild", *words)
    assert outcome.code == 2
    assert outcome.err == "error: there is no experiment 7\n  hint: see `detbuild list`\n"


def test_determineds_words_show_the_same(shell):
    shell.experiment()
    assert shell("det", "e", "list", "--json") == shell("detbuild", "list", "--json")
    assert shell("det", "experiment", "describe", "1") == shell("detbuild", "describe", "1")
    assert shell("det", "e", "lt", "1").out.splitlines()[1].split() == [
        "1/1",
        "completed",
        "10",
        "0",
        "lr=0.001",
    ]
    assert shell("det", "t", "describe", "1").out.startswith("trial 1  completed  batch 10  restarts 0\n")


def test_a_trial_is_named_by_its_experiment_and_number(shell):
    shell.experiment()
    assert shell("det", "t", "describe", "1/1").code == 0
    missing = shell("det", "t", "describe", "1/2")
    assert (missing.code, missing.err) == (
        2,
        "error: experiment 1 has no trial 2\n  hint: its trials: 1\n",
    )
    assert "e.g. 3/1" in shell("det", "t", "describe", "one").err


CREATE = ("detbuild", "create", "const.yaml", ".")


@pytest.fixture
def _no_controller(shell, monkeypatch: pytest.MonkeyPatch) -> None:  # after what `shell` sets
    """What is asked for stays asked for."""
    monkeypatch.setattr("detbuild.controller.requests.start_detached", lambda folder, _: None)


def asked(shell) -> list[tuple[str, int | None]]:
    requests = Home.open(shell.home).folder(1).inbox().after(0)
    return [(request.verb, request.trial_id) for request in requests]


@pytest.mark.usefixtures("_no_controller")
def test_an_experiment_is_paused_and_activated(shell):
    shell.experiment(finished=None)
    outcome = shell("detbuild", "pause", "1")
    assert (outcome.code, outcome.err) == (0, "experiment 1 stopping (pause): detbuild activate 1\n")
    outcome = shell("det", "e", "activate", "1")
    assert (outcome.code, outcome.err) == (0, "experiment 1 continues; detbuild logs 1 -f\n")
    assert asked(shell) == [("pause", None), ("activate", None)]


@pytest.mark.usefixtures("_no_controller")
@pytest.mark.parametrize("verb", ["pause", "cancel", "kill"])
def test_a_verb_takes_several_experiments_and_asks_none_when_one_is_not_there(shell, verb):
    for _ in range(3):
        shell.experiment(finished=None)
    assert shell("detbuild", verb, "1", "2-9").code == 2
    assert asked(shell) == []
    assert shell("det", "e", verb, "1,3").code == 0
    assert asked_of_three(shell) == [[verb], [], [verb]]


@pytest.mark.usefixtures("_no_controller")
def test_several_paused_experiments_are_activated(shell):
    for _ in range(3):
        shell.experiment(finished=None)
    shell("detbuild", "pause", "1-3")
    assert shell("detbuild", "activate", "1", "3").code == 0
    assert asked_of_three(shell) == [["pause", "activate"], ["pause"], ["pause", "activate"]]


def asked_of_three(shell) -> list[list[str]]:
    found = [Home.open(shell.home).folder(id_).inbox().after(0) for id_ in (1, 2, 3)]
    return [[request.verb for request in requests] for requests in found]


@pytest.mark.usefixtures("_no_controller")
def test_what_has_ended_cannot_rest(shell):
    shell.experiment()
    for words in (("detbuild", "pause", "1"), ("det", "e", "unpause", "1")):
        outcome = shell(*words)
        assert (outcome.code, outcome.err.splitlines()) == (
            2,
            [
                "error: experiment 1 has ended: completed",
                "  hint: run `detbuild continue 1` to continue what was not completed",
            ],
        )
    assert asked(shell) == []


@pytest.mark.usefixtures("_no_controller")
def test_an_experiment_that_is_completed_goes_on_when_it_is_to_train_longer(shell, project):
    shell(*CREATE, "-f")
    assert "there is nothing to continue" in shell("detbuild", "continue", "1").err
    outcome = shell("det", "e", "continue", "1", "--config", "searcher.max_length.batches=900")
    assert (outcome.code, outcome.err) == (0, "experiment 1 continues; detbuild logs 1 -f\n")
    assert asked(shell) == [("continue", None)]


@pytest.mark.usefixtures("_no_controller")
def test_a_paused_experiment_is_said_to_be_paused(shell, project):
    shell(*CREATE, "--paused")
    assert shell("detbuild", "pause", "1").err == "experiment 1 paused: detbuild activate 1\n"


@pytest.mark.usefixtures("_no_controller")
def test_changes_for_the_continuation_may_be_in_a_file_and_it_may_be_followed(
    shell, project, monkeypatch: pytest.MonkeyPatch
):
    shell(*CREATE, "-f")

    def control(folder: ExperimentFolder, held: int) -> None:
        controller_of(folder, DockerRuntime.of(folder, shell.engine)).run()

    monkeypatch.setattr("detbuild.controller.requests.start_detached", control)
    (project / "longer.yaml").write_text("searcher: {max_length: {batches: 900}}\n")
    outcome = shell("det", "e", "continue", "1", "--config-file", "longer.yaml", "-f")
    assert (outcome.code, outcome.out.splitlines()[0]) == (0, "experiment 1 continues")
    assert "experiment 1 completed" in outcome.out
    assert outcome.err.startswith("next:\n  detbuild describe 1\n")


@pytest.mark.usefixtures("_no_controller")
def test_a_local_experiment_goes_on_here(shell, project):
    (project / "train.py").write_text("raise SystemExit(3)\n")
    shell.environ["PATH"] = os.environ["PATH"]
    local = ("entrypoint=[python3, train.py]", "max_restarts=0")
    create = (*CREATE, "--local", *(word for change in local for word in ("--config", change)))
    assert shell(*create).code == 6
    (project / "train.py").write_text("print('well')\n")
    outcome = shell("detbuild", "continue", "1")
    assert (outcome.code, outcome.out.splitlines()[0]) == (0, "experiment 1 continues")
    assert "[trial 1] well" in outcome.out
    assert "there is nothing to continue" in shell("detbuild", "continue", "1").err


@pytest.mark.usefixtures("_no_controller")
def test_one_trial_is_killed_alone(shell):
    shell.experiment(finished=None)
    outcome = shell("det", "trial", "kill", "1/1")
    assert (outcome.code, outcome.err) == (0, "trial 1/1 stopping (kill); other trials keep running\n")
    assert asked(shell) == [("kill", 1)]
    assert "has no trial 2" in shell("det", "trial", "kill", "1/2").err


@pytest.mark.usefixtures("_no_controller")
def test_a_trial_that_has_ended_is_not_killed(shell):
    shell.experiment(finished=None)
    folder = Home.open(shell.home).folder(1)
    folder.record(journal.RunFinished(trial_id=1, run=0, outcome="completed"))
    folder.record(journal.TrialFinished(trial_id=1, state="COMPLETED"))
    assert shell("det", "trial", "kill", "1/1").err == "trial 1/1 has already ended: completed\n"
    assert asked(shell) == []


@pytest.fixture
def folder(shell):
    return write_experiment(shell.home)


def listed(shell, *words):
    return [row["id"] for row in json.loads(shell("detbuild", "list", "--json", *words).out)]


def test_archived_experiments_are_hidden_until_all_are_asked_for(shell, folder):
    write_experiment(shell.home)
    assert shell("detbuild", "archive", "1").code == 0
    assert (listed(shell), listed(shell, "--all")) == ([2], [2, 1])
    shell("det", "e", "unarchive", "1")
    assert listed(shell) == [2, 1]


def test_what_runs_is_not_hidden(shell):
    write_experiment(shell.home)
    write_experiment(shell.home, state=None)
    outcome = shell("det", "e", "archive", "1", "2")
    assert (outcome.code, listed(shell)) == (2, [2, 1])
    assert "experiment 2 has not ended: it is running" in outcome.err


def test_a_label_that_is_not_there_is_not_removed(shell, folder):
    shell("det", "e", "label", "add", "1", "hot")
    outcome = shell("det", "e", "label", "remove", "1", "cold")
    assert (outcome.code, outcome.err.splitlines()[0]) == (2, "error: experiment 1 has no label cold")
    assert "hot" in outcome.err
    assert shell("det", "e", "label", "remove", "1", "hot").code == 0


def test_several_experiments_are_named_in_any_way(shell):
    for _ in range(5):
        write_experiment(shell.home)
    shell("det", "e", "archive", "1,2", "4-5")
    assert listed(shell) == [3]
    assert "is not an experiment ID" in shell("detbuild", "archive", "x").err
    assert "'5-3' is reversed; expected 3-5" in shell("detbuild", "describe", "5-3").err


def test_nothing_is_archived_when_one_of_the_experiments_is_not_there(shell, folder):
    outcome = shell("detbuild", "archive", "1", "9")
    assert (outcome.code, listed(shell)) == (2, [1])
    assert "there is no experiment 9" in outcome.err


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (("name", "1", "other"), Attributes(name="other")),
        (("description", "1", "about"), Attributes(description="about")),
        (("notes", "1", "note"), Attributes(notes="note")),
        (("max-slots", "1", "4"), Attributes(max_slots=4)),
        (("max-slots", "1", "none"), Attributes(max_slots=0)),
        (("weight", "1", "2.5"), Attributes(weight=2.5)),
        (("priority", "1", "9"), Attributes(priority=9)),
        (
            (
                *("gc-policy", "1", "--save-experiment-best", "3", "--save-trial-best", "0"),
                *("--save-trial-latest", "2", "--yes"),
            ),
            Attributes(save_experiment_best=3, save_trial_best=0, save_trial_latest=2),
        ),
    ],
)
def test_each_attribute_is_set_by_determineds_words_and_ours(shell, folder, words, changed):
    for program in (("detbuild",), ("det", "experiment")):
        (folder.path / "attributes.json").unlink(missing_ok=True)
        assert shell(*program, "set", *words).code == 0
        assert read_attributes(folder.path) == changed


@pytest.mark.parametrize(
    "words",
    [("max-slots", "1", "many"), ("max-slots", "1", "0"), ("priority", "1", "0"), ("weight", "1", "x")],
)
def test_values_that_make_no_sense_are_usage_errors(shell, folder, words):
    assert shell("detbuild", "set", *words).code == 2
    assert read_attributes(folder.path) == Attributes()


def test_a_policy_that_removes_checkpoints_is_asked_for_twice(shell, folder):
    words = ("--save-experiment-best", "0", "--save-trial-best", "0", "--save-trial-latest", "0")
    outcome = shell("detbuild", "set", "gc-policy", "1", *words)
    assert outcome.code == 2
    assert "add --yes to permanently delete" in outcome.err


def test_labels_come_and_go(shell, folder):
    shell("det", "e", "label", "add", "1", "good")
    shell("detbuild", "label", "add", "1", "good")
    (row,) = json.loads(shell("detbuild", "list", "--json").out)
    assert row["labels"] == ["first", "good"]
    shell("det", "e", "label", "remove", "1", "first")
    assert json.loads(shell("detbuild", "describe", "1", "--json").out)["labels"] == ["good"]


def test_what_was_set_shows_wherever_an_experiment_is_shown(shell, folder):
    shell("detbuild", "list")  # the index now holds the submitted name
    shell("detbuild", "set", "name", "1", "renamed")
    shell("detbuild", "set", "description", "1", "about")
    shell("detbuild", "set", "notes", "1", "mine")
    assert "renamed" in shell("detbuild", "list").out
    assert shell("detbuild", "describe", "1").out.startswith("experiment 1  renamed")
    document = json.loads(shell("detbuild", "describe", "1", "--json").out)
    assert [document[key] for key in ("name", "description", "notes")] == ["renamed", "about", "mine"]


def test_deleting_is_asked_for_twice(shell):
    write_experiment(shell.home)
    outcome = shell("detbuild", "delete", "1")
    assert (outcome.code, shell("detbuild", "list", "-q").out) == (2, "1\n")
    assert "add --yes to permanently delete experiment 1 and all checkpoints" in outcome.err


def test_deleted_experiments_are_gone_from_the_list(shell):
    for _ in range(3):
        write_experiment(shell.home)
    assert shell("det", "experiment", "delete", "1,3", "--yes").code == 0
    assert shell("detbuild", "list", "-q").out == "2\n"
    assert shell("detbuild", "describe", "1").code == 2


def test_nothing_is_deleted_when_one_of_them_is_not_there(shell):
    write_experiment(shell.home)
    assert shell("detbuild", "delete", "1", "7", "--yes").code == 2
    assert shell("detbuild", "list", "-q").out == "1\n"


def test_one_that_runs_is_refused_with_what_to_do(shell):
    write_experiment(shell.home, state=None)
    outcome = shell("detbuild", "delete", "1", "--yes")
    assert outcome.code == 2
    assert "run `detbuild kill 1` and `detbuild wait 1`, then delete it" in outcome.err


def test_one_that_runs_is_refused_in_the_same_words_while_its_controller_holds_it(shell):
    folder = write_experiment(shell.home, state=None)
    with lease(folder.lock_file):
        assert "experiment 1 has not ended" in shell("detbuild", "delete", "1", "--yes").err


def test_a_listing_finishes_what_a_crash_left(shell):
    mark_deleting(write_experiment(shell.home))
    assert shell("detbuild", "list", "--json").out == "[]\n"
    assert not (shell.home / "experiments" / "1").exists()


def test_one_that_cannot_be_finished_is_listed_as_such(shell, monkeypatch):
    mark_deleting(write_experiment(shell.home))

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("shutil.rmtree", refuse)
    monkeypatch.setattr("determined._contract.untrusted.UntrustedDir.remove_tree", refuse)
    outcome = shell("detbuild", "list", "--json")
    assert [row["state"] for row in json.loads(outcome.out)] == ["DELETING"]
    assert "could not finish a deletion" in outcome.err


def test_waiting_for_a_paused_experiment_prints_how_to_unpause_it(shell, monkeypatch):
    folder = shell.experiment(finished=None)
    folder.record(journal.RequestApplied(number=1, verb="pause"))
    folder.record(journal.Paused())
    monkeypatch.setattr(
        "detbuild.controller.requests.wait",
        lambda home, id_, emit: replace(load(folder), state=State.COMPLETED),
    )
    hint = "experiment 1 paused: detbuild activate 1\n"
    assert shell("detbuild", "wait", "1").err == hint
    monkeypatch.setattr("detbuild.api.logs.TrialLogs._ended", lambda logs, state: True)
    assert shell("detbuild", "logs", "1", "-f").err.startswith(hint)


@pytest.mark.parametrize(("state", "code"), [("COMPLETED", 0), ("ERROR", 6), ("CANCELED", 7)])
def test_waiting_gives_the_exit_code_of_the_experiment(shell, state, code):
    shell.experiment(state=state)
    outcome = shell("detbuild", "wait", "1")
    assert (outcome.code, outcome.out) == (code, f"experiment 1 {state.lower()}\n")


@pytest.mark.parametrize("verb", ["cancel", "kill"])
def test_an_experiment_that_runs_can_be_ended(shell, project, monkeypatch, verb):
    shell.engine.program = train_until_told
    monkeypatch.setattr(
        "detbuild.experiment.start_detached", lambda _folder, _held: None
    )  # as if it had died at once
    shell("detbuild", "create", "const.yaml", ".")
    outcome = shell("det", "e", verb, "1")
    assert outcome.code == 0
    assert outcome.err == f"experiment 1 stopping ({verb}): detbuild wait 1\n"
    assert shell("detbuild", "wait", "1").code == 7
    assert shell.engine.containers == {}


def test_ending_what_has_ended_says_so(shell):
    shell.experiment()
    outcome = shell("detbuild", "kill", "1")
    assert (outcome.code, outcome.err) == (0, "experiment 1 has already ended: completed\n")


def test_resume_takes_up_what_lost_its_controller(shell, project, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("detbuild.experiment.start_detached", lambda _folder, _held: None)
        shell("detbuild", "create", "const.yaml", ".")
    outcome = shell("detbuild", "resume")
    assert (outcome.code, outcome.out) == (0, "1\n")
    assert shell("detbuild", "wait", "1").out == "experiment 1 completed\n"


@pytest.mark.parametrize("words", [(), ("1",)], ids=["all", "one"])
def test_resume_tries_again_what_could_not_be_uploaded_or_removed(shell, monkeypatch, words):
    folder = shell.experiment()
    folder.record(journal.CheckpointsDeleted(uuids=("u",)))
    monkeypatch.setattr("detbuild.controller.requests.start_detached", lambda _folder, _held: None)
    assert shell("detbuild", "resume", *words).out == "1\n"
    folder.record(journal.CheckpointsRemoved(uuids=("u",)))
    assert shell("detbuild", "resume", *words).out == ""


def test_resume_takes_up_all_others_when_one_cannot_be_read(shell, monkeypatch):
    (shell.experiment().path / "experiment.json").write_text("{")
    shell.experiment(finished=None)
    taken = []
    monkeypatch.setattr(
        "detbuild.controller.requests.start_detached", lambda folder, _: taken.append(folder.id)
    )
    outcome = shell("detbuild", "resume")
    assert (outcome.code, taken) == (4, [2])
    assert "experiments/1/experiment.json" in outcome.err


@pytest.mark.parametrize("words", [(), ("1",)], ids=["all", "one"])
def test_resume_has_nothing_to_do_when_all_have_ended(shell, words):
    shell.experiment()
    outcome = shell("detbuild", "resume", *words)
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.startswith("nothing to resume")


def test_killing_a_trial_kills_its_experiment(shell, project, monkeypatch):
    shell.engine.program = train_until_told
    monkeypatch.setattr("detbuild.experiment.start_detached", lambda _folder, _held: None)
    shell("detbuild", "create", "const.yaml", ".")
    assert shell("det", "t", "kill", "1/1").code == 0
    assert shell("detbuild", "wait", "1").code == 7


def test_waiting_for_several_gives_the_worst_exit_code(shell):
    for state in ("COMPLETED", "CANCELED", "ERROR"):
        shell.experiment(state=state)
    outcome = shell("detbuild", "wait", "1-3")
    assert (outcome.code, outcome.out.splitlines()) == (
        6,
        ["experiment 1 completed", "experiment 2 canceled", "experiment 3 error"],
    )
    assert [shell("detbuild", "wait", "1", id_).code for id_ in ("2", "1")] == [7, 0]
