"""Finds the frameworks that a context uses, from its imports and requirements."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from detbuild.context.snapshot import read
from detbuild.image.requirements import Requirement, Requirements, applies, read_requirements

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from detbuild.context.snapshot import ContextSnapshot

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
_LARGEST: Final = 1 << 20  # bytes; a longer file is data, not a program
_FILES: Final = 1000  # nearest to the root: a trial imports its framework there
_IMPORT: Final = re.compile(
    rb"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n#;]*)|import[ \t]+([^\n#;]+))",
    re.MULTILINE,
)


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


def imported_modules(source: bytes) -> Iterator[str]:
    """Yield the dotted names that a source imports, for any Python version."""
    for match in _IMPORT.finditer(source):
        origin, names, modules = (part.decode("ascii", "replace") if part else "" for part in match.groups())
        if origin:
            yield origin
        for name in re.findall(r"([\w.]+)(?:\s+as\s+\w+)?\s*(?:,|$|\))", names or modules):
            yield f"{origin}.{name}" if origin else name


def _imported(context: ContextSnapshot) -> set[str]:
    """Return the modules of frameworks that the files nearest to the root import."""
    programs = [
        e for e in context.entries if e.kind == "file" and e.path.endswith(".py") and e.size <= _LARGEST
    ]
    found: set[str] = set()
    for entry in sorted(programs, key=lambda entry: entry.path.count("/"))[:_FILES]:
        for module in imported_modules(read(entry)):
            parts = module.split(".")
            found |= {parts[0], ".".join(parts[:2])} & (_NEEDS.keys() | _COMPANIONS.keys())
    return found
