"""What a requirements.txt asks for: a small reading of pip's format that passes over the rest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detbuild.image.versions import Specifier, parse_specifiers, release

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = re.compile(r"([A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)\s*(?:\[([^\]]*)\])?\s*(.*)", re.DOTALL)
_OPTION = re.compile(r"(-[a-z]|--[a-z-]+)(?:\s*=\s*|\s+)?(.*)", re.DOTALL)
_COMPARISON = re.compile(r"\s*(\w+)\s*(===?|!=|<=|>=|<|>|~=|not in|in)\s*['\"]([^'\"]*)['\"]\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    name: str  # normalised: lower case, dashes
    specifiers: tuple[Specifier, ...] = ()
    direct: bool = False  # comes from a URL, whose version is not known here
    marker: str = ""


@dataclass(frozen=True, slots=True)
class RequirementsFile:
    requirements: tuple[Requirement, ...] = ()
    includes: tuple[str, ...] = ()  # files named by -r and -c
    local: bool = False  # names a directory or file of the context: `-e .`, `./wheels/x.whl`


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_requirements(text: str) -> RequirementsFile:
    requirements: list[Requirement] = []
    includes: list[str] = []
    local = False
    for line in _lines(text):
        option = _OPTION.match(line)
        if option and option[1] in {"-r", "-c", "--requirement", "--constraint"}:
            includes.append(option[2].strip())
        elif option:
            local = local or (option[1] in {"-e", "--editable"} and _is_path(option[2]))
        elif _is_path(line):
            local = True
        elif requirement := _requirement(line):
            requirements.append(requirement)
    return RequirementsFile(tuple(requirements), tuple(includes), local)


def applies(marker: str, *, python: str, machine: str) -> bool:
    """Whether an environment marker is true in a Linux container; an unknown clause counts as true."""
    known = {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_machine": machine,
        "python_version": python,
        "python_full_version": python,
    }
    clauses = re.sub(r"[()]", " ", marker)
    return any(
        all(_true(clause, known) for clause in re.split(r"\band\b", part))
        for part in re.split(r"\bor\b", clauses)
    )


def _true(clause: str, known: dict[str, str]) -> bool:
    match = _COMPARISON.fullmatch(clause)
    if not match or match[1] not in known:
        return True
    have, operator, wanted = known[match[1]], match[2], match[3]
    if operator == "in":
        return have in wanted
    if operator == "not in":
        return have not in wanted
    if release(wanted) and match[1].startswith("python"):
        return not have or Specifier(operator, wanted).allows(have)
    return (have == wanted) is (operator != "!=")


def _lines(text: str) -> Iterator[str]:
    """Logical lines: continued ones joined, comments and empty ones gone."""
    joined = re.sub(r"\\\r?\n", " ", text.removeprefix("\ufeff"))
    for line in joined.splitlines():
        body = re.sub(r"(^|\s)#.*", "", line).strip()
        if body:
            yield body


def _is_path(text: str) -> bool:
    target = text.partition(";")[0].strip()
    if target.startswith((".", "/", "file:")):
        return True
    return (
        "://" not in target
        and "@" not in target
        and ("/" in target or target.endswith((".whl", ".gz", ".zip")))
    )


def _requirement(line: str) -> Requirement | None:
    body, _, marker = line.partition(";")
    # Options of one requirement, such as --hash, follow it.
    body = re.split(r"\s--?[a-z]", body)[0]
    marker = re.split(r"\s--[a-z]", marker)[0].strip()
    match = _NAME.fullmatch(body.strip())
    if not match:
        return None
    name, rest = normalized(match[1]), match[3].strip()
    if rest.startswith("@"):
        url_marker = re.split(r"\s;", line, maxsplit=1)[1:]
        return Requirement(name=name, direct=True, marker="".join(url_marker).strip())
    specifiers = parse_specifiers(rest)
    return None if specifiers is None else Requirement(name=name, specifiers=specifiers, marker=marker)
