"""What is wrong with one experiment stays with it, in every command that goes over all of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from detbuild.store import cache, records
from detbuild.store.experiment_dir import ExperimentFolder
from tests.experiments import uuids, write_experiment


def text(name: str, content: str | bytes) -> Callable[[ExperimentFolder], None]:
    def damage(folder: ExperimentFolder) -> None:
        data = content.encode() if isinstance(content, str) else content
        (folder.path / name).write_bytes(data)

    return damage


def field(name: str, value: object) -> Callable[[ExperimentFolder], None]:
    def damage(folder: ExperimentFolder) -> None:
        file = folder.path / "experiment.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))

    return damage


def without(name: str) -> Callable[[ExperimentFolder], None]:
    def damage(folder: ExperimentFolder) -> None:
        file = folder.path / "experiment.json"
        file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != name}))

    return damage


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[ExperimentFolder], None]:
    def damage(folder: ExperimentFolder) -> None:
        file = folder.path / name
        file.unlink(missing_ok=True)
        make(file)

    return damage


def sparse(file: Path) -> None:
    with file.open("wb") as huge:
        huge.truncate(1 << 40)


def link(file: Path) -> None:
    elsewhere = file.parent.parent / "elsewhere"
    elsewhere.write_text("{}")
    file.symlink_to(elsewhere)


HEADER = "experiment.json"
DAMAGE = {
    "a field of another type": (field("created", "yesterday"), "has a `created` that is text"),
    "a field out of range": (field("created", 1e300), "has a `created` that is out of range"),
    "a list with another type": (field("labels", ["a", 1]), "has a `labels` that is a number"),
    "a list for a text": (field("metric", ["loss"]), "has a `metric` that is a list"),
    "a map for true or false": (field("local", {"a": 1}), "has a `local` that is a map"),
    "null": (field("name", None), "has a `name` that is null"),
    "true for a number": (field("id", True), "has a `id` that is true or false"),
    "the header of another": (field("id", 77), "is the header of experiment 77"),
    "a field is missing": (without("name"), "has no `name`"),
    "no JSON": (text(HEADER, "{"), "not JSON"),
    "not UTF-8": (text(HEADER, b"\xff\xfe\x80"), "not JSON"),
    "another JSON": (text(HEADER, "[1, 2]"), "is not a JSON object"),
    "empty": (text(HEADER, ""), "not JSON"),
    "deep": (text(HEADER, "[" * 100_000), "nested too deeply"),
    "a huge number": (text(HEADER, '{"id": ' + "9" * 10_000 + "}"), "experiment.json: it"),
    "a pipe": (replaced(HEADER, os.mkfifo), "is not a regular file: a named pipe"),
    "a directory": (replaced(HEADER, Path.mkdir), "is not a regular file: a directory"),
    "a link": (replaced(HEADER, link), "is a symbolic link"),
    "a sparse file": (replaced(HEADER, sparse), "is larger than 64 MiB"),
    "attributes that are a pipe": (replaced("attributes.json", os.mkfifo), "attributes.json: it is not"),
    "attributes of another type": (text("attributes.json", '{"weight": "x"}'), "has a `weight` that is text"),
    "attributes that break a rule": (text("attributes.json", '{"priority": 1000}'), "breaks a rule"),
}


@pytest.fixture(params=DAMAGE)
def damage(request):
    return DAMAGE[request.param]


def test_a_damaged_experiment_is_named_with_the_reason_and_hides_no_other(shell, damage):
    make, why = damage
    for _ in range(3):
        write_experiment(shell.home)
    shell("detbuild", "list")  # it is in the index now
    make(ExperimentFolder(shell.home / "experiments" / "2"))
    outcome = shell("detbuild", "list", "--json")
    assert outcome.code == 0
    assert [row["id"] for row in json.loads(outcome.out)] == [3, 1]
    assert outcome.err.count("experiment 2 is damaged and skipped") == 1
    assert why in outcome.err


WORDS = {
    "list": ("detbuild", "list"),
    "det e list": ("det", "e", "list", "--all"),
    "jobs": ("det", "job", "list"),
    "tasks": ("det", "task", "list"),
    "images": ("detbuild", "image", "list"),
    "prune": ("detbuild", "image", "prune"),
    "describe a checkpoint": ("detbuild", "checkpoint", "describe", "UUID"),
    "checkpoints of another": ("detbuild", "checkpoint", "list", "1"),
    "collect another's": ("detbuild", "checkpoint", "gc", "1"),
    "report on another": ("detbuild", "report", "1", "-o", "-"),
    "slots": ("detbuild", "slots"),
}
NAMES = ("list", "det e list", "jobs", "tasks", "images", "prune")  # these go over all


@pytest.mark.parametrize("command", WORDS)
@pytest.mark.parametrize("kind", ["a field of another type", "a pipe", "a link", "a sparse file"])
def test_every_command_that_goes_over_all_does_its_work(shell, command, kind):
    make, why = DAMAGE[kind]
    good = [write_experiment(shell.home), write_experiment(shell.home)]
    bad = write_experiment(shell.home)
    make(bad)
    words = [uuids(good[0])[0] if word == "UUID" else word for word in WORDS[command]]
    outcome = shell(*words)
    assert outcome.code == 0, outcome.err
    assert "bug" not in outcome.err
    if command in NAMES:
        assert outcome.err.count("experiment 3 is damaged") == 1
        assert why in outcome.err


STRAYS = {
    "a regular file": Path.touch,
    "a named pipe": os.mkfifo,
    "a symbolic link": lambda path: path.symlink_to("nothing"),
}


@pytest.mark.parametrize("command", NAMES)
@pytest.mark.parametrize("kind", STRAYS)
def test_whatever_is_named_like_an_experiment_and_is_none_is_named_once(shell, command, kind):
    write_experiment(shell.home)
    STRAYS[kind](shell.home / "experiments" / "9")
    (shell.home / "experiments" / "08").touch()  # not a number that an experiment has
    outcome = shell(*WORDS[command])
    assert outcome.code == 0
    assert outcome.err.count(f"experiments/9 is not the folder of an experiment: it is {kind}") == 1
    assert "experiments/08" not in outcome.err
    assert write_experiment(shell.home).id == 2


def test_an_experiment_that_lies_on_another_disk_by_a_link_is_one(shell, tmp_path):
    folder = write_experiment(shell.home)
    shutil.move(folder.path, tmp_path / "moved")
    folder.path.symlink_to(tmp_path / "moved")
    outcome = shell("detbuild", "list", "--json")
    assert ([row["id"] for row in json.loads(outcome.out)], outcome.err) == ([1], "")


def test_one_that_takes_long_to_read_is_listed_without_its_numbers(shell, monkeypatch):
    for _ in range(2):
        write_experiment(shell.home, state=None)
    slow = ExperimentFolder(shell.home / "experiments" / "2").run(1, 0)
    clock = [0.0]
    true = records.read_run

    def read(folder, **options):
        if folder.path == slow.path:
            clock[0] = 10.0  # seconds
        return true(folder, **options)

    monkeypatch.setattr(records, "read_run", read)
    monkeypatch.setattr(cache.time, "thread_time", lambda: clock[0])
    outcome = shell("detbuild", "list", "--json")
    rows = {row["id"]: row for row in json.loads(outcome.out)}
    assert outcome.code == 0
    assert (
        "experiment 2 is listed without metrics: reading its records takes more than 5 s to read"
        in outcome.err
    )
    assert "detbuild describe 2" in outcome.err
    assert rows[2]["steps_completed"] == 0
    assert rows[1]["steps_completed"] == 10


def test_records_of_a_terabyte_hold_no_listing_up(shell):
    for _ in range(2):
        write_experiment(shell.home, state=None)
    sparse(ExperimentFolder(shell.home / "experiments" / "2").run(1, 0).events)
    outcome = shell("detbuild", "list", "--json")
    rows = {row["id"]: row for row in json.loads(outcome.out)}
    assert outcome.code == 0
    assert (rows[1]["steps_completed"], rows[2]["steps_completed"]) == (10, 0)


def test_a_config_that_is_damaged_is_told_where_it_is_needed(shell):
    good, bad = write_experiment(shell.home), write_experiment(shell.home)
    bad.config_file.unlink()
    os.mkfifo(bad.config_file)
    assert shell("detbuild", "checkpoint", "describe", uuids(good)[0]).code == 0
    outcome = shell("detbuild", "checkpoint", "describe", "nope")
    assert outcome.code == 4
    assert "experiment 2 was not searched" in outcome.err
    assert "is not a regular file: a named pipe" in outcome.err


def test_the_client_lists_the_others(shell, monkeypatch):
    from determined.experimental import client

    write_experiment(shell.home)
    field("created", "x")(write_experiment(shell.home))
    monkeypatch.setenv("DETBUILD_HOME", str(shell.home))
    assert [one.id for one in client.list_experiments()] == [1]


def emptied(folder: ExperimentFolder) -> None:
    folder.journal_file.write_bytes(b"")


def blank(folder: ExperimentFolder) -> None:
    folder.journal_file.write_bytes(b"\n\n")


def removed(folder: ExperimentFolder) -> None:
    folder.journal_file.unlink()


@pytest.mark.parametrize("state", ["COMPLETED", None])
@pytest.mark.parametrize("make", [emptied, blank, removed])
def test_an_emptied_journal_of_a_started_experiment_is_damage_and_never_queued(shell, make, state):
    write_experiment(shell.home)
    folder = write_experiment(shell.home, state=state)
    make(folder)
    outcome = shell("detbuild", "list", "--json")
    assert outcome.code == 0
    assert [row["id"] for row in json.loads(outcome.out)] == [1]
    assert "experiment 2 is damaged and skipped" in outcome.err
    assert "journal.jsonl: it has no entries, but there are runs" in outcome.err
    for words in (("describe", "2"), ("resume", "2"), ("logs", "2"), ("kill", "2")):
        outcome = shell("detbuild", *words)
        assert (outcome.code, "it has no entries, but there are runs" in outcome.err) == (4, True)


def test_an_experiment_that_was_not_started_yet_is_queued(shell):
    folder = write_experiment(shell.home, trials=(), state=None)
    folder.journal_file.unlink(missing_ok=True)
    outcome = shell("detbuild", "list", "--json")
    assert [row["state"] for row in json.loads(outcome.out)] == ["QUEUED"]
    assert outcome.err == ""


def garbage(lines: list[bytes]) -> list[bytes]:
    return [lines[0], b"\xff\x00garbage\n", *lines[2:]]


def doubled(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[1], *lines[2:]]


def missing(lines: list[bytes]) -> list[bytes]:
    return [lines[0], *lines[2:]]


def torn(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1][:20] + b"\n", *lines[2:]]


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (garbage, "line 2: not a journal"),
        (doubled, "line 3: repeats"),
        (missing, "line 2: 1 lines are missing"),
        (torn, "line 2: not a journal"),
    ],
)
def test_damage_of_a_journal_is_told_with_file_and_line_by_list_and_describe(shell, damage, line):
    folder = write_experiment(shell.home)
    shell("detbuild", "list")
    before = folder.journal_file.stat().st_mtime_ns
    lines = folder.journal_file.read_bytes().splitlines(keepends=True)
    folder.journal_file.write_bytes(b"".join(damage(lines)))
    os.utime(folder.journal_file, ns=(before + 1, before + 1))
    for words in (("list",), ("list",), ("describe", "1"), ("logs", "1")):
        outcome = shell("detbuild", *words)
        assert outcome.code == 0
        assert f"{folder.journal_file}, {line}" in outcome.err
