"""From a context and what was resolved for it to the plan of its image."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from detbuild.context.snapshot import ContextSnapshot, file_snapshot
from detbuild.events import Warned
from detbuild.image.frameworks import PROJECTS, ContextNeeds
from detbuild.image.mounts import FRAMEWORK_DIR
from detbuild.image.network import CREDENTIAL
from detbuild.image.plan import ImagePlan
from detbuild.image.render import DockerfilePlan, RequirementsStep, render
from detbuild.image.requirements import REQUIREMENTS, Requirements, for_pip, paths_of
from detbuild.image.trees import Tree, below, merged
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
_PLACES: Final = "places"
_INDEXES: Final = ("--index-url", "--extra-index-url", "--find-links")
_FOR_FRAMEWORKS: Final = frozenset(
    {
        *_INDEXES,
        *("--no-index", "--trusted-host", "--pre", "--prefer-binary", "--no-binary", "--only-binary"),
    }
)
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
    dockerfile_plan = _dockerfile_plan(resolution, needs, base_image, table=table)
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
        asked=_asked(resolution, needs.requirements),
        own_index=any(line.values(o) for line in needs.requirements.lines for o in _INDEXES),
    )


def _asked(resolution: Resolution, requirements: Requirements) -> tuple[str, ...] | None:
    """Plain requirements of both pip steps; None where a project of the context has more of its own."""
    if any(place.kind in {"editable", "project"} for place in requirements.places):
        return None
    plain = (r.line.argument for r in requirements.requirements if not (r.constraint or r.direct))
    return (*resolution.frameworks, *resolution.companions, *plain)


def lend(
    plan: ImagePlan,
    resolution: Resolution,
    network: NetworkSettings,
    *,
    target: Target,
    credentials: Mapping[str, str],
    cache: HashCache | None = None,
) -> ImagePlan:
    """Add what the build borrows from this host: certificates, proxies, pip settings, wheels.

    Worth its time (wheels are read) only when the image has to be built; the tag stays the same.

    Args:
        plan: What `plan_image` made.
        resolution: What it was made from.
        network: What `host_network` found.
        target: What the image is for.
        credentials: What `lent_credentials` took out of the context.
        cache: Hashes of wheels from earlier builds; the caller saves it.
    """
    from detbuild.image.wheels import wanted_wheels

    if "framework" not in plan.trees:
        return replace(plan, secrets=network.secrets(credentials))
    wheels = wanted_wheels(
        network.wheel_dirs, plan.asked, machine=target.machine, cuda=bool(resolution.cuda), cache=cache
    )
    return replace(
        plan,
        local_trees={"wheels": wheels},
        secrets=network.secrets(credentials),
        pip_network="no-index" not in network.pip or "apt-get" in plan.dockerfile,
    )


def pip_warnings(
    plan: ImagePlan, resolution: Resolution, network: NetworkSettings, *, target: Target
) -> tuple[Warned, ...]:
    """What a build will run into with the host's network as it is."""
    warnings = [Warned(message, "use its address on the network") for message in network.warnings]
    # For other machines than x86_64 the default index has the CPU build itself.
    default_only = network.default_index_only and not plan.own_index
    if resolution.special_builds and default_only and target.machine == "x86_64":
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
    requirements, tree = needs.requirements, Tree(context)
    if not resolution.frameworks and not requirements.asks_for_packages:
        return {}
    # The names of the builds keep apart cached steps that differ in nothing else.
    lines = [*(f"# {build}" for build in resolution.builds), *resolution.frameworks, *resolution.companions]
    options, places = _options(requirements, tree) if _is_named(requirements) else ([], ContextSnapshot())
    files = {REQUIREMENTS: _text([*options, *lines]), "constraints.txt": _text(_pins(resolution))}
    trees = {"framework": merged(file_snapshot(files), below(_PLACES, places) if places.entries else places)}
    if requirements.asks_for_packages:
        trees["requirements"] = for_pip(requirements, tree)
    return trees


def _is_named(requirements: Requirements) -> bool:
    """Whether requirements.txt itself asks for a framework, so that its options hold for that too."""
    return any(r.name in PROJECTS and not r.constraint for r in requirements.requirements)


def _options(requirements: Requirements, tree: Tree) -> tuple[list[str], ContextSnapshot]:
    """Lines with the options of requirements.txt that say where packages come from, and their places."""
    places = [place for place in requirements.places if place.kind in {"links", "index"}]
    moved = {(id(place.line), place.named): place.path for place in places}
    lines = [
        _option(name, value, moved.get((id(line), value)))
        for line in requirements.lines
        if line.is_option
        for name, value in line.options
        if name in _FOR_FRAMEWORKS
    ]
    return lines, tree.needed(path for place in places for path in paths_of(place, tree))


def _option(name: str, value: str, path: str | None) -> str:
    if path is not None:
        value = f"file://{quote(f'{FRAMEWORK_DIR}/{_PLACES}/{path}')}"
    return f"{name} {shlex.quote(value)}" if value else name


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
    table: Table,
) -> DockerfilePlan:
    base = table.base(base_image)
    return DockerfilePlan(
        base=base_image,
        own_image=resolution.own_image,
        os=base.os if base else "",
        apt=base.apt if base else (),
        framework=bool(resolution.frameworks),
        requirements=_step(needs.requirements),
        masked=any(CREDENTIAL in file.text for file in needs.requirements.files),
    )


def _step(requirements: Requirements) -> RequirementsStep:
    if not requirements.asks_for_packages:
        return "none"
    if requirements.whole_context:
        return "late"
    return "copied" if requirements.edited_in_place else "early"


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
