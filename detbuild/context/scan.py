"""Walks a tree: its files, those that ignore files exclude, and those that cannot be packed."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from detbuild.context import ignore
from detbuild.context.links import inner_target
from detbuild.context.snapshot import Kind, shown, text
from detbuild.textfile import TextFileError, decode, read_bytes
from determined._home import is_home

_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class Found(NamedTuple):
    """An included file, directory or link."""

    path: bytes  # in the image, relative
    kind: Kind
    source: bytes  # on this host, absolute
    seen: os.stat_result | None = None  # of a file
    target: bytes = b""  # of a link


class Problem(NamedTuple):
    """A reason why the context cannot be packed."""

    path: bytes
    cause: str
    hint: str


@dataclass(frozen=True, slots=True)
class Findings:
    """Results of the walks of one context, unordered."""

    found: list[Found] = field(default_factory=list)
    left_out: list[tuple[bytes, ignore.Rule]] = field(default_factory=list)
    special: list[tuple[bytes, str]] = field(default_factory=list)  # special files and homes; never opened
    problems: list[Problem] = field(default_factory=list)
    roots: list[bytes] = field(default_factory=list)  # real paths of the trees walked


_Entries = Mapping[bytes, "os.DirEntry[bytes]"]


@dataclass(frozen=True, slots=True)
class Walk:
    """A walk through one tree, without following links or entering excluded directories."""

    root: bytes  # real path
    prefix: bytes  # path of the tree in the image: b"" or b"name/"
    findings: Findings

    def run(self) -> None:
        self.findings.roots.append(self.root)
        pending: list[tuple[bytes, ignore.Scope | None]] = [(b"", None)]
        while pending:
            directory, above = pending.pop()
            try:
                entries = self._entries(directory)
                scope = self._scope(directory, above, entries)
                pending += [(inner, scope) for inner in self._sort(directory, scope, entries)]
            except TextFileError as error:
                where = self.prefix + directory + ignore.NAME + error.where.encode()
                self.findings.problems.append(Problem(where, str(error), "fix or remove it"))
            except OSError as error:
                at = error.filename.removeprefix(self._start) if error.filename else directory
                self.findings.problems.append(unreadable(self.prefix + at, error))

    @property
    def _start(self) -> bytes:
        return self.root.rstrip(b"/") + b"/"

    def _entries(self, directory: bytes) -> _Entries:
        with os.scandir(self._start + directory) as entries:
            return {entry.name: entry for entry in entries}

    def _scope(self, directory: bytes, above: ignore.Scope | None, entries: _Entries) -> ignore.Scope:
        own = _rules(entries[ignore.NAME].path) if ignore.NAME in entries else None
        return above.enter(directory, own) if above else ignore.root_scope(self.prefix, own)

    def _sort(self, directory: bytes, scope: ignore.Scope, entries: _Entries) -> list[bytes]:
        """Sort the entries into the findings and return the directories to walk next."""
        by_paths, some_name_matches = scope.by_paths, scope.some_name_matches  # hot loop
        found = self.findings.found.append
        at, inner = self.prefix + directory, []
        for name, entry in entries.items():
            is_dir = entry.is_dir(follow_symlinks=False)
            suspect = by_paths or some_name_matches(name)
            if suspect and (rule := scope.verdict(name, is_dir=is_dir)):
                self.findings.left_out.append((at + name + b"/" * is_dir, rule))
            elif is_dir and is_home(entry.path):
                self.findings.special.append((at + name + b"/", "a home of detbuild"))
            elif is_dir:
                found(Found(at + name, "dir", entry.path, None, b""))
                inner.append(directory + name + b"/")
            elif entry.is_file(follow_symlinks=False):
                found(Found(at + name, "file", entry.path, entry.stat(follow_symlinks=False), b""))
            elif entry.is_symlink():
                self._link(directory + name, entry.path)
            else:
                what = _SPECIAL.get(stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode), "not a file")
                self.findings.special.append((at + name, what))
        return inner

    def _link(self, path: bytes, source: bytes) -> None:
        target = inner_target(source, path, self.root)
        if target is None:
            self.findings.problems.append(_leaves(self.prefix + path, source))
        else:
            self.findings.found.append(Found(self.prefix + path, "link", source, target=target))


def _rules(path: bytes) -> bytes:
    """Read an ignore file as UTF-8, with Unix line ends.

    Unlike git, follow links, as Determined does, and reject files that are not text, whose rules would
    silently match nothing.
    """
    content = decode(read_bytes(path)).encode()
    return content if b"\n" in content else content.replace(b"\r", b"\n")


def unreadable(path: bytes, error: OSError) -> Problem:
    hint = "make it readable, or add it to .detignore"
    return Problem(path, error.strerror or str(error), hint)


def _leaves(path: bytes, source: bytes) -> Problem:
    target = shown(text(os.readlink(source)))  # noqa: PTH115  (bytes)
    return Problem(
        path,
        f"links out of the context, to {target}",
        "copy its target into the context, pass the target with --include, or add the link to .detignore",
    )
