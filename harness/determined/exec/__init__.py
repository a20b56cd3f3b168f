"""What runs in a container, or in a local process, of one trial: the supervisor and its worker.

Start it as `python3 <ENTRY>`: a directory with a `__main__.py` runs with that directory first on `sys.path`,
so no file of the context, be it called `json.py` or `determined/`, can get in its way. `python3 -m
determined.exec` runs the same where the current directory is harmless.
"""

from __future__ import annotations

from pathlib import Path

ENTRY = Path(__file__).resolve().parent
