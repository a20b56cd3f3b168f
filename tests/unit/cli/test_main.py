from __future__ import annotations

import subprocess
import sys

import click
import pytest

from detbuild.api.client import Client
from detbuild.cli.__main__ import run
from detbuild.cli.output import no_output
from detbuild.errors import (
    BuildError,
    CanceledError,
    ConfigError,
    ContextError,
    EngineError,
    ExperimentError,
    LeaseError,
)
from determined._contract.run_info import home_of
from tests.fakes import FakeEngine

HEAVY = ("docker", "pydantic", "yaml", "jinja2", "rich", "torch", "h2", "pathspec", "sqlite3")


def raising(error: BaseException) -> click.Group:
    @click.group()
    def group():
        pass

    @group.command()
    @click.option("--debug", is_flag=True)
    def fail(debug):
        raise error

    return group


@pytest.fixture
def client(tmp_path):
    return Client(path=tmp_path, environ={}, connect=FakeEngine, emit=no_output)


def test_an_error_is_shown_with_its_hint(client, capfd):
    code = run(
        raising(ConfigError("no such field: x", hint="did you mean `y`?")), "detbuild", ["fail"], client
    )
    assert code == 2
    assert tuple(capfd.readouterr()) == ("", "error: no such field: x\n  hint: did you mean `y`?\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (ContextError("x"), 3),
        (EngineError("x"), 4),
        (BuildError("x"), 5),
        (ExperimentError("x"), 6),
        (CanceledError("x"), 7),
        (LeaseError("x"), 75),
        (KeyboardInterrupt(), 130),
        (RuntimeError("x"), 1),
    ],
)
def test_each_kind_of_error_has_its_exit_code(client, error, code):
    assert run(raising(error), "detbuild", ["fail"], client) == code


def test_a_traceback_is_kept_in_the_log_and_not_shown(client, capfd):
    run(raising(RuntimeError("boom")), "detbuild", ["fail"], client)
    err = capfd.readouterr().err
    log = client.path / "log" / "detbuild.log"
    assert err.startswith("error: detbuild failed: RuntimeError: boom\n")
    assert str(log) in err
    assert "Traceback" not in err
    assert "RuntimeError: boom" in log.read_text()


def test_debug_shows_the_traceback(client, capfd):
    run(raising(ConfigError("boom")), "detbuild", ["fail", "--debug"], client)
    assert "Traceback (most recent call last)" in capfd.readouterr().err


def test_a_log_that_cannot_be_written_hides_no_error(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    client = Client(path=tmp_path / "file", environ={}, connect=FakeEngine, emit=no_output)
    assert run(raising(ConfigError("boom")), "detbuild", ["fail"], client) == 2
    assert capfd.readouterr().err == "error: boom\n"


def test_control_characters_in_an_error_do_not_reach_the_terminal(client, capfd):
    run(raising(ConfigError("bad \x1b]0;owned\x07 name")), "detbuild", ["fail"], client)
    assert capfd.readouterr().err == "error: bad \\x1b]0;owned\\x07 name\n"


@pytest.mark.parametrize(
    ("environ", "home"),
    [
        ({"DETBUILD_HOME": "/a", "XDG_DATA_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_DATA_HOME": "/b", "HOME": "/c"}, "/b/detbuild"),
        ({"HOME": "/c"}, "/c/.local/share/detbuild"),
    ],
)
def test_the_home_comes_from_the_environment(environ, home):
    assert str(home_of(environ)) == home


@pytest.mark.parametrize(
    "words",
    [["--help"], ["create", "--help"], ["creat"], ["logs", "--tial"], ["completion", "bash"]],
    ids=" ".join,
)
def test_help_usage_errors_and_completion_import_nothing_heavy(words):
    code = f"""
import sys
from detbuild.cli.__main__ import run
from detbuild.cli.commands import detbuild
from detbuild.api.client import Client
from detbuild.cli.output import no_output
from pathlib import Path
client = Client(path=Path("/nowhere"), environ={{}}, connect=None, emit=no_output)
run(detbuild, "detbuild", {words!r}, client)
print("HEAVY", sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"
