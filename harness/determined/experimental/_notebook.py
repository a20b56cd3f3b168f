"""Converts a notebook to a script: its cells in order, without IPython syntax."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from determined._contract.errors import InvalidTrialError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# Cell magics with a body of Python code, unlike `%%bash` or `%%html`.
_PYTHON_MAGICS = frozenset({"time", "timeit", "capture", "prun"})
_CELL_MAGIC = re.compile(r"\s*%%(\w+)")
_NOT_PYTHON = re.compile(
    r"""^(?P<indent>\s*)(?:
        !|%(?=[A-Za-z])                     # !pip install ..., %matplotlib inline
      | \?                                  # ?name
      | [\w.,\s]*=\s*(?:!|%(?=[A-Za-z]))    # files = !ls
      | [\w.]+\?{1,2}\s*$                   # name?
    )""",
    re.VERBOSE,
)


def script_of(cells: Iterable[str]) -> str:
    """Return the cells as one script; magics and shell commands become `pass`, so that blocks stay valid."""
    return "\n\n".join(cell for cell in map(_python, cells) if cell.strip()) + "\n"


def notebook_cells(path: Path) -> list[str]:
    """Read the code cells of an .ipynb file."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidTrialError(f"{path} is not a notebook: {error}", hint="pass an .ipynb file") from error


def _python(cell: str) -> str:
    magic = _CELL_MAGIC.match(cell)
    if magic is None:
        return cell if _compiles(cell) else "\n".join(_line(line) for line in cell.splitlines())
    if magic[1] not in _PYTHON_MAGICS:
        return ""
    return _python(cell[magic.end() :].partition("\n")[2])


def _compiles(cell: str) -> bool:
    """Whether it is valid Python: an apparent magic is then part of a string or an expression."""
    try:
        compile(cell, "<cell>", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


def _line(line: str) -> str:
    match = _NOT_PYTHON.match(line)
    return f"{match['indent']}pass  # {line.strip()}" if match else line
