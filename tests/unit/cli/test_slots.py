from __future__ import annotations

import json
import time

import pytest

from detbuild.runtime.slot_requests import SlotRequest, SlotRequests
from tests.fakes import ContainerSpec, gpus, run_for_ever


@pytest.fixture
def busy(shell, tmp_path):
    """Two GPUs, one of them held; experiments that wait for both kinds of slots."""
    shell.engine.program = run_for_ever
    shell.engine.engine_info = gpus("0", "1")
    image = shell.engine.add_image("some:image")
    labels = {
        "detbuild.home": "aaaa",
        "detbuild.experiment": "3",
        "detbuild.trial": "2",
        "detbuild.user": "0",
        "detbuild.weight": "1",
        "detbuild.gpus": "nvidia.com/gpu=1",
    }
    shell.engine.start(shell.engine.create(ContainerSpec(name="c", image=image, labels=labels)))
    now = time.monotonic()
    held = []
    for number, slots in ((4, 2), (5, 9)):
        requests = SlotRequests(tmp_path / "detbuild-slots")
        requests.hold(
            SlotRequest(
                engine="fake",
                kind="gpu",
                user="0",
                experiment=f"aaaa/{number}",
                slots=slots,
                asked=now,
                waiting={"1": now - 61.0, "2": now},
            )
        )
        held.append(requests)
    return held


def test_a_slot_that_a_person_has_opened_a_shell_with_is_theirs(shell, monkeypatch, tmp_path):
    monkeypatch.setattr("detbuild.runtime.slot_requests.lock_directory", lambda: tmp_path)
    shell.engine.program = run_for_ever
    shell.engine.engine_info = gpus("0")
    labels = {"detbuild.shell": "4", "detbuild.user": "0", "detbuild.gpus": "nvidia.com/gpu=0"}
    spec = ContainerSpec(name="c", image=shell.engine.add_image("some:image"), labels=labels)
    shell.engine.start(shell.engine.create(spec))
    assert shell("detbuild", "slots").out.splitlines()[1].split() == [
        "nvidia.com/gpu=0",
        "shell",
        "of",
        "4",
        "root",
    ]


def test_slots_shows_who_has_what_and_who_waits_for_it_in_order(shell, busy, monkeypatch, tmp_path):
    monkeypatch.setattr("detbuild.runtime.slot_requests.lock_directory", lambda: tmp_path)
    lines = [line.split(maxsplit=6) for line in shell("detbuild", "slots").out.splitlines()]
    assert lines[:3] == [
        ["SLOT", "TRIAL", "USER"],
        ["nvidia.com/gpu=0", "-", "-"],
        ["nvidia.com/gpu=1", "3/2", "root"],
    ]
    assert lines[3][:4] == ["CPU", "slot", "1", "-"]
    assert lines[-5] == ["NEXT", "TRIAL", "USER", "REQUESTS", "PRIORITY", "WAITED", "REASON"]
    assert [(line[0], line[1], line[3]) for line in lines[-4:]] == [
        ("1", "4/1", "2"),
        ("2", "4/2", "2"),
        ("-", "5/1", "9"),
        ("-", "5/2", "9"),
    ]
    assert [line[6].split("  ") for line in lines[-4:]] == [
        ["0:01:01", "1 of 2 GPUs free, 2 needed"],
        ["0:00:00", "after other trials of its experiment"],
        ["0:01:01", "needs 9 GPUs, this host has 2"],
        ["0:00:00", "after other trials of its experiment"],
    ]


def test_slots_keeps_to_what_the_home_may_use(shell, busy, monkeypatch, tmp_path):
    monkeypatch.setattr("detbuild.runtime.slot_requests.lock_directory", lambda: tmp_path)
    shell.home.mkdir(exist_ok=True)
    (shell.home / "config.yaml").write_text("cpu_trials: 2\ngpus: [1]\n")
    lines = [line.split("  ")[0] for line in shell("detbuild", "slots").out.splitlines()[1:5]]
    assert lines == [
        "nvidia.com/gpu=0 (outside this home's limit)",
        "nvidia.com/gpu=1",
        "CPU slot 1",
        "CPU slot 2",
    ]


def test_slots_for_programs_has_the_documented_keys(shell, busy, monkeypatch, tmp_path):
    monkeypatch.setattr("detbuild.runtime.slot_requests.lock_directory", lambda: tmp_path)
    found = json.loads(shell("detbuild", "slots", "--json").out)
    assert found["slots"][1] == {
        "kind": "gpu",
        "slot": "nvidia.com/gpu=1",
        "usable": True,
        "experiment": 3,
        "trial": 2,
        "user": "root",
        "home": "aaaa",
    }
    assert [row["position"] for row in found["queued"]] == [1, 2, None, None]
    text = shell("detbuild", "slots", "--help").out
    keys = {key for rows in found.values() for row in rows for key in row} | set(found)
    assert [key for key in keys if f'"{key}"' not in text] == []


def test_a_slot_that_is_held_beyond_the_limit_is_shown(shell, monkeypatch, tmp_path):
    monkeypatch.setattr("detbuild.runtime.slot_requests.lock_directory", lambda: tmp_path)
    shell.engine.program = run_for_ever
    shell.engine.engine_info = gpus("0")
    image = shell.engine.add_image("some:image")
    spec = ContainerSpec(
        name="c", image=image, labels={"detbuild.gpus": "GPU-5c9e", "detbuild.user": "nobody?"}
    )
    shell.engine.start(shell.engine.create(spec))
    lines = [line.split("  ") for line in shell("detbuild", "slots").out.splitlines()]
    assert ["GPU-5c9e (outside this home's limit)", "?", "nobody?"] in [
        list(filter(None, line)) for line in lines
    ]


def test_nothing_about_waiting_is_said_when_nobody_waits(shell, monkeypatch, tmp_path):
    monkeypatch.setattr("detbuild.runtime.slot_requests.lock_directory", lambda: tmp_path)
    assert "REASON" not in shell("detbuild", "slots").out
    assert json.loads(shell("detbuild", "slots", "--json").out)["queued"] == []


@pytest.mark.parametrize("words", [("slot", "list"), ("s", "list")])
def test_determineds_words_show_the_same(shell, monkeypatch, tmp_path, words):
    monkeypatch.setattr("detbuild.runtime.slot_requests.lock_directory", lambda: tmp_path)
    assert shell("det", *words).out == shell("detbuild", "slots").out
