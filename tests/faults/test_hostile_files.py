"""What a trial puts where its records and its output were harms no host and holds nothing up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.test_host_faults import resident

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.real import Trial

RUN = "/run/detbuild/run"
RECORDS = {
    "is not a regular file: a directory": "rm events.jsonl; mkdir events.jsonl",
    "is not a regular file: a named pipe": "rm events.jsonl; mkfifo events.jsonl",
    "is a symbolic link": "rm events.jsonl; ln -s /etc/passwd events.jsonl",
    "256 MiB that are not records": "truncate -s 1T events.jsonl",
}


def detbuild(home: Path, *words: str, name: str = "detbuild") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name(name), *words],
        env={"DETBUILD_HOME": str(home), "PATH": "/usr/bin:/bin", "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("why", RECORDS)
def test_a_trial_that_destroys_its_records_ends_with_their_file_as_the_cause(
    submit: Callable[..., Trial], why: str
) -> None:
    trial = submit(entrypoint=["sh", "-c", f"cd {RUN}; {RECORDS[why]}"], max_restarts=0)
    state = trial.end()
    assert state.state == "ERROR"
    assert f"{trial.folder.run(1, 0).events} " in state.trials[1].why
    assert why in state.trials[1].why
    listed = detbuild(trial.home.path, "list")
    assert (listed.returncode, "error" in listed.stdout) == (0, True)


def test_an_experiment_whose_records_claim_a_terabyte_can_be_killed(submit: Callable[..., Trial]) -> None:
    trial = submit(
        entrypoint=["sh", "-c", f"cd {RUN}; truncate -s 1T events.jsonl; sleep 3600"], max_restarts=0
    )
    events = trial.folder.run(1, 0).events
    trial.until(lambda: events.exists() and events.stat().st_size == 1 << 40, what="the terabyte")
    trial.until(trial.controller, what="the controller")
    assert detbuild(trial.home.path, "list").returncode == 0
    assert resident(trial.controller()) < 1 << 30
    assert detbuild(trial.home.path, "kill", str(trial.id)).returncode == 0
    assert trial.end().state == "CANCELED"
    assert trial.engine.inspect(trial.container()) is None


def test_links_in_the_place_of_the_logs_show_nothing_of_the_host(
    submit: Callable[..., Trial], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a file of the host that no container can read\n")
    swap = " && ".join(f"rm {name} && ln -s {secret} {name}" for name in ("stdout.log", "stderr.log"))
    trial = submit(
        entrypoint=["sh", "-c", f"cd {RUN} && {swap} && ln -s {tmp_path} tensorboard"], max_restarts=0
    )
    trial.end()
    home = trial.home.path
    shown = detbuild(home, "logs", str(trial.id))
    detbuild(home, "report", str(trial.id), "-o", str(tmp_path / "report.html"))
    detbuild(home, "trial", "support-bundle", f"{trial.id}/1", "-o", str(tmp_path / "bundle"), name="det")
    assert "stdout.log is a symbolic link; skipped" in shown.stdout
    assert "a file of the host" not in shown.stdout + shown.stderr
    assert "a file of the host" not in (tmp_path / "report.html").read_text()
    unpacked = subprocess.run(
        ["sh", "-c", f"cat {tmp_path}/bundle/* | gunzip -c"], capture_output=True, check=False
    ).stdout
    assert b"left-out.txt" in unpacked
    assert b"a file of the host" not in unpacked
