"""Checks the context directory and the included paths that a user passes."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from detbuild.errors import ContextError

if TYPE_CHECKING:
    from pathlib import Path

    from detbuild.context.snapshot import ContextSnapshot


def context_root(context_dir: Path, *, home: Path | None, allow_anything: bool) -> bytes:
    """Check a context directory and return its real path.

    Args:
        context_dir: as the user gave it.
        home: the user's home directory, which is rejected like `/`.
        allow_anything: accept them anyway.
    """
    if not stat.S_ISDIR(_stat(context_dir, "the context directory").st_mode):
        raise ContextError(
            f"the context {context_dir} is not a directory",
            hint="pass the directory of your model code; add single files with --include",
        )
    root = os.path.realpath(os.fsencode(context_dir))
    if not os.access(root, os.R_OK | os.X_OK, effective_ids=True):
        raise ContextError(
            f"no permission to read the context directory {context_dir}", hint="make it readable"
        )
    unlikely = {b"/"} | ({os.path.realpath(os.fsencode(home))} if home is not None else set())
    if root in unlikely and not allow_anything:
        raise ContextError(
            f"the context directory {context_dir} is {_whose(root)}: all of it would go into the image",
            hint="pass the directory of your model code, or --allow-any-context",
        )
    return root


def _whose(root: bytes) -> str:
    return "the root of the file system" if root == b"/" else "your home directory"


def include_root(include: Path) -> tuple[bytes, bytes, os.stat_result]:
    """Return name in the context, real path and state of an included file or directory."""
    seen = _stat(include, "the included path")
    name = os.path.basename(os.path.abspath(os.fsencode(include)))  # noqa: PTH100, PTH119  (bytes)
    if not name or not (stat.S_ISDIR(seen.st_mode) or stat.S_ISREG(seen.st_mode)):
        raise ContextError(f"the included path {include} is neither a file nor a directory with a name")
    return name, os.path.realpath(os.fsencode(include)), seen


def _stat(path: Path, what: str) -> os.stat_result:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ContextError(f"{what} {path} does not exist", hint="check the path") from error
    except PermissionError as error:
        raise ContextError(f"no permission to access {what} {path}", hint="make it readable") from error
    except OSError as error:
        raise ContextError(
            f"{what} {path} cannot be used: {error.strerror}", hint="check the path"
        ) from error


def check_shadowing(context: ContextSnapshot) -> None:
    """Raise ContextError if the root has a module `determined`, which would shadow the harness.

    A directory of that name without `__init__.py` is harmless: Python prefers the harness.
    """
    paths = {entry.path for entry in context.entries if entry.path.startswith("determined")}
    links = {entry.path for entry in context.entries if entry.kind == "link"}
    for path in ("determined.py", "determined/__init__.py"):
        if path in paths:
            raise _shadows(path)
    if "determined" in links:
        raise _shadows("determined")


def _shadows(path: str) -> ContextError:
    return ContextError(
        f"{path} in the context hides the harness, which user code imports as `determined`",
        hint="rename it, or add it to .detignore",
    )
