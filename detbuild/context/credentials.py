"""Keeps secrets of configs out of the image."""

from __future__ import annotations

import hashlib
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detbuild.config.experiment import ExperimentConfig
from detbuild.config.secrets import text_holds_secrets
from detbuild.context.snapshot import ContextSnapshot, shown
from detbuild.credentials import credentials_in
from detbuild.events import Warned
from detbuild.textfile import TextFileError, bodies, decode, unix_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.context.snapshot import Entry

_LARGEST: Final = 1 << 18  # bytes; a longer file is data
# A YAML file with one of these top-level fields and one of these words may be a config with secrets.
_OF_A_CONFIG: Final = re.compile(
    r"^(?:searcher|entrypoint|environment|checkpoint_storage|data|task_container_defaults)[ \t]*:",
    re.MULTILINE,
)
_MAY_BE_SECRET: Final = re.compile(
    r"environment_variables|registry_auth|secret|access_key|connection_string|credential|://[^\s/]*@|_args"
    r"|pod_spec|pachyderm|security|tensorboard_storage|data_layer|internal"
)
# Files that declare packages or set up the container are needed in the image, so they only cause a warning.
_DECLARING: Final = re.compile(
    r"pyproject\.toml|setup\.(?:py|cfg)|Pipfile|environment\.ya?ml|\.condarc|startup-hook\.sh|.*\.lock"
)
_LOGINS: Final = frozenset({".netrc", "_netrc", ".pypirc", ".git-credentials", "pip.conf", ".env", ".npmrc"})


def without_credentials(context: ContextSnapshot, text: str) -> tuple[ContextSnapshot, tuple[Warned, ...]]:
    """Exclude config files with secrets, the submitted one and others, and return warnings.

    Args:
        context: Files of the image.
        text: Text of the submitted config.
    """
    digests = {hashlib.sha256(body).hexdigest() for body in bodies(text)} if _holds(text) else set()
    held = [entry for entry in context.entries if entry.sha256 in digests or _is_config_with_secrets(entry)]
    held = [entry for entry in held if entry.kind == "file"]
    kept = tuple(entry for entry in context.entries if entry not in held)
    left_out = [
        Warned(f"{shown(entry.path)} is excluded from the image: it contains secrets", "add it to .detignore")
        for entry in held
    ]
    return ContextSnapshot(kept) if held else context, (*left_out, *_included(kept))


def _included(entries: tuple[Entry, ...]) -> Iterator[Warned]:
    """Warn of files with credentials that the code may need, so that they are not excluded."""
    for entry in entries:
        name = posixpath.basename(entry.path)
        if entry.kind != "file" or entry.size > _LARGEST:
            continue
        if name in _LOGINS:
            message = f"{shown(entry.path)} goes into the image and may contain credentials"
            yield Warned(message, "add it to .detignore")
        elif _DECLARING.fullmatch(name) and credentials_in(_body(entry).decode("latin-1")):
            message = f"{shown(entry.path)} goes into the image with the credentials of a URL"
            yield Warned(message, "add it to .detignore, or move the URL to requirements.txt")


def _is_config_with_secrets(entry: Entry) -> bool:
    if entry.kind != "file" or not entry.path.endswith((".yaml", ".yml")) or entry.size > _LARGEST:
        return False
    try:
        text = unix_lines(decode(_body(entry)))
    except TextFileError:
        return False  # detbuild could not read it as a config either
    return bool(_OF_A_CONFIG.search(text) and _MAY_BE_SECRET.search(text)) and _holds(text)


def _holds(text: str) -> bool:
    return text_holds_secrets(text, ExperimentConfig)


def _body(entry: Entry) -> bytes:
    """Read a file; empty if unreadable, which packing reports."""
    if entry.body is not None:
        return entry.body
    try:
        return Path(entry.source).read_bytes()
    except OSError:
        return b""
