"""The worker process on its own: lines in, lines out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from detbuild import codec
from detbuild.checkpoint.worker import Job
from tests.plugins import write_package

if TYPE_CHECKING:
    from pathlib import Path


STORAGE = """
    from typing import Literal
    from detbuild.config.storage import StorageConfig

    class Config(StorageConfig):
        type: Literal["shelf"] = "shelf"

    class Shelf:
        def write(self, key, body):
            raise FileNotFoundError("no shelf")

    def open(config):
        return Shelf()
"""


def answered(site: Path, storage: dict[str, object], *jobs: Job) -> list[dict[str, object]]:
    lines = b"".join(map(codec.line, [storage, *map(codec.to_json, jobs)]))
    command = [sys.executable, "-m", "detbuild.checkpoint"]
    environ = {**os.environ, "PYTHONPATH": str(site)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(lines)
        process.stdin.flush()
        answers: list[dict[str, object]] = []
        while len(answers) < len(jobs):
            answer = json.loads(process.stdout.readline())
            if "allow" not in answer:
                answers.append(answer)
        process.stdin.close()
        assert process.wait(60) == 0
    return answers


def test_the_error_of_a_job_is_its_answer_and_the_next_job_still_runs(tmp_path: Path) -> None:
    write_package(tmp_path / "site", "detbuild.storages", "shelf", STORAGE)
    prune = Job(do="prune", uuid="missing", root=str(tmp_path))
    failed, done = answered(tmp_path / "site", {"type": "shelf"}, Job(do="check"), prune)
    assert failed == {"error": "FileNotFoundError: no shelf"}
    assert done == {"done": True}
