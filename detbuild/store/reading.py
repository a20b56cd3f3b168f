"""Reads the small files of an experiment: damage of any kind is an error that names file and cause."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from detbuild.errors import EngineError
from determined._untrusted import UntrustedDir, UntrustedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeVar

    T = TypeVar("T")

LARGEST_DOCUMENT: Final = 64 << 20  # bytes of one JSON document of an experiment
REPAIR: Final = "repair it, or move the experiment's folder away"


def read_document(file: Path, parse: Callable[[object], T], *, hint: str = REPAIR) -> T:
    """Read a JSON document of at most 64 MiB, through no link, and make a value of it.

    Args:
        file: In the folder of an experiment.
        parse: Raises ValueError for what it cannot take.
        hint: What can be done about damage.

    Raises:
        FileNotFoundError: There is no such file.
        EngineError: It is damaged.
    """
    try:
        return parse(json.loads(UntrustedDir(file.parent).read(file.name, LARGEST_DOCUMENT)))
    except FileNotFoundError:
        raise
    except (UntrustedError, ValueError, RecursionError) as error:
        raise EngineError(f"cannot read {file}: {_why(error)}", hint=hint) from error


def as_map(raw: object) -> dict[str, object]:
    """Take a JSON object as it is."""
    if isinstance(raw, dict):
        return raw
    raise ValueError("is not a JSON object")


def _why(error: Exception) -> str:
    if isinstance(error, UntrustedError):
        return f"it {error.reason}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
        return f"it is not JSON ({error})"
    return f"it {error}"
