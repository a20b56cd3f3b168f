"""Start the supervisor, or with the argument `worker` the worker: see `determined.exec`."""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
if sys.path and sys.path[0] == str(_HERE):  # started as a directory
    sys.path[0] = str(_HERE.parent.parent)

if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        from determined.exec.worker import main
    else:
        from determined.exec.supervisor import main
    sys.exit(main())
