"""From a context and what was resolved for it to the plan of its image."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from detbuild.context.snapshot import ContextSnapshot, file_snapshot
from detbuild.events import Warned
from detbuild.image.frameworks import REQUIREMENTS, ContextNeeds, requirement_files
from detbuild.image.plan import ImagePlan
from detbuild.image.render import DockerfilePlan, render
from detbuild.image.trees import below, read
from determined._version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from detbuild.context.hashes import HashCache
    from detbuild.image.choice import Target
    from detbuild.image.network import NetworkSettings
    from detbuild.image.resolve import Resolution
    from detbuild.image.table import Table

REPOSITORY: Final = "detbuild"
_FORMAT: Final = "detbuild image 1"  # changes when equal inputs must give another image


def plan_image(
    resolution: Resolution,
    needs: ContextNeeds,
    *,
    base_image: str,
    base_digest: str = "",
    context: ContextSnapshot,
    harness: ContextSnapshot,
    table: Table,
    templates: Path,
    kept: Path | None = None,
) -> ImagePlan:
    """Plan the image of a context. Nothing of the host but the arguments has a say in it.

    Args:
        resolution: What `resolve` decided.
        needs: What the context asks for.
        base_image: One of the resolution's bases.
        base_digest: What tells this `base_image` from another one of that name; "" trusts the name.
        context: The user's directory.
        harness: The `determined` package itself.
        table: Where the base's packages are described.
        templates: Where Dockerfile.j2 is.
        kept: Where texts of Dockerfiles are kept from one submission to the next.
    """
    trees = {
        "context": context,
        "harness": below("determined", harness),
        **_pip_trees(resolution, needs, context),
    }
    dockerfile_plan = _dockerfile_plan(resolution, needs, base_image, trees=trees, table=table)
    dockerfile = render(dockerfile_plan, templates, kept=kept)
    labels = _labels(resolution, base_image, trees)
    return ImagePlan(
        tag=_tag([_FORMAT, base_image, base_digest, dockerfile, *_lines(trees), json.dumps(labels)]),
        base_image=base_image,
        dockerfile=dockerfile,
        upload_dockerfile=render(replace(dockerfile_plan, session=False), templates, kept=kept),
        trees=trees,
        local_trees={"wheels": ContextSnapshot()} if "framework" in trees else {},
        labels=labels,
    )


def lend(
    plan: ImagePlan,
    resolution: Resolution,
    network: NetworkSettings,
    *,
    target: Target,
    cache: HashCache | None = None,
) -> ImagePlan:
    """Add what the build borrows from this host: certificates, proxies, pip settings, wheels.

    Worth its time (wheels are read) only when the image has to be built; the tag stays the same.

    Args:
        plan: What `plan_image` made.
        resolution: What it was made from.
        network: What `host_network` found.
        target: What the image is for.
        cache: Hashes of wheels from earlier builds; the caller saves it.
    """
    from detbuild.image.wheels import wanted_wheels

    if "framework" not in plan.trees:
        return replace(plan, build_args=network.proxies)
    entries = [
        e for name in ("framework", "requirements") if name in plan.trees for e in plan.trees[name].entries
    ]
    asked = [read(entry).decode("utf-8", "replace") for entry in entries]
    wheels = wanted_wheels(
        network.wheel_dirs, asked, machine=target.machine, cuda=bool(resolution.cuda), cache=cache
    )
    return replace(
        plan,
        local_trees={"wheels": wheels},
        build_args=network.proxies,
        secrets=network.secrets(),
        pip_network="no-index" not in network.pip or "apt-get" in plan.dockerfile,
    )


def pip_warnings(resolution: Resolution, network: NetworkSettings, *, target: Target) -> tuple[Warned, ...]:
    """What a build will run into with the host's network as it is."""
    warnings = [Warned(message, "use its address on the network") for message in network.warnings]
    # For other machines than x86_64 the default index has the CPU build itself.
    if resolution.special_builds and network.default_index_only and target.machine == "x86_64":
        names = ", ".join(resolution.special_builds)
        warnings.append(
            Warned(
                f"pip's settings name no place that has {names}; the default index has another build, "
                "which may bring gigabytes of CUDA",
                "point pip at that build with PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS, as README.md says",
            )
        )
    return tuple(warnings)


def _pip_trees(
    resolution: Resolution, needs: ContextNeeds, context: ContextSnapshot
) -> dict[str, ContextSnapshot]:
    files = requirement_files(context)
    if not resolution.frameworks and not files:
        return {}
    # The names of the builds keep apart cached steps that differ in nothing else.
    lines = [*(f"# {build}" for build in resolution.builds), *resolution.frameworks, *resolution.companions]
    trees = {
        "framework": file_snapshot({REQUIREMENTS: _text(lines), "constraints.txt": _text(_pins(resolution))})
    }
    if files and not needs.requirements.local:
        trees["requirements"] = file_snapshot({entry.path: read(entry) for entry in files})
    return trees


def _pins(resolution: Resolution) -> list[str]:
    """What holds the frameworks in place while requirements are installed; pip allows no extras here."""
    return [re.sub(r"\[[^]]*\]", "", line) for line in resolution.frameworks]


def _text(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _dockerfile_plan(
    resolution: Resolution,
    needs: ContextNeeds,
    base_image: str,
    *,
    trees: Mapping[str, ContextSnapshot],
    table: Table,
) -> DockerfilePlan:
    base = table.base(base_image)
    late = needs.requirements.local
    return DockerfilePlan(
        base=base_image,
        own_image=resolution.own_image,
        os=base.os if base else "",
        apt=base.apt if base else (),
        framework=bool(resolution.frameworks),
        requirements="late" if late else "early" if "requirements" in trees else "none",
    )


def _labels(resolution: Resolution, base_image: str, trees: Mapping[str, ContextSnapshot]) -> dict[str, str]:
    labels = {
        "detbuild.context": trees["context"].digest,
        "detbuild.cuda": resolution.cuda,
        "detbuild.frameworks": ", ".join(resolution.builds),
        "detbuild.harness": trees["harness"].digest,
        "detbuild.min_driver": resolution.min_driver,
        "detbuild.version": __version__,
        "org.opencontainers.image.base.name": base_image,
        "org.opencontainers.image.title": "detbuild trial",
    }
    return {name: value for name, value in labels.items() if value}


def _lines(trees: Mapping[str, ContextSnapshot]) -> list[str]:
    return [f"{name} {trees[name].digest}" for name in sorted(trees)]


def _tag(inputs: Sequence[str]) -> str:
    return f"{REPOSITORY}:{hashlib.sha256(json.dumps(list(inputs)).encode()).hexdigest()}"
