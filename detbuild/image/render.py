"""The Dockerfile as text: one template, filled with decisions and never with a user's words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal

import jinja2

from detbuild.image.mounts import SECRETS, SECRETS_DIR, WHEELS_DIR

if TYPE_CHECKING:
    from pathlib import Path

HARNESS: Final = "/opt/detbuild/harness"
VENV: Final = "/opt/detbuild/venv"
WORKDIR: Final = "/run/determined/workdir"
USER: Final = "65533:65533"  # nobody's; a run names the caller's own


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerfilePlan:
    """All that decides the text."""

    base: str
    own_image: bool = False
    os: str = ""
    apt: tuple[str, ...] = ()
    framework: bool = False
    requirements: Literal["none", "early", "late"] = "none"  # late: they name files of the context
    session: bool = True  # False: the borrowed settings come as files, since nobody serves secrets


def render(plan: DockerfilePlan, templates: Path) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  (a Dockerfile is no HTML, and no value here is a user's)
    )
    return environment.get_template("Dockerfile.j2").render(
        **asdict(plan),
        harness=HARNESS,
        venv=VENV,
        workdir=WORKDIR,
        user=USER,
        wheels=WHEELS_DIR,
        secrets=SECRETS,
        secrets_dir=SECRETS_DIR,
    )
