"""Renders the Dockerfile: one template, whose values never contain user text."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal

from detbuild.image.mounts import ENVIRONMENT, FRAMEWORK_DIR, SECRETS, SECRETS_DIR, WHEELS_DIR
from detbuild.image.requirements import WORKDIR
from determined._run_info import private

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HARNESS: Final = "/opt/detbuild/harness"
VENV: Final = "/opt/detbuild/venv"
USER: Final = "65533:65533"  # an unused ID; runs set the caller's


# Files in pip's directory: those that requirements.txt names, mounted while pip runs (early) or copied for
# editable installs (copied), or the whole context (late).
RequirementsStep = Literal["none", "early", "copied", "late"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerfilePlan:
    """All values of the template."""

    base: str
    own_image: bool = False
    os: str = ""
    apt: tuple[str, ...] = ()
    framework: bool = False
    requirements: RequirementsStep = "none"
    masked: bool = False  # mask URLs in pip's output: the requirements have credentials
    session: bool = True  # False: the host settings are sent as files, for lack of build secrets


def render(plan: DockerfilePlan, templates: Path, *, cache_dir: Path | None = None) -> str:
    """Fill the template.

    Args:
        plan: Values of the template.
        templates: Directory of the template and its parts.
        cache_dir: Caches rendered texts, because importing Jinja2 is slow.
    """
    values = {
        **asdict(plan),
        "harness": HARNESS,
        "venv": VENV,
        "workdir": WORKDIR,
        "user": USER,
        "wheels": WHEELS_DIR,
        "framework_dir": FRAMEWORK_DIR,
        "secrets": SECRETS,
        "secrets_dir": SECRETS_DIR,
        "environment": ENVIRONMENT,
    }
    if cache_dir is None:
        return _filled(values, templates)
    file = cache_dir / f"{_key(values, templates)}.Dockerfile"
    text = _read(file)
    if text is None:
        text = _filled(values, templates)
        _write(file, text)
    return text


def _key(values: Mapping[str, object], templates: Path) -> str:
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for template in sorted(templates.glob("*.j2")):
        digest.update(f"\0{template.name}\0".encode() + template.read_bytes())
    return digest.hexdigest()


def _read(file: Path) -> str | None:
    """Return a cached text; None if there is none or it is damaged."""
    try:
        checksum, _, text = file.read_text(encoding="utf-8").partition("\n")
    except (OSError, ValueError):
        return None
    return text if checksum == _checksum(text) else None


def _write(file: Path, text: str) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):  # it is rendered again next time
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(temporary, "w", encoding="utf-8", opener=private) as out:
            out.write(f"{_checksum(text)}\n{text}")
        temporary.replace(file)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _filled(values: Mapping[str, object], templates: Path) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  (a Dockerfile is not HTML, and no value is user text)
    )
    return environment.get_template("Dockerfile.j2").render(values)
