"""Runs the jobs of the transfer worker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.checkpoint import transfer

if TYPE_CHECKING:
    from detbuild.checkpoint.bucket import Bucket
    from detbuild.checkpoint.jobs import Job


def run_job(job: Job, bucket: Bucket) -> None:
    """Run a job. It is idempotent: repeating it finishes what a crash interrupted.

    Raises:
        DamagedError: A checkpoint is damaged; retrying does not help.
        ForeignError: The checkpoint belongs to another experiment.
        Exception: Any error of the cloud library.
    """
    root = Path(job.root)
    match job.do:
        case "check":
            bucket.check_writable()
        case "claim":
            transfer.raise_if_foreign(job.uuid, bucket, job.owner)
        case "upload":
            transfer.upload(root / job.uuid, bucket, job.owner)
        case "fetch":
            transfer.fetch(job.uuid, bucket, root)
        case "restore":
            transfer.restore_files(job.uuid, bucket, root)
        case "prune":
            transfer.remove_local(root, job.uuid)
        case "remove":
            _remove(job, root, bucket)
        case "remove files":
            if _is_own(job, job.uuid, bucket):
                transfer.remove_files(job.uuid, bucket, job.paths)
            transfer.remove_local_files(root, job.uuid, job.paths)


def _remove(job: Job, root: Path, bucket: Bucket) -> None:
    for uuid in job.uuids:
        if _is_own(job, uuid, bucket):
            transfer.remove(uuid, bucket)
        transfer.remove_local(root, uuid)


def _is_own(job: Job, uuid: str, bucket: Bucket) -> bool:
    return transfer.is_own(uuid, bucket, job.owner, unsigned=uuid in job.ours)
