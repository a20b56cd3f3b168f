"""The worker process on its own: lines in, lines out."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from detbuild.checkpoint.bucket import Address
from detbuild.checkpoint.worker import Job

if TYPE_CHECKING:
    from pathlib import Path


def answered(address: Address, *jobs: Job) -> list[dict[str, object]]:
    lines = json.dumps(asdict(address)).encode() + b"\n" + b"".join(job.encode() for job in jobs)
    with subprocess.Popen(
        [sys.executable, "-m", "detbuild.checkpoint"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
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
    address = Address(protocol="file", root=str(tmp_path / "bucket"), extra="")
    prune = Job(do="prune", uuid="missing", root=str(tmp_path))
    failed, done = answered(address, Job(do="check"), prune)
    assert failed == {"error": "FileNotFoundError: there is no bucket"}
    assert done == {"done": True}
