"""What runs in a container, or in a local process, of one trial: the supervisor and its worker.

Start it as `python3 <ENTRY>`: a directory with a `__main__.py` runs with that directory first on `sys.path`,
so no file of the context, be it called `json.py` or `determined/`, can get in its way. `python3 -m
determined.exec` does the same, but where the current directory has a package `determined` of its own.
"""

from __future__ import annotations

from pathlib import Path

ENTRY = Path(__file__).resolve().parent
