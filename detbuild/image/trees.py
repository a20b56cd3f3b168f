"""Lookup, moving and merging of trees, and reading of their files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detbuild import textfile
from detbuild.context.snapshot import ContextSnapshot, Entry, order, raw, shown
from detbuild.errors import ContextError
from detbuild.textfile import TextFileError
from determined._untrusted import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ROOT: Final = Entry("", "dir", 0o755)
_HOPS: Final = 40  # links in one path, as in Linux


class Tree:
    """A snapshot by path; links are followed as in a container."""

    def __init__(self, snapshot: ContextSnapshot) -> None:
        self._entries = {entry.path: entry for entry in snapshot.entries}

    def find(self, path: str | None) -> Entry | None:
        """Return the file or directory at a path; None if there is none, or the path is None."""
        return None if path is None else self._walk(path)[0]

    def exists(self, path: str | None) -> bool:
        return self.find(path) is not None

    def is_dir(self, path: str | None) -> bool:
        return (found := self.find(path)) is not None and found.kind == "dir"

    def is_file(self, path: str | None) -> bool:
        return (found := self.find(path)) is not None and found.kind == "file"

    def children(self, directory: str) -> tuple[str, ...]:
        """Return the paths directly in a directory, including links."""
        prefix = f"{directory}/" if directory else ""
        return tuple(
            path for path in self._entries if path.startswith(prefix) and "/" not in path[len(prefix) :]
        )

    def below(self, directory: str) -> Iterator[str]:
        """Yield all paths below a directory."""
        prefix = f"{directory}/" if directory else ""
        return (path for path in self._entries if path.startswith(prefix))

    def needed(self, paths: Iterable[str]) -> ContextSnapshot:
        """Return the subtree of these paths, with their parents and links."""
        found: dict[str, Entry] = {}
        for path in paths:
            end, links = self._walk(path)
            for entry in (*links, *((end,) if end else ())):
                found[entry.path] = entry
                for parent in _parents(entry.path):
                    found.setdefault(parent, self._entries.get(parent, Entry(parent, "dir", 0o755)))
        found.pop("", None)
        return ContextSnapshot(tuple(sorted(found.values(), key=lambda entry: order(raw(entry.path)))))

    def _walk(self, path: str) -> tuple[Entry | None, list[Entry]]:
        """Return the entry at the end of a path, and the links on the way."""
        waiting, at, links = path.split("/")[::-1], list[str](), list[Entry]()
        while waiting:
            part = waiting.pop()
            if part == ".." and not at:
                return None, links
            if part in {"", ".", ".."}:
                del at[len(at) - (part == "..") :]
                continue
            entry = self._entries.get("/".join((*at, part)))
            if entry is None or (entry.kind == "file" and any(waiting)) or len(links) > _HOPS:
                return None, links
            if entry.kind == "link":
                links.append(entry)
                waiting += entry.target.split("/")[::-1]
            else:
                at.append(part)
        return self._entries.get("/".join(at), _ROOT), links


def _parents(path: str) -> list[str]:
    names = path.split("/")
    return ["/".join(names[:depth]) for depth in range(1, len(names))]


def below(directory: str, tree: ContextSnapshot) -> ContextSnapshot:
    """Move a tree into a new top directory."""
    moved = tuple(replace(entry, path=f"{directory}/{entry.path}") for entry in tree.entries)
    return ContextSnapshot((Entry(directory, "dir", 0o755), *moved))


def merged(*trees: ContextSnapshot) -> ContextSnapshot:
    """Merge trees with different paths."""
    entries = (entry for tree in trees for entry in tree.entries)
    return ContextSnapshot(tuple(sorted(entries, key=lambda entry: order(raw(entry.path)))))


def read(entry: Entry) -> bytes:
    if entry.body is not None:
        return entry.body
    try:
        return Path(entry.source).read_bytes()
    except OSError as error:
        raise ContextError(
            f"cannot read {shown(entry.path)}: {reason_of(error)}",
            hint="make it readable, or add it to .detignore",
        ) from error


def read_text(entry: Entry, encoding: str = "utf-8") -> str:
    """Return the text of a small file; `encoding` is used without a byte order mark.

    Raises:
        ContextError: It cannot be read, is too large, or not text.
    """
    if entry.size > textfile.MAX_BYTES:
        raise ContextError(f"{shown(entry.path)}: is larger than {textfile.MAX_BYTES >> 20} MiB")
    try:
        return textfile.decode(read(entry), encoding)
    except TextFileError as error:
        raise ContextError(f"{shown(entry.path)}{error.where}: {error}") from error
