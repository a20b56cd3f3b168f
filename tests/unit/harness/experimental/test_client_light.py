"""What importing the client costs, and what it does inside a container, where detbuild is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HARNESS = Path(__file__).parents[4] / "harness"


def run(body):
    return subprocess.run(
        [sys.executable, "-S", "-c", body],
        check=False,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(HARNESS)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_importing_the_client_imports_nothing_of_detbuild():
    done = run(
        "import sys\n"
        "from determined.experimental import Determined, client\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('detbuild', 'pydantic', 'torch')])"
    )
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_a_script_that_logs_in_at_its_top_runs_in_a_container_too():
    done = run(
        "from determined.experimental import client\n"
        "client.login('http://master', 'me', 'secret', cert_path='x')\n"
        "client.logout()"
    )
    assert done.returncode == 0, done.stderr
    assert "login has no effect: there is no server" in done.stderr
    assert "secret" not in done.stderr


def test_where_detbuild_is_not_the_client_says_so():
    done = run("from determined.experimental import client\nclient.get_experiment(1)")
    assert done.returncode == 1
    assert (
        "HarnessError: determined.experimental.client works on a host, but detbuild is not installed here"
        in done.stderr
    )
