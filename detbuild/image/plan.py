"""What an image will be, decided before the engine is asked for anything."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from detbuild.context.snapshot import file_snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from detbuild.context.snapshot import ContextSnapshot


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePlan:
    """All that a build needs.

    The build context that the engine sees has one directory per tree (`context/`, `harness/`, ...), also for
    an empty one, and the Dockerfile beside them. `secrets` ride on the BuildKit session and appear in no
    layer, history or label; neither they nor `local_trees` (wheels of this host) count for the tag.
    """

    tag: str  # "detbuild:<64 hex of the sha256 of all inputs>"
    base_image: str
    dockerfile: str
    upload_dockerfile: str = ""  # the same, for an engine that no secrets can be served to
    trees: Mapping[str, ContextSnapshot]
    local_trees: Mapping[str, ContextSnapshot] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    asked: tuple[str, ...] | None = ()  # plain requirements of the pip steps; None: there are more
    own_index: bool = False  # requirements.txt names places where packages come from
    pip_network: bool = True  # False: no step of this build may use the network


def for_upload(plan: ImagePlan) -> ImagePlan:
    """Turn it into the same build for an engine without sessions: what would be served travels as files.

    They are mounted for the steps that need them, so that they reach neither layers nor history.
    """
    lent = {"secrets": file_snapshot(plan.secrets)} if plan.secrets else {}
    return replace(
        plan,
        dockerfile=plan.upload_dockerfile or plan.dockerfile,
        local_trees={**plan.local_trees, **lent},
        secrets={},
    )
