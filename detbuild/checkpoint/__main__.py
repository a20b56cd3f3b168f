"""`python -m detbuild.checkpoint`: carries checkpoints to a bucket and back, for the process that started it.

A process of its own, so that a call that hangs can be ended with it, and so that no library of the cloud is
in the controller. Jobs come in as lines of JSON, answers go out as such; when there is nobody to send jobs
any more, it ends at once, whatever it is doing.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from queue import SimpleQueue

from detbuild.checkpoint.bucket import Bucket
from detbuild.checkpoint.jobs import Job, decode_address
from detbuild.checkpoint.transfer import DamagedError, ForeignError
from detbuild.checkpoint.work import do
from detbuild.errors import DetbuildError


def main() -> None:
    lines: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    address = decode_address(lines.get())
    bucket: Bucket | None = None
    while True:
        job = Job.decode(lines.get())
        try:
            bucket = bucket or Bucket(address, lambda seconds: _say({"allow": seconds}))
            do(job, bucket)
        except DamagedError as error:
            _say({"damaged": str(error)})
        except ForeignError as error:
            _say({"foreign": str(error)})
        except DetbuildError as error:
            _say({"error": str(error), "hint": error.hint})
        except Exception as error:  # noqa: BLE001  (every library of the cloud has errors of its own)
            _say({"error": _text(error)})
        else:
            _say({"done": True})


def _listen(lines: SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        lines.put(line)
    os._exit(0)


def _say(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _text(error: BaseException) -> str:
    """One line; many errors of the network say nothing of themselves, and those that caused them do."""
    text = " ".join(str(error).split()).partition(" RequestId:")[0]  # Azure says all again after it, as XML
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


if __name__ == "__main__":
    main()
