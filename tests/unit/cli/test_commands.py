from __future__ import annotations

import os
import subprocess
import sys

import pytest

from detbuild.cli.commands import CHECKPOINT, COMMANDS, DETERMINED_NOUNS, EXPERIMENT, TRIAL, Noun, Verb
from detbuild.cli.commands import det as det_group

TABLES = [COMMANDS, det_group.table, EXPERIMENT.verbs, TRIAL.verbs, CHECKPOINT.verbs]
TABLES += [entry.verbs for entry in COMMANDS.values() if isinstance(entry, Noun)]
VERBS = {entry.target: entry for table in TABLES for entry in table.values() if isinstance(entry, Verb)}


@pytest.mark.parametrize("target", sorted(VERBS))
def test_every_command_of_the_tables_can_be_loaded_and_explains_itself(target):
    command = VERBS[target].load()
    assert command.help
    assert all(
        option.help for option in command.params if option.param_type_name == "option" and not option.hidden
    )


def test_the_help_of_the_group_says_what_the_commands_own_help_says():
    for name, entry in COMMANDS.items():
        if isinstance(entry, Verb):
            first = (entry.load().help or "").splitlines()[0]
            assert first.startswith(entry.help.rstrip(".").split(";")[0].split(":")[0]), name


def test_a_mistyped_command_is_refused_with_the_nearest_one(shell):
    outcome = shell("detbuild", "creat")
    assert (outcome.code, outcome.out) == (2, "")
    assert (
        outcome.err
        == "error: no such command: creat. Did you mean `create`?\n  hint: see `detbuild --help`\n"
    )


def test_a_mistyped_option_is_refused_with_the_nearest_one(shell):
    outcome = shell("detbuild", "list", "--jsn")
    assert outcome.code == 2
    assert "--json" in outcome.err
    assert outcome.err.endswith("  hint: see `detbuild list --help`\n")


def test_a_missing_argument_is_a_usage_error(shell):
    outcome = shell("detbuild", "describe")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: missing argument 'ID...'")


def test_no_command_at_all_shows_the_help(shell):
    outcome = shell("detbuild")
    assert (outcome.code, outcome.out) == (2, "")
    assert "Commands:" in outcome.err


def test_the_version_is_the_harness_version(shell):
    from determined._version import __version__

    assert shell("detbuild", "--version").out == f"{__version__}\n"


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("e", "move", "1"), "error: `move` is not supported: "),
        (("master", "config"), "error: `master` is not supported: detbuild has no server"),
        (("notebook", "start"), "error: `notebook` is not supported: "),
    ],
)
def test_what_determined_has_and_detbuild_has_not_is_answered_with_what_to_do(shell, words, advice):
    outcome = shell("det", *words)
    assert outcome.code == 2
    assert outcome.err.startswith(advice)


@pytest.mark.parametrize(
    "words", [("e", "lt"), ("experiment", "list-trials"), ("t", "logs"), ("c", "download")]
)
def test_short_and_long_words_of_determined_reach_a_command(shell, words):
    outcome = shell("det", *words, "--help")
    assert outcome.code == 0
    assert "Usage: det " in outcome.out


def test_help_is_a_word_too(shell):
    assert shell("detbuild", "help") == shell("detbuild", "--help")
    assert shell("detbuild", "help", "create") == shell("detbuild", "create", "--help")
    assert shell("det", "help", "e", "list") == shell("det", "e", "list", "--help")
    assert "no such command: creat. Did you mean `create`?" in shell("detbuild", "help", "creat").err


@pytest.mark.parametrize("noun", DETERMINED_NOUNS)
def test_a_word_of_the_other_command_line_is_named_as_such(shell, noun):
    outcome = shell("detbuild", noun, "create")
    assert outcome.code == 2
    assert f"use `det {noun} ...`" in outcome.err


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_for_both_commands(shell, name):
    out = shell("detbuild", "completion", name).out
    assert "_DETBUILD_COMPLETE" in out
    assert "_DET_COMPLETE" in out


def test_other_shells_are_refused(shell):
    assert shell("detbuild", "completion", "tcsh").code == 2


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("detbuild desc", ["describe"]),
        ("detbuild describe ", ["3", "2", "1"]),
        ("detbuild logs --ta", ["--tail"]),
        ("detbuild checkpoint ", ["list", "describe", "download", "delete", "gc", "import"]),
    ],
)
def test_commands_options_and_ids_are_completed(shell, words, offered):
    for _ in range(3):
        shell.experiment()
    environ = {
        **os.environ,
        "DETBUILD_HOME": str(shell.home),
        "_DETBUILD_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    code = "from detbuild.cli.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False
    )
    assert [line.partition(",")[2] for line in done.stdout.splitlines()] == offered, done.stderr
