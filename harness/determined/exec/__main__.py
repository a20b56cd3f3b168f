"""Start the supervisor, or its child: a `worker`, or a `launch` of several, each with its `rank`."""

from __future__ import annotations

import os
import sys

_CHILDREN = {
    "worker": "determined.exec.worker:main",
    "launch": "determined.launch.torch_distributed:run_worker",
    "rank": "determined.launch.wrap_rank:main",
}


def _main() -> int:
    import importlib

    program = "determined.exec.supervisor:main"
    if sys.argv[1:2] and sys.argv[1] in _CHILDREN:
        program = _CHILDREN[sys.argv.pop(1)]
    module, _, function = program.partition(":")
    return int(getattr(importlib.import_module(module), function)())


if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", False):
        # This entry is the directory of this file or, with `-m`, the current one, the context: its json.py
        # must not be imported here. (Python has loaded the modules imported above at its start.)
        sys.path[0] = os.path.abspath(os.path.join(__file__, "..", "..", ".."))  # noqa: PTH100, PTH118
    sys.exit(_main())
