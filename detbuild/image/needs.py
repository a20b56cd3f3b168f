"""Finds the packages that a context needs, from its imports and requirements, and checks what it declares."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from detbuild.context.snapshot import Tree, read, read_text, shown
from detbuild.errors import ContextError
from detbuild.events import Warned
from detbuild.image.requirements import REQUIREMENTS, Requirement, Requirements, applies, read_requirements

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from detbuild.context.snapshot import ContextSnapshot
    from detbuild.context.walk import LeftOut, Listing
    from detbuild.image.requirements import Finding

# Modules that need a framework, by their first one or two components.
_NEEDS: Final[Mapping[str, str]] = {
    "torch": "torch",
    "determined.pytorch": "torch",
    "tensorflow": "tensorflow",
    "keras": "tensorflow",
    "determined.keras": "tensorflow",
}
# Determined's images have these next to the framework, so contexts import them without requiring them.
_COMPANIONS: Final[Mapping[str, str]] = {"torchvision": "torch", "torchaudio": "torch"}
# PyPI projects that contain a framework, except nightly and macOS builds.
PROJECTS: Final[Mapping[str, str]] = {
    "torch": "torch",
    "tensorflow": "tensorflow",
    "tensorflow-cpu": "tensorflow",
}
LARGEST_PROGRAM: Final = 1 << 20  # bytes; a longer file is data
_FILES: Final = 1000  # nearest to the root: a trial imports its framework there
_IMPORT: Final = re.compile(
    rb"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n#;]*)|import[ \t]+([^\n#;]+))",
    re.MULTILINE,
)
_SHOWN: Final = 20  # findings in one message
_OF_PROJECT: Final = "write `.` in requirements.txt, which installs the project with its dependencies"
_BY_HAND: Final = "list its packages in requirements.txt"
# Files that declare dependencies and are not read: the pattern of a declaration, and the hint.
_UNREAD: Final = {
    "uv.lock": ("", "run `uv export -o requirements.txt`"),
    "poetry.lock": ("", "run `poetry export -o requirements.txt`"),
    "pdm.lock": ("", "run `pdm export -o requirements.txt`"),
    "Pipfile.lock": ("", "run `pipenv requirements > requirements.txt`"),
    "Pipfile": (r"^\[packages\]\s*\w", _BY_HAND),
    "pyproject.toml": (
        (
            r"^dependencies\s*=\s*\[\s*['\"]|"
            r"^\[tool\.poetry\.dependencies\]\s*(python\s*=[^\n]*\n\s*)?(?!python\s*=)\w"
        ),
        _OF_PROJECT,
    ),
    "setup.py": (r"install_requires", _OF_PROJECT),
    "setup.cfg": (r"^install_requires", _OF_PROJECT),
}
# The same, but warned of even next to a requirements.txt, which cannot replace them.
_UNREAD_ALWAYS: Final = {
    **dict.fromkeys(
        ("environment.yml", "environment.yaml", "conda.yml", "conda.yaml"), (r"^dependencies:", _BY_HAND)
    ),
    **dict.fromkeys(
        ("apt.txt", "packages.txt"),
        (r"^[a-z]", "set environment.image to an image that has these system packages"),
    ),
}
_OTHER_REQUIREMENTS: Final = re.compile(r"requirements[-_.][\w.-]+\.txt|requirements/[\w.-]+\.txt")
_NOT_FOR_TRAINING: Final = re.compile(r"dev|test|doc|lint|style|ci\b|build|example")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextNeeds:
    """Packages that a context needs in its image."""

    frameworks: frozenset[str] = frozenset()  # "torch", "tensorflow"
    companions: frozenset[str] = frozenset()  # "torchvision": imported, but not required
    requirements: Requirements = field(default_factory=Requirements)

    def pins(self, framework: str, *, python: str, machine: str) -> tuple[Requirement, ...]:
        """Return the requirements on a framework that apply in a container with that Python."""
        return tuple(
            requirement
            for requirement in self.requirements.requirements
            if PROJECTS.get(requirement.name) == framework
            and applies(requirement.marker, python=python, machine=machine)
        )


def read_needs(context: ContextSnapshot) -> ContextNeeds:
    """Scan the context's Python files, and requirements.txt with its included files."""
    requirements = read_requirements(context)
    required = {r.name for r in requirements.requirements if not r.constraint}
    modules = _imported(context)
    companions = {name for name in modules if name in _COMPANIONS}
    needed = {_NEEDS[name] for name in modules if name in _NEEDS} | {_COMPANIONS[name] for name in companions}
    return ContextNeeds(
        frameworks=frozenset(needed | {PROJECTS[name] for name in required if name in PROJECTS}),
        companions=frozenset(companions - required),
        requirements=requirements,
    )


def _imported(context: ContextSnapshot) -> set[str]:
    """Return the modules of frameworks that the files nearest to the root import."""
    programs = [
        e
        for e in context.entries
        if e.kind == "file" and e.path.endswith(".py") and e.size <= LARGEST_PROGRAM
    ]
    found: set[str] = set()
    for entry in sorted(programs, key=lambda entry: entry.path.count("/"))[:_FILES]:
        for module in _imported_modules(read(entry)):
            parts = module.split(".")
            found |= {parts[0], ".".join(parts[:2])} & (_NEEDS.keys() | _COMPANIONS.keys())
    return found


def _imported_modules(source: bytes) -> Iterator[str]:
    """Yield the dotted names that a source imports, for any Python version."""
    for match in _IMPORT.finditer(source):
        origin, names, modules = (part.decode("ascii", "replace") if part else "" for part in match.groups())
        if origin:
            yield origin
        for name in re.findall(r"([\w.]+)(?:\s+as\s+\w+)?\s*(?:,|$|\))", names or modules):
            yield f"{origin}.{name}" if origin else name


def check_requirements(
    requirements: Requirements, listing: Listing, *, own_image: bool = False
) -> tuple[Warned, ...]:
    """Check requirements.txt and return warnings.

    Args:
        requirements: Parsed requirements.txt.
        listing: Files of the context in the image, and why others are not.
        own_image: Absolute paths may exist in the user's own image.

    Raises:
        ContextError: pip would reject lines; the message has file and line of each.
    """
    rejected = [f for f in requirements.problems if not (f.outside and own_image)]
    if rejected:
        raise _error(rejected, listing)
    warnings = (
        Warned(_cause(warning, listing), _hint(warning, listing)) for warning in requirements.warnings
    )
    return (*_left_out(requirements), *warnings, *_ignored(listing))


def _error(findings: list[Finding], listing: Listing) -> ContextError:
    lines = [_cause(finding, listing) for finding in findings]
    if len(lines) > _SHOWN:
        lines = [*lines[:_SHOWN], f"... and {len(lines) - _SHOWN} more"]
    hints = dict.fromkeys(filter(None, (_hint(finding, listing) for finding in findings)))
    return ContextError("\n".join(lines), hint="; ".join(list(hints)[:3]))


def _cause(finding: Finding, listing: Listing) -> str:
    rule = _rule(finding, listing)
    cause = finding.cause
    if rule is not None:
        why = f"{shown(rule.where)} (`{shown(rule.rule)}`)" if rule.rule else rule.where
        cause = f"{cause.removesuffix(' is not in the context')} is excluded from the image by {why}"
    return f"{shown(finding.line.place)}: {shown(cause)}"


def _hint(finding: Finding, listing: Listing) -> str:
    from difflib import get_close_matches

    if finding.hint or finding.missing is None:
        return finding.hint
    rule = _rule(finding, listing)
    if rule is not None:
        built_in = rule.where == "built in"
        return f"add `!{shown(rule.path)}` to .detignore" if built_in else "remove that line of .detignore"
    names = [kept.path for kept in listing.kept if kept.path != finding.line.file]
    same_name = [path for path in names if posixpath.basename(path) == posixpath.basename(finding.missing)]
    near = same_name or get_close_matches(finding.missing, names, n=1, cutoff=0.7)
    if near and finding.line.editable != near[0]:
        return f"did you mean `{shown(near[0])}`?"
    return "add it to the context, or remove the line"


def _rule(finding: Finding, listing: Listing) -> LeftOut | None:
    """Return the rule that excludes an existing path from the image."""
    path = finding.missing
    if not path:
        return None
    return next((out for out in listing.left_out if f"{path}/".startswith(f"{out.path.rstrip('/')}/")), None)


def _left_out(requirements: Requirements) -> Iterator[Warned]:
    for requirement in requirements.left_out:
        named = requirement.line.argument or requirement.line.editable
        yield Warned(
            f"{shown(requirement.line.place)}: `{shown(named)}` is not installed: detbuild's "
            "Trial API replaces it",
            f"remove the line from {shown(requirement.line.file)}",
        )


def _ignored(listing: Listing) -> Iterator[Warned]:
    """Warn if requirements.txt itself is excluded."""
    for out in listing.left_out:
        if out.path == REQUIREMENTS and out.rule:
            yield Warned(
                f"{REQUIREMENTS} is excluded from the image by {shown(out.where)} (`{shown(out.rule)}`), "
                "so its packages are not installed",
                f"remove that line of .detignore, or {REQUIREMENTS}",
            )


def unread_files(context: ContextSnapshot, requirements: Requirements) -> tuple[Warned, ...]:
    """Warn of files at the root that declare dependencies but are not read."""
    tree = Tree(context)
    known = _UNREAD_ALWAYS if requirements.asks_for_packages else {**_UNREAD, **_UNREAD_ALWAYS}
    found = {name: hint for name, (pattern, hint) in known.items() if _declares(tree, name, pattern)}
    if requirements.whole_context:
        found = {name: hint for name, hint in found.items() if hint != _OF_PROJECT}
    if not requirements.asks_for_packages:
        read = {file.path for file in requirements.files}
        others = [e.path for e in context.entries if _OTHER_REQUIREMENTS.fullmatch(e.path)]
        for path in others:
            if path not in read and not _NOT_FOR_TRAINING.search(path):
                found[path] = f"write `-r {path}` in requirements.txt"
    if not found:
        return ()
    names = ", ".join(map(shown, found))
    are, their = ("is", "its") if len(found) == 1 else ("are", "their")
    hints = list(dict.fromkeys(found.values()))
    return (
        Warned(f"{names} {are} not read: {their} dependencies are not installed", "; or ".join(hints[:3])),
    )


def _declares(tree: Tree, name: str, pattern: str) -> bool:
    entry = tree.find(name)
    if entry is None or entry.kind != "file":
        return False
    try:
        return re.search(pattern, read_text(entry), re.MULTILINE) is not None
    except ContextError:  # not text
        return False
