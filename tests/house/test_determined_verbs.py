"""Everything that a user of Determined types is either there or answered with what to type instead."""

from __future__ import annotations

import click
import pytest

from detbuild.cli.commands import EXPERIMENT, LazyGroup, det

VERBS = {
    "experiment": "create list describe config logs wait pause activate unpause cancel kill archive unarchive"
    " delete continue download download-model-def list-trials lt list-checkpoints lc label set move"
    " delete-tb-files",
    "experiment set": "name description gc-policy max-slots weight priority log-retention",
    "experiment label": "add remove",
    "trial": "describe download logs kill support-bundle set",
    "checkpoint": "list describe download delete rm",
    "model": "create list describe register-version list-versions delete move",
    "tensorboard": "start list open logs kill config",
    "notebook": "start list open logs kill config",
    "shell": "start list open logs kill config show-ssh-command",
    "command": "run list open logs kill config",
    "template": "create set describe list remove",
    "job": "list update update-batch",
    "task": "create fork list logs pause unpause kill",
    "deploy": "local",
    "preview-search": "",
    "version": "",
    **dict.fromkeys(("master", "agent", "slot", "user", "workspace", "project", "resources"), ""),
    **dict.fromkeys(("dev", "rbac", "user-group", "resource-pool"), ""),
}
ALIASES = {
    "e": "experiment",
    "t": "trial",
    "c": "checkpoint",
    "m": "model",
    "tpl": "template",
    "cmd": "command",
    "a": "agent",
    "s": "slot",
    "u": "user",
}
LINES = [
    (*noun.split(), *([verb] if verb else []))
    for noun, verbs in VERBS.items()
    for verb in (verbs.split() or [""])
]


def answer(words: tuple[str, ...]) -> str:
    """ "there" for a command, else the line that a user gets."""
    group: click.Command = det
    for index, word in enumerate(words):
        if not isinstance(group, LazyGroup):
            return "there"
        with click.Context(group, info_name="det") as context:
            try:
                _, command, _ = group.resolve_command(context, list(words[index:]))
            except click.UsageError as error:
                return error.message
        assert command is not None, word
        group = command
    return "there"


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_every_verb_is_there_or_answered_with_its_replacement(words: tuple[str, ...]) -> None:
    said = answer(words)
    assert said == "there" or " is not supported: " in said, said


@pytest.mark.parametrize(("alias", "noun"), ALIASES.items())
def test_an_alias_is_answered_as_the_word_it_stands_for(alias: str, noun: str) -> None:
    assert answer((alias,)).replace(f"`{alias}`", f"`{noun}`") == answer((noun,))


def test_a_word_that_determined_never_had_is_no_command() -> None:
    assert answer(("experiment", "frobnicate")) == "no such command: frobnicate"


@pytest.mark.parametrize(
    "words",
    [
        "experiment list --pages all --limit 1 --offset 0 --csv --all",
        "experiment wait --polling-interval 1 1",
        "experiment continue 1 --config-file f --config a=1 -f",
        "experiment create c.yaml . -i x --config a=1 --template t -f",
        "checkpoint download u --mode direct -o d",
        "job list --yaml",
        "job list --table",
        "job update 1 --priority 1 --weight 2",
        "template list --details",
        "tensorboard start 1 --no-browser",
    ],
)
def test_common_flags_of_determined_are_taken(words: str) -> None:
    """Parsed, and nothing more."""
    command: click.Command = det
    rest = words.split()
    context = click.Context(det, info_name="det")
    while isinstance(command, LazyGroup):
        _, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command = found
    command.make_context("det", rest)


@pytest.mark.parametrize("flag", ["-p", "--publish", "--project_id", "--git"])
def test_a_flag_without_a_meaning_here_says_so(flag: str) -> None:
    with pytest.raises(click.UsageError, match=" is not supported: "):
        EXPERIMENT.verbs["create"].load().make_context("create", ["c.yaml", ".", flag, "1"])
