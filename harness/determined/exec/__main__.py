"""Start the supervisor, or its child: a `worker`, or a `launch` of several, each with its `rank`."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", False):
        # This entry is the directory of this file or, with `-m`, the current one, the context: its json.py
        # must not be imported here. (Python has loaded the modules imported above at its start.)
        sys.path[0] = os.path.abspath(os.path.join(__file__, "..", "..", ".."))  # noqa: PTH100, PTH118
    if sys.argv[1:2] == ["worker"]:
        from determined.exec.worker import main
    elif sys.argv[1:2] == ["launch"]:
        from determined.launch.torch_distributed import run_worker as main
    elif sys.argv[1:2] == ["rank"]:
        from determined.launch.wrap_rank import main

        del sys.argv[1]
    else:
        from determined.exec.supervisor import main
    sys.exit(main())
