from __future__ import annotations

import json
import platform

from determined._version import __version__


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
