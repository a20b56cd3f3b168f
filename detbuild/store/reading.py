"""Reads the JSON documents of an experiment; damage is an error that names file and cause."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from detbuild.errors import EngineError
from determined._untrusted import UntrustedDir, UntrustedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from detbuild.store.typed import T

LARGEST_DOCUMENT: Final = 64 << 20  # bytes of one JSON document of an experiment
REPAIR: Final = "repair it, or move the experiment's folder aside"


def read_document(file: Path, parse: Callable[[object], T], *, hint: str = REPAIR) -> T:
    """Read and parse a JSON document of at most 64 MiB, without following links.

    Args:
        parse: Raises ValueError for an invalid document.
        hint: Shown if the document is damaged.

    Raises:
        FileNotFoundError: The file does not exist.
        EngineError: It is damaged.
    """
    try:
        return parse(json.loads(UntrustedDir(file.parent).read(file.name, LARGEST_DOCUMENT)))
    except FileNotFoundError:
        raise
    except (UntrustedError, ValueError, RecursionError) as error:
        raise EngineError(f"cannot read {file}: {_why(error)}", hint=hint) from error


def as_map(raw: object) -> dict[str, object]:
    """Return a JSON object unchanged; raise ValueError for anything else."""
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
