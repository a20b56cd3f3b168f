"""Reads a context directory: one walk gives the snapshot for the image and the listing for users.

The walk follows no link and enters no excluded directory. A link is kept if its target is in the tree. All
that cannot be packed (unreadable files, links that leave the tree) is collected and reported in one error;
special files are excluded with a warning, and so are configs with secrets.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import posixpath
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from detbuild.config.experiment import ExperimentConfig
from detbuild.config.secrets import text_holds_secrets
from detbuild.context import gitignore
from detbuild.context.snapshot import ContextSnapshot, Entry, Kind, hash_file, order, raw, shown, text
from detbuild.credentials import credentials_in
from detbuild.errors import ContextError
from detbuild.events import Warned, heartbeat
from detbuild.textfile import TextFileError, bodies, decode, read_bytes, unix_lines
from detbuild.units import counted, size
from determined._contract.run_info import is_home

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from detbuild.context.snapshot import HashCache
    from detbuild.events import Emit

_READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
_SHOWN = 20  # problems in one message
_LONG = 200  # characters of a path in it
LARGEST_CONTEXT = 10_000_000_000  # bytes; more is usually a mistake
_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
_Entries = Mapping[bytes, "os.DirEntry[bytes]"]
_LARGEST_TEXT: Final = 1 << 18  # bytes; a longer file is data
# A YAML file with one of these top-level fields and one of these words may be a config with secrets.
_OF_A_CONFIG: Final = re.compile(
    r"^(?:searcher|entrypoint|environment|checkpoint_storage|data|task_container_defaults)[ \t]*:",
    re.MULTILINE,
)
_MAY_BE_SECRET: Final = re.compile(
    r"environment_variables|registry_auth|secret|access_key|connection_string|credential|://[^\s/]*@|_args"
    r"|pod_spec|pachyderm|security|checkpoint_storage|tensorboard_storage|data_layer|internal"
)
# Files that declare packages or set up the container are needed in the image, so they only cause a warning.
_DECLARING: Final = re.compile(
    r"pyproject\.toml|setup\.(?:py|cfg)|Pipfile|environment\.ya?ml|\.condarc|startup-hook\.sh|.*\.lock"
)
_LOGINS: Final = frozenset({".netrc", "_netrc", ".pypirc", ".git-credentials", "pip.conf", ".env", ".npmrc"})


def read_context(
    context_dir: Path,
    *,
    includes: Sequence[Path] = (),
    cache: HashCache | None = None,
    home: Path | None = None,
    allow_anything: bool = False,
    emit: Emit = lambda _: None,
) -> tuple[ContextSnapshot, Listing]:
    """Read the files of the image, and list included and excluded files.

    Args:
        context_dir: included except for the files that its `.detignore` files exclude.
        includes: more files and directories, added at the root under their base names.
        cache: hashes of earlier runs; it is saved at the end.
        home: the user's home directory, which is rejected as a context, like `/`.
        allow_anything: accept them anyway, and a context of any size.
        emit: receives the progress if it takes long.

    Raises:
        ContextError: files cannot be packed, all named in the message; or the context is larger than
            `LARGEST_CONTEXT`.
    """
    findings, reading = _Findings(), _Reading()
    with heartbeat(emit, lambda: reading.progress_text if reading.total else _listed(findings)):
        _walk(context_dir, includes, findings, home=home, allow_anything=allow_anything)
        listed = _list_findings(findings)
        reading.total = listed.size
        if not allow_anything:
            _refuse_size(context_dir, listed)
        return _read(findings, cache, reading), listed


@dataclass(slots=True)
class _Reading:
    """Progress of reading a context."""

    total: int = 0  # bytes
    done: int = 0
    path: bytes = b""

    def count(self, read: int) -> None:
        self.done += read

    @property
    def progress_text(self) -> str:
        at = f"{size(self.done)} of {size(self.total)}" if self.path else size(self.total)
        return f"reading the context: {at}  {_brief(self.path) if self.path else ''}".rstrip()


def _listed(findings: _Findings) -> str:
    return f"listing the context: {counted(len(findings.found), 'path')} so far"


def snapshot(
    context_dir: Path,
    *,
    includes: Sequence[Path] = (),
    cache: HashCache | None = None,
    home: Path | None = None,
    allow_anything: bool = False,
) -> ContextSnapshot:
    """Return the snapshot only. Arguments and errors are those of `read_context`."""
    findings = _Findings()
    _walk(context_dir, includes, findings, home=home, allow_anything=allow_anything)
    return _read(findings, cache, _Reading())


def listing(
    context_dir: Path,
    includes: Sequence[Path] = (),
    *,
    home: Path | None = None,
    allow_anything: bool = False,
    emit: Emit = lambda _: None,
) -> Listing:
    """Return the listing only, without opening files. Arguments are those of `read_context`."""
    findings = _Findings()
    with heartbeat(emit, lambda: _listed(findings)):
        _walk(context_dir, includes, findings, home=home, allow_anything=allow_anything)
    _refuse([*findings.problems, *_closed(findings.found)])
    return _list_findings(findings)


def _walk(
    context_dir: Path,
    includes: Iterable[Path],
    findings: _Findings,
    *,
    home: Path | None,
    allow_anything: bool,
) -> None:
    root = _context_root(context_dir, home=home, allow_anything=allow_anything)
    _Walk(root, b"", findings).run()
    for include in includes:
        _include(include, findings)
    findings.found.sort(key=lambda found: order(found.path))


def _include(include: Path, findings: _Findings) -> None:
    name, source, seen = _include_root(include)
    if any(found.path == name for found in findings.found):
        raise ContextError(
            f"duplicate name {shown(text(name))} at the context's root; one is {include}",
            hint="rename one of them, or add the context's own to .detignore",
        )
    if stat.S_ISDIR(seen.st_mode):
        findings.found.append(_Found(name, "dir", source))
        _Walk(source, name + b"/", findings).run()
    else:
        findings.found.append(_Found(name, "file", source, seen))


def _read(findings: _Findings, cache: HashCache | None, reading: _Reading) -> ContextSnapshot:
    if findings.problems:  # hashing is skipped, but all problems are reported
        _refuse([*findings.problems, *_closed(findings.found)])
    problems: list[_Problem] = []
    entries = tuple(_entries(findings.found, cache, problems, reading))
    _refuse(problems)
    if cache is not None:
        cache.save()
    return ContextSnapshot(entries)


def _closed(found: Iterable[_Found]) -> Iterator[_Problem]:
    for path, _, source, seen, _ in found:
        if seen is None or seen.st_mode & _READABLE == _READABLE:
            continue  # readable by everyone, so there is no need to check
        if not os.access(source, os.R_OK, effective_ids=True):
            yield _unreadable(path, PermissionError(13, "Permission denied"))


def _entries(
    found: Iterable[_Found], cache: HashCache | None, problems: list[_Problem], reading: _Reading
) -> Iterator[Entry]:
    for path, kind, source, seen, target in found:
        if seen is not None:
            reading.path = path
            try:
                sha256, length = _sha256(source, seen, cache, reading)
            except OSError as error:
                problems.append(_unreadable(path, error))
            except ContextError as error:
                problems.append(_Problem(path, str(error), error.hint))
            else:
                mode = 0o755 if seen.st_mode & stat.S_IXUSR else 0o644
                yield Entry(text(path), "file", mode, length, sha256, "", text(source))
        elif kind == "dir":
            yield Entry(text(path), "dir", 0o755)
        else:
            yield Entry(text(path), "link", 0o777, target=text(target))


def _sha256(
    source: bytes, seen: os.stat_result, cache: HashCache | None, reading: _Reading
) -> tuple[str, int]:
    if cache is not None:
        return cache.sha256(source, seen, reading.count)
    sha256, read = hash_file(source, reading.count)
    return sha256, read.st_size


def _refuse_size(context_dir: Path, listed: Listing) -> None:
    if listed.size <= LARGEST_CONTEXT:
        return
    largest = "".join(f"\n  {size(bytes_):>9}  {_brief(raw(path))}" for path, bytes_ in listed.largest[:3])
    raise ContextError(
        f"the context {context_dir} has {size(listed.size)} in {counted(listed.files, 'file')}; the limit is "
        f"{size(LARGEST_CONTEXT)}. The largest files:{largest}",
        hint="add them to .detignore and mount data with bind_mounts, or pass --allow-any-context",
    )


def _refuse(problems: Sequence[_Problem]) -> None:
    if not problems:
        return
    lines = [f"  {_brief(problem.path)}: {problem.cause}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"  and {len(problems) - _SHOWN} more")
    hints = dict.fromkeys(problem.hint for problem in problems)
    raise ContextError("the context cannot be packed:\n" + "\n".join(lines), hint="; ".join(hints))


def _brief(path: bytes) -> str:
    name = shown(text(path)) or "."
    return name if len(name) <= _LONG else f"{name[: _LONG // 2]}...{name[-_LONG // 2 :]}"


class _Found(NamedTuple):
    """An included file, directory or link."""

    path: bytes  # in the image, relative
    kind: Kind
    source: bytes  # on this host, absolute
    seen: os.stat_result | None = None  # of a file
    target: bytes = b""  # of a link


class _Problem(NamedTuple):
    """A reason why the context cannot be packed."""

    path: bytes
    cause: str
    hint: str


@dataclass(frozen=True, slots=True)
class _Findings:
    """Results of the walks of one context, unordered."""

    found: list[_Found] = field(default_factory=list)
    left_out: list[tuple[bytes, gitignore.GitPattern]] = field(default_factory=list)
    special: list[tuple[bytes, str]] = field(default_factory=list)  # special files and homes; never opened
    problems: list[_Problem] = field(default_factory=list)
    roots: list[bytes] = field(default_factory=list)  # real paths of the trees walked


@dataclass(frozen=True, slots=True)
class _Walk:
    """A walk through one tree, without following links or entering excluded directories."""

    root: bytes  # real path
    prefix: bytes  # path of the tree in the image: b"" or b"name/"
    findings: _Findings

    def run(self) -> None:
        self.findings.roots.append(self.root)
        pending: list[tuple[bytes, gitignore.Scope | None]] = [(b"", None)]
        while pending:
            directory, above = pending.pop()
            try:
                entries = self._entries(directory)
                scope = self._scope(directory, above, entries)
                pending += [(inner, scope) for inner in self._sort(directory, scope, entries)]
            except TextFileError as error:
                where = self.prefix + directory + gitignore.NAME + error.where.encode()
                self.findings.problems.append(_Problem(where, str(error), "fix or remove it"))
            except OSError as error:
                at = error.filename.removeprefix(self._start) if error.filename else directory
                self.findings.problems.append(_unreadable(self.prefix + at, error))

    @property
    def _start(self) -> bytes:
        return self.root.rstrip(b"/") + b"/"

    def _entries(self, directory: bytes) -> _Entries:
        with os.scandir(self._start + directory) as entries:
            return {entry.name: entry for entry in entries}

    def _scope(self, directory: bytes, above: gitignore.Scope | None, entries: _Entries) -> gitignore.Scope:
        own = _rules(entries[gitignore.NAME].path) if gitignore.NAME in entries else None
        return above.enter(directory, own) if above else gitignore.root_scope(self.prefix, own)

    def _sort(self, directory: bytes, scope: gitignore.Scope, entries: _Entries) -> list[bytes]:
        """Sort the entries into the findings and return the directories to walk next."""
        some_name_matches, found = scope.some_name_matches, self.findings.found.append  # hot loop
        at, inner = self.prefix + directory, []
        for name, entry in entries.items():
            is_dir = entry.is_dir(follow_symlinks=False)
            end = b"/" * is_dir
            spec = scope.spec if some_name_matches(name) else scope.path_spec
            if spec is not None and (pattern := gitignore.excluding_pattern(spec, directory + name + end)):
                self.findings.left_out.append((at + name + end, pattern))
            elif is_dir and is_home(entry.path):
                self.findings.special.append((at + name + b"/", "a home of detbuild"))
            elif is_dir:
                found(_Found(at + name, "dir", entry.path, None, b""))
                inner.append(directory + name + b"/")
            elif entry.is_file(follow_symlinks=False):
                found(_Found(at + name, "file", entry.path, entry.stat(follow_symlinks=False), b""))
            elif entry.is_symlink():
                self._link(directory + name, entry.path)
            else:
                what = _SPECIAL.get(stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode), "not a file")
                self.findings.special.append((at + name, what))
        return inner

    def _link(self, path: bytes, source: bytes) -> None:
        target = _inner_target(source, path, self.root)
        if target is None:
            self.findings.problems.append(_leaves(self.prefix + path, source))
        else:
            self.findings.found.append(_Found(self.prefix + path, "link", source, target=target))


def _rules(path: bytes) -> bytes:
    """Read an ignore file as UTF-8, with Unix line ends.

    Unlike git, follow links, as Determined does, and reject files that are not text, whose rules would
    silently match nothing.
    """
    content = decode(read_bytes(path)).encode()
    return content if b"\n" in content else content.replace(b"\r", b"\n")


def _unreadable(path: bytes, error: OSError) -> _Problem:
    hint = "make it readable, or add it to .detignore"
    return _Problem(path, error.strerror or str(error), hint)


def _leaves(path: bytes, source: bytes) -> _Problem:
    target = shown(text(os.readlink(source)))  # noqa: PTH115  (bytes)
    return _Problem(
        path,
        f"links out of the context, to {target}",
        "copy its target into the context, pass the target with --include, or add the link to .detignore",
    )


class Kept(NamedTuple):
    path: str
    kind: Kind
    size: int  # bytes


class LeftOut(NamedTuple):
    path: str  # ends in a slash for a directory, which is excluded with its contents
    rule: str  # the pattern as written; "" for a special file
    where: str  # "sub/.detignore:3", "built in", or the kind of special file


@dataclass(frozen=True, slots=True)
class Listing:
    """Included and excluded files, in the order of the snapshot."""

    kept: tuple[Kept, ...]
    left_out: tuple[LeftOut, ...]
    warnings: tuple[Warned, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of included file content."""
        return sum(kept.size for kept in self.kept)

    @property
    def files(self) -> int:
        return sum(kept.kind == "file" for kept in self.kept)

    @property
    def largest(self) -> tuple[tuple[str, int], ...]:
        """The ten largest files as (path, bytes), largest first."""
        top = heapq.nlargest(10, self.kept, key=lambda kept: kept.size)
        return tuple((kept.path, kept.size) for kept in top if kept.kind == "file")


def _list_findings(findings: _Findings) -> Listing:
    """List findings for users."""
    left_out = [(path, pattern.text, pattern.where) for path, pattern in findings.left_out]
    left_out += [(path, "", what) for path, what in findings.special]
    left_out.sort(key=lambda out: order(out[0]))
    kept = (Kept(text(path), kind, seen.st_size if seen else 0) for path, kind, _, seen, _ in findings.found)
    return Listing(
        kept=tuple(kept),
        left_out=tuple(LeftOut(text(path), rule, where) for path, rule, where in left_out),
        warnings=(*_special(findings), *_dangling(findings)),
    )


def _special(findings: _Findings) -> Iterator[Warned]:
    for path, what in findings.special:
        yield Warned(f"{shown(text(path))} is {what} and is excluded from the image", "add it to .detignore")


def _dangling(findings: _Findings) -> Iterator[Warned]:
    """Warn of links whose target exists but is excluded, so that they are broken in the image."""
    links = [found for found in findings.found if found.kind == "link"]
    kept = {found.source for found in findings.found} if links else set()
    for link in links:
        real = os.path.realpath(link.source)
        if os.path.lexists(real) and real not in kept and real not in findings.roots:
            yield Warned(
                f"{shown(text(link.path))} is a link to a file that is excluded from the image",
                "include its target with a `!` line in .detignore, or add the link too",
            )


def _inner_target(link: bytes, path: bytes, root: bytes) -> bytes | None:
    """Return the link's target in the image, or None if the link leaves the tree.

    A relative target inside the tree is kept. An absolute one, or one that leaves the tree and returns by
    name, is made relative, because the tree has another name in the image.

    Args:
        link: the link's own real path.
        path: the link's path relative to `root`.
        root: the real path of the tree.

    Raises:
        OSError: the link cannot be read.
    """
    target = os.readlink(link)  # noqa: PTH115  (bytes)
    real = os.path.realpath(link)
    if not _within(real, root):
        return None
    named = os.path.normpath(os.path.join(os.path.dirname(path), target))  # noqa: PTH118, PTH120  (bytes)
    if named.startswith(b"/") or _within(named, b".."):
        return os.path.relpath(real, os.path.dirname(link))  # noqa: PTH120  (bytes)
    return target


def _within(path: bytes, directory: bytes) -> bool:
    """Whether the path is the directory or below it, by text only."""
    return path == directory or path.startswith(directory.rstrip(b"/") + b"/")


def _context_root(context_dir: Path, *, home: Path | None, allow_anything: bool) -> bytes:
    """Check a context directory and return its real path.

    Args:
        context_dir: as the user gave it.
        home: the user's home directory, which is rejected like `/`.
        allow_anything: accept them anyway.
    """
    if not stat.S_ISDIR(_stat(context_dir, "the context directory").st_mode):
        raise ContextError(
            f"the context {context_dir} is not a directory",
            hint="pass the directory of your model code; add single files with --include",
        )
    root = os.path.realpath(os.fsencode(context_dir))
    if not os.access(root, os.R_OK | os.X_OK, effective_ids=True):
        raise ContextError(
            f"no permission to read the context directory {context_dir}", hint="make it readable"
        )
    unlikely = {b"/"} | ({os.path.realpath(os.fsencode(home))} if home is not None else set())
    if root in unlikely and not allow_anything:
        raise ContextError(
            f"the context directory {context_dir} is {_whose(root)}: all of it would go into the image",
            hint="pass the directory of your model code, or --allow-any-context",
        )
    return root


def _whose(root: bytes) -> str:
    return "the root of the file system" if root == b"/" else "your home directory"


def _include_root(include: Path) -> tuple[bytes, bytes, os.stat_result]:
    """Return name in the context, real path and state of an included file or directory."""
    seen = _stat(include, "the included path")
    name = os.path.basename(os.path.abspath(os.fsencode(include)))  # noqa: PTH100, PTH119  (bytes)
    if not name or not (stat.S_ISDIR(seen.st_mode) or stat.S_ISREG(seen.st_mode)):
        raise ContextError(f"the included path {include} is neither a file nor a directory with a name")
    return name, os.path.realpath(os.fsencode(include)), seen


def _stat(path: Path, what: str) -> os.stat_result:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ContextError(f"{what} {path} does not exist", hint="check the path") from error
    except PermissionError as error:
        raise ContextError(f"no permission to access {what} {path}", hint="make it readable") from error
    except OSError as error:
        raise ContextError(
            f"{what} {path} cannot be used: {error.strerror}", hint="check the path"
        ) from error


def check_shadowing(context: ContextSnapshot) -> None:
    """Raise ContextError if the root has a module `determined`, which would shadow the harness.

    A directory of that name without `__init__.py` is harmless: Python prefers the harness.
    """
    paths = {entry.path for entry in context.entries if entry.path.startswith("determined")}
    links = {entry.path for entry in context.entries if entry.kind == "link"}
    for path in ("determined.py", "determined/__init__.py"):
        if path in paths:
            raise _shadows(path)
    if "determined" in links:
        raise _shadows("determined")


def _shadows(path: str) -> ContextError:
    return ContextError(
        f"{path} in the context hides the harness, which user code imports as `determined`",
        hint="rename it, or add it to .detignore",
    )


def without_credentials(context: ContextSnapshot, text: str) -> tuple[ContextSnapshot, tuple[Warned, ...]]:
    """Exclude config files with secrets, the submitted one and others, and return warnings.

    Args:
        context: Files of the image.
        text: Text of the submitted config.
    """
    digests = {hashlib.sha256(body).hexdigest() for body in bodies(text)} if _holds(text) else set()
    held = [entry for entry in context.entries if entry.sha256 in digests or _is_config_with_secrets(entry)]
    held = [entry for entry in held if entry.kind == "file"]
    kept = tuple(entry for entry in context.entries if entry not in held)
    left_out = [
        Warned(f"{shown(entry.path)} is excluded from the image: it contains secrets", "add it to .detignore")
        for entry in held
    ]
    return ContextSnapshot(kept) if held else context, (*left_out, *_credential_warnings(kept))


def _credential_warnings(entries: tuple[Entry, ...]) -> Iterator[Warned]:
    """Warn of files with credentials that the code may need, so that they are not excluded."""
    for entry in entries:
        name = posixpath.basename(entry.path)
        if entry.kind != "file" or entry.size > _LARGEST_TEXT:
            continue
        if name in _LOGINS:
            message = f"{shown(entry.path)} goes into the image and may contain credentials"
            yield Warned(message, "add it to .detignore")
        elif _DECLARING.fullmatch(name) and credentials_in(_body(entry).decode("latin-1")):
            message = f"{shown(entry.path)} goes into the image with the credentials of a URL"
            yield Warned(message, "add it to .detignore, or move the URL to requirements.txt")


def _is_config_with_secrets(entry: Entry) -> bool:
    if entry.kind != "file" or not entry.path.endswith((".yaml", ".yml")) or entry.size > _LARGEST_TEXT:
        return False
    try:
        text = unix_lines(decode(_body(entry)))
    except TextFileError:
        return False  # detbuild could not read it as a config either
    return bool(_OF_A_CONFIG.search(text) and _MAY_BE_SECRET.search(text)) and _holds(text)


def _holds(text: str) -> bool:
    return text_holds_secrets(text, ExperimentConfig)


def _body(entry: Entry) -> bytes:
    """Read a file; empty if unreadable, which packing reports."""
    if entry.body is not None:
        return entry.body
    try:
        return Path(entry.source).read_bytes()
    except OSError:
        return b""
