"""`python -m detbuild.checkpoint`: the worker process that transfers checkpoints to and from a bucket.

It is a separate process so that a hung call can be killed and the controller loads no cloud library. Jobs
arrive and results leave as lines of JSON; when its standard input closes, it exits at once.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from queue import SimpleQueue

from detbuild.checkpoint.bucket import CheckpointBucket, open_bucket
from detbuild.checkpoint.transfer import DamagedError, ForeignError
from detbuild.checkpoint.worker import decode_job, decode_storage, run_job
from detbuild.errors import DetbuildError


def main() -> None:
    lines: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    storage = lines.get()
    bucket: CheckpointBucket | None = None
    while True:
        job = decode_job(lines.get())
        try:
            bucket = bucket or CheckpointBucket(open_bucket(decode_storage(storage)), _allow)
            run_job(job, bucket)
        except DamagedError as error:
            _say({"damaged": str(error)})
        except ForeignError as error:
            _say({"foreign": str(error)})
        except DetbuildError as error:
            _say({"error": str(error), "hint": error.hint})
        except Exception as error:  # noqa: BLE001  (each cloud library has its own errors)
            _say({"error": _text(error)})
        else:
            _say({"done": True})


def _listen(lines: SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        lines.put(line)
    os._exit(0)


def _allow(seconds: float) -> None:
    _say({"allow": seconds})


def _say(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _text(error: BaseException) -> str:
    """Format an error as one line, with its type."""
    text = " ".join(str(error).split()).partition(" RequestId:")[0]  # Azure repeats it after that as XML
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


if __name__ == "__main__":
    main()
