"""Plans an image from a context and its resolution: the Dockerfile, its files and a tag, before any engine.

The tag is a hash of all inputs, so equal inputs give the same image. The Dockerfile is one template, whose
values never contain user text.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import quote

from detbuild.context.snapshot import ContextSnapshot, Tree, below, file_snapshot, merged
from detbuild.events import Warned
from detbuild.image.host_settings import (
    CREDENTIAL,
    ENVIRONMENT,
    FRAMEWORK_DIR,
    SECRETS,
    SECRETS_DIR,
    WHEELS_DIR,
    needed_wheels,
)
from detbuild.image.needs import PROJECTS, ContextNeeds
from detbuild.image.requirements import REQUIREMENTS, WORKDIR, Requirements, for_pip, paths_of
from determined._contract.run_info import private
from determined._version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from detbuild.context.snapshot import HashCache
    from detbuild.image.host_settings import HostSettings
    from detbuild.image.resolve import Resolution, Target
    from detbuild.image.table import Table

_REPOSITORY: Final = "detbuild"
_PLACES: Final = "places"
_INDEXES: Final = ("--index-url", "--extra-index-url", "--find-links")
_FOR_FRAMEWORKS: Final = frozenset(
    {
        *_INDEXES,
        *("--no-index", "--trusted-host", "--pre", "--prefer-binary", "--no-binary", "--only-binary"),
    }
)
_FORMAT: Final = "detbuild image 1"  # change it when equal inputs must give another image
_HARNESS: Final = "/opt/detbuild/harness"
_VENV: Final = "/opt/detbuild/venv"
_USER: Final = "65533:65533"  # an unused ID; runs set the caller's
# Files in pip's directory: those that requirements.txt names, mounted while pip runs (early) or copied for
# editable installs (copied), or the whole context (late).
_RequirementsStep = Literal["none", "early", "copied", "late"]


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
    cache_dir: Path | None = None,
) -> ImagePlan:
    """Plan the image of a context. The plan depends on the arguments only, not on the host.

    Args:
        resolution: Result of `resolve`.
        needs: Packages that the context needs.
        base_image: One of the resolution's bases.
        base_digest: Identifies `base_image`; "" trusts its name.
        context: The user's directory.
        harness: The `determined` package.
        table: Describes the packages of the base.
        templates: Directory of Dockerfile.j2.
        cache_dir: Caches rendered Dockerfiles between submissions.
    """
    trees = {
        "context": context,
        "harness": below("determined", harness),
        **_pip_trees(resolution, needs, context),
    }
    dockerfile_plan = _dockerfile_plan(resolution, needs, base_image, table=table)
    dockerfile = render(dockerfile_plan, templates, cache_dir=cache_dir)
    labels = _labels(resolution, base_image, trees)
    return ImagePlan(
        tag=_tag([_FORMAT, base_image, base_digest, dockerfile, *_digest_lines(trees), json.dumps(labels)]),
        base_image=base_image,
        dockerfile=dockerfile,
        upload_dockerfile=render(replace(dockerfile_plan, session=False), templates, cache_dir=cache_dir),
        trees=trees,
        local_trees={"wheels": ContextSnapshot()} if "framework" in trees else {},
        labels=labels,
        pip_requirements=_pip_requirements(resolution, needs.requirements),
        own_index=any(line.values(o) for line in needs.requirements.lines for o in _INDEXES),
    )


def _pip_requirements(resolution: Resolution, requirements: Requirements) -> tuple[str, ...] | None:
    """Return plain requirements of both pip steps; None if a project of the context adds its own."""
    if any(place.kind in {"editable", "project"} for place in requirements.places):
        return None
    plain = (r.line.argument for r in requirements.requirements if not (r.constraint or r.direct))
    return (*resolution.frameworks, *resolution.companions, *plain)


def with_host_settings(
    plan: ImagePlan,
    resolution: Resolution,
    network: HostSettings,
    *,
    target: Target,
    credentials: Mapping[str, str],
    cache: HashCache | None = None,
) -> ImagePlan:
    """Add the host's certificates, proxies, pip settings and wheels to a plan; the tag stays the same.

    Slow, because it reads wheels, so only called before a build.

    Args:
        plan: Result of `plan_image`.
        resolution: Input of `plan_image`.
        network: Result of `read_host_settings`.
        target: Target of the image.
        credentials: Variables of `extract_credentials`.
        cache: Hashes of wheels of earlier builds; the caller saves it.
    """
    if "framework" not in plan.trees:
        return replace(plan, secrets=network.secrets(credentials))
    wheels = needed_wheels(
        network.wheel_dirs,
        plan.pip_requirements,
        machine=target.machine,
        cuda=bool(resolution.cuda),
        cache=cache,
    )
    return replace(
        plan,
        local_trees={"wheels": wheels},
        secrets=network.secrets(credentials),
        pip_network="no-index" not in network.pip or "apt-get" in plan.dockerfile,
    )


def pip_warnings(
    plan: ImagePlan, resolution: Resolution, network: HostSettings, *, target: Target
) -> tuple[Warned, ...]:
    """Return the problems that the host's network settings will cause in a build."""
    warnings = [Warned(message, "use its address on the network") for message in network.warnings]
    # On machines other than x86_64, the default index has the CPU build.
    default_only = network.default_index_only and not plan.own_index
    if resolution.special_builds and default_only and target.machine == "x86_64":
        names = ", ".join(resolution.special_builds)
        warnings.append(
            Warned(
                f"pip's settings have no index for {names}; the default index has another build, "
                "which may download gigabytes of CUDA",
                "set PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS to that build, see README.md",
            )
        )
    return tuple(warnings)


def _pip_trees(
    resolution: Resolution, needs: ContextNeeds, context: ContextSnapshot
) -> dict[str, ContextSnapshot]:
    requirements, tree = needs.requirements, Tree(context)
    if not resolution.frameworks and not requirements.asks_for_packages:
        return {}
    # The builds' names distinguish cached steps that are equal otherwise.
    lines = [*(f"# {build}" for build in resolution.builds), *resolution.frameworks, *resolution.companions]
    options, places = _options(requirements, tree) if _is_named(requirements) else ([], ContextSnapshot())
    files = {REQUIREMENTS: _text([*options, *lines]), "constraints.txt": _text(_pins(resolution))}
    trees = {"framework": merged(file_snapshot(files), below(_PLACES, places) if places.entries else places)}
    if requirements.asks_for_packages:
        trees["requirements"] = for_pip(requirements, tree)
    return trees


def _is_named(requirements: Requirements) -> bool:
    """Whether requirements.txt itself requires a framework, so that its options apply to it too."""
    return any(r.name in PROJECTS and not r.constraint for r in requirements.requirements)


def _options(requirements: Requirements, tree: Tree) -> tuple[list[str], ContextSnapshot]:
    """Return the index options of requirements.txt as lines, and the local files that they name."""
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
    """Return constraints that keep the frameworks while requirements are installed; without extras."""
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
        requirements=_requirements_step(needs.requirements),
        masked=any(CREDENTIAL in file.text for file in needs.requirements.files),
    )


def _requirements_step(requirements: Requirements) -> _RequirementsStep:
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


def _digest_lines(trees: Mapping[str, ContextSnapshot]) -> list[str]:
    return [f"{name} {trees[name].digest}" for name in sorted(trees)]


def _tag(inputs: Sequence[str]) -> str:
    return f"{_REPOSITORY}:{hashlib.sha256(json.dumps(list(inputs)).encode()).hexdigest()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerfilePlan:
    """All values of the template."""

    base: str
    own_image: bool = False
    os: str = ""
    apt: tuple[str, ...] = ()
    framework: bool = False
    requirements: _RequirementsStep = "none"
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
        "harness": _HARNESS,
        "venv": _VENV,
        "workdir": WORKDIR,
        "user": _USER,
        "wheels": WHEELS_DIR,
        "framework_dir": FRAMEWORK_DIR,
        "secrets": SECRETS,
        "secrets_dir": SECRETS_DIR,
        "environment": ENVIRONMENT,
    }
    if cache_dir is None:
        return _fill(values, templates)
    file = cache_dir / f"{_cache_key(values, templates)}.Dockerfile"
    text = _read_cached(file)
    if text is None:
        text = _fill(values, templates)
        _write_cached(file, text)
    return text


def _cache_key(values: Mapping[str, object], templates: Path) -> str:
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for template in sorted(templates.glob("*.j2")):
        digest.update(f"\0{template.name}\0".encode() + template.read_bytes())
    return digest.hexdigest()


def _read_cached(file: Path) -> str | None:
    """Return a cached text; None if there is none or it is damaged."""
    try:
        checksum, _, text = file.read_text(encoding="utf-8").partition("\n")
    except (OSError, ValueError):
        return None
    return text if checksum == _checksum(text) else None


def _write_cached(file: Path, text: str) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):  # it is rendered again next time
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(temporary, "w", encoding="utf-8", opener=private) as out:
            out.write(f"{_checksum(text)}\n{text}")
        temporary.replace(file)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _fill(values: Mapping[str, object], templates: Path) -> str:
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
