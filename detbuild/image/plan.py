"""What an image will be, decided before the engine is asked for anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from detbuild.context.snapshot import ContextSnapshot


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePlan:
    """All that a build needs.

    The build context that the engine sees has one directory per tree (`context/`, `harness/`, `requirements/` ...)
    and the Dockerfile beside them. `secrets` ride on the BuildKit session and appear in no layer, history or label;
    neither they nor `local_trees` (wheels of the host's pip settings) count for the tag.
    """

    tag: str  # "detbuild:<64 hex of the sha256 of all inputs>"
    base_image: str
    dockerfile: str
    trees: Mapping[str, ContextSnapshot]
    local_trees: Mapping[str, ContextSnapshot] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    build_args: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    pip_network: bool = True  # False: no step of this build may use the network
