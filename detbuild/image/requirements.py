"""Reads requirements.txt and the files that it includes, as pip does.

What a line means depends on the files of the context: `./lib` may be a directory of it, or a mistake. The
tests compare with pip's own parser.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, NoReturn
from urllib.parse import unquote, urlsplit

from detbuild.context.snapshot import ContextSnapshot, Entry, Tree, file_snapshot, read, read_text
from detbuild.errors import ContextError

if TYPE_CHECKING:
    import optparse
    from collections.abc import Iterator

    from packaging.markers import Marker
    from packaging.specifiers import SpecifierSet

WORKDIR: Final = "/run/determined/workdir"  # directory of the context in an image, in which pip runs
REQUIREMENTS: Final = "requirements.txt"
_CODING: Final = re.compile(rb"coding[:=]\s*([-\w.]+)")  # as in Python sources; pip reads it too
_COMMENT: Final = re.compile(r"(^|\s)#.*$")
_EXTRAS: Final = re.compile(r"^(.+)(\[[^\]]+\])$")
_ARCHIVES: Final = frozenset(
    (
        *(".zip", ".whl", ".tar.bz2", ".tbz", ".tar.gz", ".tgz", ".tar"),
        *(".tar.xz", ".txz", ".tlz", ".tar.lz", ".tar.lzma"),
    )
)
_VERSION_CONTROL: Final = ("bzr", "git", "hg", "svn")
_URL_SCHEMES: Final = frozenset(
    (
        *("http", "https", "file", "ftp", "ssh", "git", "hg", "bzr", "sftp", "svn"),
        *(f"bzr+{name}" for name in ("http", "https", "ssh", "sftp", "ftp", "lp", "file")),
        *(f"git+{name}" for name in ("http", "https", "ssh", "git", "file")),
        *(f"hg+{name}" for name in ("file", "http", "https", "ssh", "static-http")),
        *(f"svn+{name}" for name in ("ssh", "http", "https", "svn", "file")),
    )
)
# pip's options in requirements files, with all spellings; unique prefixes of long ones are valid too.
_FLAGS: Final = ("--no-index", "--prefer-binary", "--require-hashes", "--pre")
_WITH_VALUE: Final = (
    ("-i", "--index-url", "--pypi-url"),
    ("--extra-index-url",),
    ("-c", "--constraint"),
    ("-r", "--requirement"),
    ("-e", "--editable"),
    ("-f", "--find-links"),
    ("--no-binary",),
    ("--only-binary",),
    ("--trusted-host",),
    ("--use-feature",),
    ("--global-option",),
    ("--hash",),
    ("-C", "--config-settings"),
)
_PlaceKind = Literal["editable", "project", "archive", "links", "index"]
_VCS_PREFIXES: Final = tuple(f"{name}+" for name in _VERSION_CONTROL)
_RELEASE = re.compile(r"v?(\d+(?:\.\d+)*)(.*)", re.IGNORECASE)
_Release = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One logical line of a requirements file, split as pip splits it."""

    file: str  # path in the context
    number: int  # of its first physical line, from 1
    last: int  # of its last one
    constraint: bool = False  # in a constraints file
    argument: str = ""  # a requirement, with its marker; "" on a line of options
    options: tuple[tuple[str, str], ...] = ()  # by long name, in order; the value of a flag is ""
    error: str = ""  # why pip rejects the options

    @property
    def place(self) -> str:
        return f"{self.file}:{self.number}"

    def values(self, option: str) -> tuple[str, ...]:
        return tuple(value for name, value in self.options if name == option)

    @property
    def editable(self) -> str:
        """The value of `-e`; "" on other lines."""
        return "" if self.argument else next(iter(self.values("--editable")), "")

    @property
    def included(self) -> str:
        """The file that the line includes; "" on other lines."""
        if self.argument or self.editable:
            return ""
        return next(iter((*self.values("--requirement"), *self.values("--constraint"))), "")

    @property
    def is_option(self) -> bool:
        """Whether its options apply to the whole installation."""
        return not (self.argument or self.editable or self.included or self.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A local directory or file that pip reads."""

    kind: _PlaceKind
    named: str  # as written
    path: str  # in the context; "" is its root
    line: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """The requirement of a line."""

    line: Line
    name: str = ""  # normalised: lower case, dashes; "" if only a build would tell
    specifiers: SpecifierSet | None = None
    marker: Marker | None = None
    direct: bool = False  # from a URL or a path, not the index
    place: Place | None = None

    @property
    def constraint(self) -> bool:
        return self.line.constraint

    def allows(self, version: str) -> bool:
        return self.specifiers is None or self.specifiers.contains(version, prereleases=True)


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem of a line, found without pip."""

    line: Line
    cause: str
    hint: str = ""
    missing: str | None = None  # the path that is not in the image
    outside: bool = False  # an absolute path, which the user's own image may have


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The meaning of a line."""

    requirement: Requirement | None = None
    places: tuple[Place, ...] = ()
    problem: Finding | None = None  # pip would reject it
    warning: Finding | None = None  # pip would skip it


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_archive(path: str) -> bool:
    """Whether pip treats a file of that name as a distribution."""
    base, extension = posixpath.splitext(path)
    if base.lower().endswith(".tar"):
        extension = base[-4:] + extension
    return extension.lower() in _ARCHIVES


def split_lines(text: str, *, file: str = "", constraint: bool = False) -> tuple[Line, ...]:
    """Split a requirements file into logical lines, without comments and empty lines."""
    lines = []
    for number, last, joined in _joined(text):
        body = _COMMENT.sub("", joined).strip()
        if body:
            line = Line(file=file, number=number, last=last, constraint=constraint)
            lines.append(_split(line, body))
    return tuple(lines)


def _joined(text: str) -> Iterator[tuple[int, int, str]]:
    """Join lines that end in a backslash; yield their first and last numbers and the text."""
    first, parts = 0, list[str]()
    number = 0
    for number, raw in enumerate(text.splitlines(), 1):
        is_comment = raw.lstrip().startswith("#")
        if raw.endswith("\\") and not is_comment:
            first = first if parts else number
            parts.append(raw.strip("\\"))
            continue
        line = f" {raw}" if is_comment else raw  # a comment ends a continued line
        yield (first if parts else number), number, "".join((*parts, line))
        parts = []
    if parts:
        yield first, number, "".join(parts)


def _split(line: Line, body: str) -> Line:
    """Split the requirement, whose marker may have quotes, from the options that follow."""
    tokens = body.split(" ")
    count = next((n for n, token in enumerate(tokens) if token.startswith("-")), len(tokens))
    argument, rest = " ".join(tokens[:count]), " ".join(tokens[count:])
    if not rest:
        return replace(line, argument=argument)
    try:
        return replace(line, argument=argument, options=_options(rest))
    except ValueError as error:
        return replace(line, argument=argument, error=str(error))


def _options(text: str) -> tuple[tuple[str, str], ...]:
    """Read options as pip does.

    Raises:
        ValueError: pip would reject them.
    """
    import optparse
    import shlex

    class Parser(optparse.OptionParser):
        def error(self, msg: str) -> NoReturn:
            raise ValueError(msg)

    found: list[tuple[str, str]] = []

    def collect(option: optparse.Option, _: str, value: str | None, __: optparse.OptionParser) -> None:
        found.append((option._long_opts[0], value or ""))  # noqa: SLF001  (optparse has no public name for it)

    parser = Parser(add_help_option=False)
    for name in _FLAGS:
        parser.add_option(name, action="callback", callback=collect)
    for names in _WITH_VALUE:
        parser.add_option(*names, action="callback", callback=collect, type="string")
    parser.parse_args(shlex.split(text))
    return tuple(found)


def requirement_of(text: str) -> tuple[str, SpecifierSet] | None:
    """Return name and specifiers of a plain requirement, as in wheel metadata; None if invalid."""
    from packaging.requirements import InvalidRequirement
    from packaging.requirements import Requirement as Parsed

    try:
        parsed = Parsed(text)
    except InvalidRequirement:
        return None
    return normalized(parsed.name), parsed.specifier


def applies(marker: Marker | None, *, python: str, machine: str) -> bool:
    """Whether an environment marker may be true in a Linux container with that minor version of Python."""
    if marker is None:
        return True
    known = {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_machine": machine,
        "python_version": python,
        "extra": "",
    }
    unknown = re.search(r"platform_(release|version)|platform\.version", str(marker))
    # The patch release is unknown, so test its bounds.
    return bool(unknown) or any(
        marker.evaluate({**known, "python_full_version": full, "implementation_version": full})
        for full in (f"{python}.0", f"{python}.99")
    )


def read_line(line: Line, tree: Tree) -> Reading:
    """Interpret a line as pip does in the context's directory."""
    if line.error:
        problem = Finding(line, f"pip rejects these options: {line.error}")
        return Reading(warning=problem)
    if line.editable:
        return _editable(line, tree)
    return _argument(line, tree) if line.argument else _option_places(line, tree)


def _editable(line: Line, tree: Tree) -> Reading:
    named = line.editable
    bare, _ = _without_extras(named)
    if tree.is_dir(path := in_context(bare)):
        return _project(line, named, path, kind="editable")
    if bare.lower().startswith("file:"):
        return _project(line, named, _file_path(bare), kind="editable", name=_egg(bare))
    if _is_version_control(named):
        problem = Finding(line, f"`-e {named}` does not name its project", "add `#egg=<project>` to the URL")
        requirement = Requirement(line=line, name=_egg(named), direct=True)
        return Reading(requirement=requirement, problem=None if requirement.name else problem)
    at = re.fullmatch(r"([A-Za-z0-9][\w.-]*)\s*(?:\[[^]]*\])?\s*@\s*(\S+)", named)
    if at and _is_version_control(at[2]):
        return Reading(requirement=Requirement(line=line, name=normalized(at[1]), direct=True))
    return Reading(problem=_absent(line, bare, path))


def _is_version_control(url: str) -> bool:
    scheme = _scheme(url)
    return scheme in _VERSION_CONTROL or (scheme in _URL_SCHEMES and scheme.startswith(_VCS_PREFIXES))


def _argument(line: Line, tree: Tree) -> Reading:
    name, marker, problem = _marker(line)
    if problem is not None:
        return Reading(warning=problem)
    is_url = _scheme(name) in _URL_SCHEMES
    reading = _from_url(line, name) if is_url else _from_name(line, name, tree)
    if reading.requirement is None or marker is None:
        return reading
    return replace(reading, requirement=replace(reading.requirement, marker=marker))


def _marker(line: Line) -> tuple[str, Marker | None, Finding | None]:
    separator = "; " if _scheme(line.argument) in _URL_SCHEMES else ";"
    name, _, marker = line.argument.partition(separator)
    if not marker.strip():
        return name.strip(), None, None
    from packaging.markers import InvalidMarker, Marker

    try:
        return name.strip(), Marker(marker.strip()), None
    except InvalidMarker as error:
        what = str(error).splitlines()[0]
        return name, None, Finding(line, f"not a valid environment marker: {marker.strip()} ({what})")


def _from_url(line: Line, url: str) -> Reading:
    bare, _ = _without_extras(url)
    if _scheme(url) == "file":
        return _file_url(line, url, _file_path(bare), _egg(url))
    name, version = _of_wheel(urlsplit(url).path)
    return Reading(requirement=_direct(line, name or _egg(url), version))


def _file_url(line: Line, url: str, path: str | None, name: str) -> Reading:
    if path is not None and _is_archive(path):
        return _archive(line, url, path)
    return _project(line, url, path, kind="project", name=name)


def _from_name(line: Line, name: str, tree: Tree) -> Reading:
    bare, _ = _without_extras(posixpath.normpath(name))
    path = in_context(bare)
    looks_like_path = "/" in name or name.startswith(".")
    if looks_like_path and tree.is_dir(path):
        return _project(line, name, path, kind="project")
    before, at, _ = name.partition("@")
    if _is_archive(bare) and (tree.is_file(path) or not at or "/" in before or before.startswith(".")):
        return _archive(line, name, path)
    return _from_index(line, name, path if looks_like_path else None)


def _from_index(line: Line, name: str, path: str | None) -> Reading:
    from packaging.requirements import InvalidRequirement
    from packaging.requirements import Requirement as Parsed

    try:
        parsed = Parsed(name)
    except InvalidRequirement as error:
        if "/" in name and "@" not in name:
            return Reading(problem=_absent(line, name, path))
        what = str(error).splitlines()[0]
        head = re.match(r"[A-Za-z0-9][\w.-]*", name)
        known = Requirement(line=line, name=normalized(head[0])) if head else None
        return Reading(
            requirement=known,
            warning=Finding(line, f"not a valid requirement: {name} ({what})", _spelling(name)),
        )
    url = parsed.url or ""
    requirement = Requirement(
        line=line, name=normalized(parsed.name), specifiers=parsed.specifier, direct=bool(url)
    )
    if _scheme(url) != "file":
        _, version = _of_wheel(urlsplit(url).path)
        return Reading(requirement=_direct(line, requirement.name, version) if version else requirement)
    return _file_url(line, name, _file_path(url), requirement.name)


def _spelling(name: str) -> str:
    fixed = re.sub(r"(?<![=!<>~])=(?!=)", "==", name)
    return f"write `{fixed}`" if fixed != name else "write it as `name==version`"


def _project(
    line: Line, named: str, path: str | None, *, kind: Literal["editable", "project"], name: str = ""
) -> Reading:
    requirement = Requirement(line=line, name=name, direct=True)
    if path is None:
        return Reading(requirement=requirement, problem=_absent(line, named, path))
    place = Place(kind=kind, named=named, path=path, line=line)
    return Reading(requirement=replace(requirement, place=place), places=(place,))


def _archive(line: Line, named: str, path: str | None) -> Reading:
    requirement = _direct(line, *_of_wheel(path or named))
    if path is None:
        return Reading(requirement=requirement, problem=_absent(line, named, path))
    place = Place(kind="archive", named=named, path=path, line=line)
    return Reading(requirement=replace(requirement, place=place), places=(place,))


def _absent(line: Line, named: str, path: str | None) -> Finding:
    """Report a missing path; None is outside the context."""
    if path is not None:
        return Finding(line, f"`{named}` is not in the context", missing=path)
    absolute = named.startswith("/") or _scheme(named) == "file"
    hint = "copy it into the context and use its path there"
    if absolute:
        hint += "; replace a line of `pip freeze` by `name==version`"
    return Finding(line, f"`{named}` is outside the context", hint, outside=absolute)


def _direct(line: Line, name: str, version: str) -> Requirement:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        specifiers = SpecifierSet(f"=={version}") if version else None
    except InvalidSpecifier:
        specifiers = None
    return Requirement(line=line, name=normalized(name), specifiers=specifiers, direct=True)


def _option_places(line: Line, tree: Tree) -> Reading:
    if not line.is_option:
        return Reading()
    places: list[Place] = []
    warning = None
    for kind, value in _named_places(line):
        path = _looked_up(kind, value, line, tree)
        if path is not None and tree.exists(path):
            places.append(Place(kind=kind, named=value, path=path, line=line))
        else:
            warning = _absent(line, value, path)
    return Reading(places=tuple(places), warning=warning)


def _named_places(line: Line) -> Iterator[tuple[Literal["links", "index"], str]]:
    """Yield option values that are paths; of several find-links on one line pip uses the first."""
    for value in line.values("--find-links")[:1]:
        if _is_path(value):
            yield "links", value
    for value in (*line.values("--index-url")[-1:], *line.values("--extra-index-url")):
        if _is_path(value):
            yield "index", value


def _is_path(value: str) -> bool:
    scheme = _scheme(value)
    return scheme == "file" or (scheme not in _URL_SCHEMES and not value.startswith("$"))


def _looked_up(kind: str, value: str, line: Line, tree: Tree) -> str | None:
    if _scheme(value) == "file":
        return _file_path(value)
    if kind == "links":
        relative = in_context(posixpath.join(posixpath.dirname(line.file), value))
        if tree.exists(relative):
            return relative
    return in_context(value)


def in_context(path: str) -> str | None:
    """Resolve a path of pip relative to the context; None if it is outside."""
    full = posixpath.normpath(posixpath.join(WORKDIR, path))
    if full != WORKDIR and not full.startswith(f"{WORKDIR}/"):
        return None
    return full[len(WORKDIR) + 1 :]


def _file_path(url: str) -> str | None:
    """Return the path in the context of a `file:` URL."""
    parts = urlsplit(url)
    return in_context(unquote(parts.path)) if parts.netloc in {"", "localhost"} else None


def _without_extras(text: str) -> tuple[str, str]:
    match = _EXTRAS.match(text)
    return (match[1], match[2]) if match else (text, "")


def _scheme(text: str) -> str:
    return text.partition(":")[0].lower() if ":" in text else ""


def _egg(url: str) -> str:
    match = re.search(r"[#&]egg=([^&\[;\s]+)", url)
    return normalized(match[1]) if match else ""


def _of_wheel(path: str) -> tuple[str, str]:
    """Return project and version of a wheel's file name; "" for others."""
    name = unquote(posixpath.basename(path))
    parts = name.removesuffix(".whl").split("-")
    return (parts[0], parts[1]) if name.endswith(".whl") and len(parts) in {5, 6} else ("", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A requirements or constraints file of the context."""

    path: str  # with links resolved
    text: str
    encoding: str  # declared in a comment, else UTF-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """requirements.txt of the context with its included files; empty if there is none."""

    files: tuple[SourceFile, ...] = ()
    lines: tuple[Line, ...] = ()  # in pip's order
    requirements: tuple[Requirement, ...] = ()  # without `left_out`
    left_out: tuple[Requirement, ...] = ()  # replaced by detbuild
    places: tuple[Place, ...] = ()
    problems: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()

    @property
    def asks_for_packages(self) -> bool:
        return any(not requirement.constraint for requirement in self.requirements)

    @property
    def whole_context(self) -> bool:
        """Whether pip builds the context itself, e.g. `-e .`."""
        return any(place.path == "" and place.kind in {"editable", "project"} for place in self.places)

    @property
    def edited_in_place(self) -> bool:
        """Whether an installation refers to a directory of the context, e.g. `-e libshop`."""
        return any(place.kind == "editable" for place in self.places)


@dataclass(slots=True)
class _Reader:
    tree: Tree
    files: dict[str, SourceFile] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    problems: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    seen: set[tuple[str, bool]] = field(default_factory=set)

    def read(self, path: str, entry: Entry, *, constraint: bool, above: tuple[str, ...] = ()) -> None:
        if (entry.path, constraint) in self.seen:
            return
        self.seen.add((entry.path, constraint))
        source = self.files.setdefault(entry.path, _source_file(entry))
        for line in split_lines(source.text, file=path, constraint=constraint):
            self.lines.append(line)
            if line.included:
                self.include(line, (*above, entry.path))

    def include(self, line: Line, above: tuple[str, ...]) -> None:
        named = line.included
        if _scheme(named) in {"http", "https"}:
            return
        if _scheme(named) == "file":
            path = _file_path(named)
        else:
            path = in_context(posixpath.join(posixpath.dirname(line.file), named))
        entry = self.tree.find(path)
        if path is None or entry is None or entry.kind != "file":
            self.problems.append(_absent(line, named, path))
        elif entry.path in above:
            hint = "remove one of the lines that include each other"
            self.problems.append(Finding(line, f"`{named}` includes itself without end", hint))
        else:
            constraint = not line.values("--requirement")
            self.read(path, entry, constraint=constraint, above=above)


def read_requirements(context: ContextSnapshot) -> Requirements:
    """Read requirements.txt of the context and its included files.

    Raises:
        ContextError: One of the files cannot be read as text.
    """
    tree = Tree(context)
    entry = tree.find(REQUIREMENTS)
    if entry is None or entry.kind != "file":
        return Requirements()
    reader = _Reader(tree)
    reader.read(REQUIREMENTS, entry, constraint=False)
    readings = [read_line(line, tree) for line in reader.lines]
    for reading in readings:
        certain = reading.requirement is None or reading.requirement.marker is None
        for place in reading.places:
            (reader.problems if certain else reader.warnings).extend(_unusable(place, tree))
    stated = tuple(reading.requirement for reading in readings if reading.requirement)
    left_out = tuple(requirement for requirement in stated if _is_determined(requirement))
    return Requirements(
        files=tuple(reader.files.values()),
        lines=tuple(reader.lines),
        requirements=tuple(requirement for requirement in stated if requirement not in left_out),
        left_out=left_out,
        places=tuple(place for r in readings if r.requirement not in left_out for place in r.places),
        problems=(*reader.problems, *(reading.problem for reading in readings if reading.problem)),
        warnings=(*reader.warnings, *(reading.warning for reading in readings if reading.warning)),
    )


def _source_file(entry: Entry) -> SourceFile:
    body = read(entry)
    comments = (line for line in body.split(b"\n")[:2] if line.startswith(b"#"))
    named = next((match[1].decode("ascii") for line in comments if (match := _CODING.search(line))), "utf-8")
    try:
        return SourceFile(path=entry.path, text=read_text(entry, named), encoding=named)
    except LookupError as error:
        raise ContextError(f"{entry.path}:1: {error}", hint="save it as UTF-8") from error


def _unusable(place: Place, tree: Tree) -> Iterator[Finding]:
    """Yield why pip cannot install a project or an archive."""
    if place.kind in {"editable", "project"}:
        if not tree.is_dir(place.path):
            yield _absent(place.line, place.named, place.path)
        elif not any(tree.is_file(f"{place.path}/{name}") for name in ("pyproject.toml", "setup.py")):
            what = f"the directory `{place.named}` has neither pyproject.toml nor setup.py"
            yield Finding(place.line, what, "add one of them")
    elif place.kind == "archive" and not tree.is_file(place.path):
        yield _absent(place.line, place.named, place.path)


def _is_determined(requirement: Requirement) -> bool:
    """Whether it is a package of Determined, which the harness replaces."""
    name = requirement.name
    if not name and requirement.line.argument:
        archive = posixpath.basename(urlsplit(requirement.line.argument.split(";")[0].strip()).path)
        name = normalized(re.split(r"-\d", archive)[0]) if _is_archive(archive) else ""
    named = re.search(r"github\.com[/:]determined-ai/determined(\.git)?([@#]|$)", requirement.line.argument)
    is_it = name == "determined" or name.startswith("determined-") or bool(named)
    return is_it and not requirement.constraint


def for_pip(requirements: Requirements, tree: Tree) -> ContextSnapshot:
    """Return the files that pip reads: requirements files without excluded lines, and all local files.

    If pip runs in the whole context, only those next to the requirements files.
    """
    late = requirements.whole_context
    places = (place for place in requirements.places if place.kind == "links" or not late)
    paths = [path for place in places for path in paths_of(place, tree)]
    kept = tree.needed((REQUIREMENTS, *(file.path for file in requirements.files), *paths))
    written = {file.path: _without_left_out(file, requirements, tree) for file in requirements.files}
    replaced = {entry.path: entry for entry in file_snapshot(written).entries}
    return ContextSnapshot(tuple(replaced.get(e.path, e) if e.kind == "file" else e for e in kept.entries))


def paths_of(place: Place, tree: Tree) -> Iterator[str]:
    """Yield a place and the paths below it that pip may open."""
    yield place.path
    found = tree.find(place.path)
    if found is None or found.kind != "dir":
        return
    if place.kind == "links":
        # An HTML page may link archives at any depth; without one, pip lists the directory only.
        has_page = any(path.endswith((".html", ".htm")) for path in tree.children(found.path))
        inside = tree.below(found.path) if has_page else tree.children(found.path)
        yield from (path for path in inside if _is_archive(path) or path.endswith((".html", ".htm")))
    elif found.path or place.kind == "index":
        yield from tree.below(found.path)


def _without_left_out(file: SourceFile, requirements: Requirements, tree: Tree) -> bytes:
    gone = {
        number
        for requirement in requirements.left_out
        if (found := tree.find(requirement.line.file)) and found.path == file.path
        for number in range(requirement.line.number, requirement.line.last + 1)
    }
    if not gone:
        return file.text.encode(file.encoding)
    kept = ("" if number in gone else line for number, line in enumerate(file.text.splitlines(), 1))
    return "".join(f"{line}\n" for line in kept).encode(file.encoding)


def release(text: str) -> _Release:
    """Return the numbers before any letter or plus: (2, 13, 0) for "2.13.0+cpu"; () if none."""
    match = _RELEASE.match(text.strip())
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def minor(text: str) -> _Release:
    return _padded(release(text), 2)[:2]


def _padded(numbers: _Release, width: int) -> _Release:
    return numbers + (0,) * (width - len(numbers))
