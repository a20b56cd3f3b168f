"""The plan of an image, made before the engine is used."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from detbuild.context.snapshot import file_snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from detbuild.context.snapshot import ContextSnapshot


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePlan:
    """All inputs of a build.

    The build context has one directory per tree (`context/`, `harness/`, ...), even if empty, and the
    Dockerfile next to them. `secrets` are served over the BuildKit session and appear in no layer, history or
    label; the tag depends neither on them nor on `local_trees` (wheels of this host).
    """

    tag: str  # "detbuild:<64 hex of the sha256 of all inputs>"
    base_image: str
    dockerfile: str
    upload_dockerfile: str = ""  # the same, for an engine without build secrets
    trees: Mapping[str, ContextSnapshot]
    local_trees: Mapping[str, ContextSnapshot] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    pip_requirements: tuple[str, ...] | None = ()  # plain ones of the pip steps; None: not all are known
    own_index: bool = False  # requirements.txt sets package indexes
    pip_network: bool = True  # False: no step may use the network


def for_upload(plan: ImagePlan) -> ImagePlan:
    """Convert a plan for an engine without sessions: secrets are sent as files.

    They are mounted in the steps that need them, so they are in no layer or history.
    """
    secrets = {"secrets": file_snapshot(plan.secrets)} if plan.secrets else {}
    return replace(
        plan,
        dockerfile=plan.upload_dockerfile or plan.dockerfile,
        local_trees={**plan.local_trees, **secrets},
        secrets={},
    )
