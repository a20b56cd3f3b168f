from __future__ import annotations

import json
import platform

from detbuild.api import doctor
from determined._version import __version__


def test_the_exit_code_says_whether_anything_is_fatal(shell, monkeypatch):
    monkeypatch.setattr(
        doctor.examine, "__defaults__", ((doctor.Rule("engine", "Engine", doctor.reachable),),)
    )
    assert shell("detbuild", "doctor").code == 0
    shell.engine.go_away()
    outcome = shell("detbuild", "doctor", "--json")
    assert outcome.code == 4
    assert json.loads(outcome.out) == [
        {
            "rule": "engine",
            "group": "Engine",
            "severity": "fatal",
            "finding": "cannot reach Docker Engine (the fake is away)",
            "hint": "start it, or set DOCKER_HOST to where it runs",
        }
    ]


def test_versions_are_shown(shell):
    assert json.loads(shell("det", "version", "--json").out) == {
        "detbuild": __version__,
        "python": platform.python_version(),
        "engine": "28.5.2",
    }


def test_an_engine_that_is_away_is_no_reason_to_fail(shell):
    shell.engine.go_away()
    outcome = shell("det", "version")
    assert (outcome.code, outcome.out.splitlines()[-1]) == (0, "engine    no engine answers")
